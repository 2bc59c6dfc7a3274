"""`microsoft/apt:1`: installs Debian packages, as Azure Device Update's apt handler does.

(src/extensions/step_handlers/apt_handler of Azure/iot-hub-device-update; "Azure Device Update for IoT Hub apt manifest",
learn.microsoft.com/azure/iot-hub-device-update/device-update-apt-manifest.) The step's one file is an apt manifest:

    {"name": "...", "version": "...", "agentRestartRequired": false, "packages": [{"name": "...", "version": "1.0.1"}]}

A package without a version is wanted as new as there is. handlerProperties: `installedCriteria` (required, as by the agent;
others are let be). Unlike the agent, which notes that it has installed something, IsInstalled asks dpkg for the
packages; and Backup fetches those that will be replaced, so that Restore can put them back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from ...enumerators.bench_component import BenchComponent
from ...enumerators.host import HostComponent
from ...transports import json_text, private_files
from ...transports.plain import quoted
from ..engine.results import FACILITY_STEP_HANDLERS, ActionResult, ResultCode, extended_code
from ..errors import StepFailed
from ..manifests.manifest import InlineStep
from . import backup_store, programs, properties
from .handler import StepHandler

COMPONENT_APT_HANDLER = 2
AGENT = "deviceupdate-agent"
"""Packages whose names begin so are the agent's own: it is restarted after them."""
NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.](?::[a-z0-9-]*[a-z0-9])?", re.ASCII)
"""Debian Policy 5.6.1, with an architecture. A name that ended in a minus would have apt remove the package."""
VERSION = re.compile(r"[0-9][A-Za-z0-9.+:~-]*", re.ASCII)
"""Debian Policy 5.6.12."""
MOST_BYTES = 1 << 20
"""Of an apt manifest."""
MOST_PACKAGES = 1000
OPTIONS = (
    "-y",
    "--allow-downgrades",
    "-o", "DPkg::Lock::Timeout=120",
    "-o", "Dpkg::Options::=--force-confdef",
    "-o", "Dpkg::Options::=--force-confold",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Package:
    name: str
    version: str = ""

    @property
    def argument(self) -> str:
        return f"{self.name}={self.version}" if self.version else self.name


class _Kept(backup_store.Facts):
    """Of each package its version, and its file in the backup's folder with its digest; None: it was not installed."""

    packages: dict[
        str, tuple[str, Annotated[str, Field(pattern="^[0-9]{1,9}/[^/]+[.]deb$")], backup_store.Digest] | None
    ]


class AptHandler(StepHandler):
    """Packages that come along with those that are named are apt's choice, and stay at a Restore.

    A subclass may give dpkg options, and both programs more environment.
    """

    dpkg: ClassVar[tuple[str, ...]] = ("dpkg",)
    environment: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None:
        properties.one_file(step, place)
        properties.criteria(step, place, what="a text")

    @classmethod
    def rollback_blocker(cls, step: InlineStep, component: BenchComponent | HostComponent | None) -> str:
        return "packages that apt installs along with those that are named stay"

    def is_installed(self) -> ActionResult:
        installed = all(self._is_there(package) for package in self._manifest()[0])
        return ActionResult(ResultCode.INSTALLED if installed else ResultCode.NOT_INSTALLED)

    def download(self) -> ActionResult:
        """Fetches everything. A list that can't be brought up to date is not a failure, as with the agent."""
        packages, _ = self._manifest()
        self._run("apt-get", "update", stoppable=True)
        status, said = self._apt("-d", "install", *(package.argument for package in packages), stoppable=True)
        return ActionResult(ResultCode.DOWNLOAD_SUCCESS) if status == 0 else _failure(1, said)

    def backup(self) -> ActionResult:
        """Which versions are there, and the packages of those; without them no way back is promised."""
        folder = self.context.backup_folder
        if backup_store.facts(folder, _Kept) is not None:
            return ActionResult(ResultCode.BACKUP_SUCCESS)
        found: dict[str, list[str] | None] = {}
        for index, package in enumerate(self._manifest()[0]):
            version = self._version(package)
            if not version:
                found[package.name] = None
                continue
            place = folder / str(index)
            with private_files.told(place):
                private_files.folder(place)
            fetched = f"{package.name}={version}"
            status, said = self._run("apt-get", "download", fetched, folder=place, stoppable=True)
            files = list(place.glob("*.deb"))
            if status or len(files) != 1:
                details = f"{fetched} can't be fetched any more: {_last(said)}"
                return ActionResult(ResultCode.BACKUP_UNSUPPORTED, details=details)
            found[package.name] = [version, str(files[0].relative_to(folder)), backup_store.digest(files[0])]
        backup_store.keep(folder, {"packages": found})
        return ActionResult(ResultCode.BACKUP_SUCCESS)

    def install(self) -> ActionResult:
        """dpkg is not interrupted: a cancellation takes effect after it."""
        self._configure()
        status, said = self._apt("install", *(package.argument for package in self._manifest()[0]))
        return ActionResult(ResultCode.INSTALL_SUCCESS) if status == 0 else _failure(2, said)

    def apply(self) -> ActionResult:
        packages, restart = self._manifest()
        for package in packages:
            if not self._is_there(package):
                told = self._version(package) or "not installed"
                return _failure(3, f"{package.argument} is wanted, and it is {told}")
        return ActionResult(ResultCode.APPLY_IMMEDIATE_AGENT_RESTART if restart else ResultCode.APPLY_SUCCESS)

    def restore(self) -> ActionResult:
        folder = self.context.backup_folder
        found = backup_store.facts(folder, _Kept)
        if found is None:
            return ActionResult(ResultCode.RESTORE_UNSUPPORTED)
        if strange := found.packages.keys() - {package.name for package in self._manifest()[0]}:
            raise backup_store.broken(folder, f"the step has no package {quoted(min(strange))}")
        arguments = []
        for name, entry in found.packages.items():
            if entry is None:
                # By the minus apt removes it, in the same go.
                arguments += [f"{name}-"] if self._version(Package(name)) else []
            elif self._version(Package(name)) != entry[0]:
                path = folder / entry[1]
                if not path.is_file() or backup_store.digest(path) != entry[2]:
                    return _failure(4, f"{path} is not any more what was kept")
                arguments.append(str(path.absolute()))
        if arguments:
            self._configure()
            status, said = self._apt("install", *arguments)
            if status:
                return _failure(5, said)
        return ActionResult(ResultCode.RESTORE_SUCCESS)

    # apt and dpkg.

    def _is_there(self, package: Package) -> bool:
        version = self._version(package)
        if not version or package.version:
            return bool(version) and version == package.version
        status, said = self._apt("-s", "install", package.argument)
        return status == 0 and not re.search(r"^Inst ", said, re.MULTILINE)

    def _version(self, package: Package) -> str:
        """ "" unless it is installed, and configured."""
        status, said = self._run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}\\n", package.name)
        first, _, version = said.strip().partition(" ")
        return version if status == 0 and first == "installed" and "\n" not in version else ""

    def _configure(self) -> None:
        """Ends what an interruption has left half done; apt refuses to work before. What it can't end, apt reports."""
        self._run(*self.dpkg, "--configure", "-a", "--force-confdef", "--force-confold")

    def _apt(self, *arguments: str, stoppable: bool = False) -> tuple[int, str]:
        return self._run("apt-get", *OPTIONS, *arguments, stoppable=stoppable)

    def _run(self, *arguments: str, folder: Path | None = None, stoppable: bool = False) -> tuple[int, str]:
        environment = {
            **programs.clean_environment(),
            "LC_ALL": "C",
            "DEBIAN_FRONTEND": "noninteractive",
            **self.environment,
        }
        cancelled = self.context.run.cancelled if stoppable else lambda: False
        return programs.run(arguments, environment=environment, folder=folder, cancelled=cancelled)

    def _manifest(self) -> tuple[list[Package], bool]:
        """The packages, and whether the agent is to be restarted after them. Raises StepFailed."""
        (name,) = self.context.step.files
        return parse(self.context.read(name), name)


def parse(data: bytes, source: str) -> tuple[list[Package], bool]:
    """An apt manifest. Raises StepFailed, which names the field."""
    try:
        raw = json_text.parse(data, most=MOST_BYTES)
    except ValueError as error:
        raise StepFailed(f"{source}: {error}") from error
    if not isinstance(raw, dict):
        raise StepFailed(f"{source}: no JSON object")
    for key in ("name", "version"):
        if not isinstance(raw.get(key), str):
            raise StepFailed(f"{source}: {key}: a text is missing")
    listed = raw.get("packages")
    if not isinstance(listed, list) or not 0 < len(listed) <= MOST_PACKAGES:
        raise StepFailed(f"{source}: packages: a list of 1 to {MOST_PACKAGES} packages is missing")
    packages = []
    for index, item in enumerate(listed):
        name = item.get("name") if isinstance(item, dict) else None
        version = (item.get("version") or "") if isinstance(item, dict) else ""
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise StepFailed(f"{source}: packages[{index}].name: {quoted(name)} is not a name of a package")
        if not isinstance(version, str) or (version and not VERSION.fullmatch(version)):
            raise StepFailed(f"{source}: packages[{index}].version: {quoted(version)} is not a version of a package")
        packages.append(Package(name, version))
    restart = raw.get("agentRestartRequired") is True or any(package.name.startswith(AGENT) for package in packages)
    return packages, restart


def _failure(value: int, said: str) -> ActionResult:
    code = extended_code(FACILITY_STEP_HANDLERS, COMPONENT_APT_HANDLER, value)
    return ActionResult(ResultCode.FAILURE, code, _last(said))


def _last(said: str) -> str:
    """What a program ended with: its errors, or its last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E:")]
    return "; ".join(errors or lines[-1:])[-400:]
