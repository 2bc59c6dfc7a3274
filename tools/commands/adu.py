"""`adu`: what ties this host to Azure Device Update's agent: its component enumerator, and scripts for its script handler."""

from __future__ import annotations

import base64
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import click

from ...enumerators.component import document, parse_selector, select
from ...enumerators.errors import BenchLocked
from ...flashers.formats import load
from ...transports import clock, named_files, private_files
from ...transports.deadline import Deadline
from ...transports.errors import ProxyflashError
from ...transports.plain import CAUSE, plain
from ...transports.quoting import shell_line
from ...updates.engine.action import Action
from ...updates.engine.results import (
    COMPONENT_FLASH_HANDLER,
    FACILITY_STEP_HANDLERS,
    ActionResult,
    ResultCode,
    extended_code,
)
from ...updates.errors import PayloadMissing
from ...updates.handlers import backup_store
from ...updates.handlers.flash import FlashHandler
from ...updates.handlers.handler import StepContext
from ...updates.manifests import creating
from ...updates.manifests.conditions import BenchConditions
from ...updates.manifests.manifest import InlineStep, PayloadFile
from .session import Session, command, group

T = TypeVar("T")

LIBRARY, CONF = "libproxyflash_adu.so", "proxyflash-adu.conf"
FOLDER = Path(__file__).parents[1] / "adu"
SCRIPT = "proxyflash-flash.sh"
HEAD = b"# How proxyflash is called: a word on each line.\n"
"""The begin of a configuration for scripts."""
WAIT_SECONDS = 50.0
"""How long the bench may be in use by another process of proxyflash; the enumerator has 60 s for an answer."""
LOOK_SECONDS = 0.2
"""Between two looks at a bench that is in use: no descriptor shows when a lock of another process goes."""
ACTIONS = ("download", "is-installed", "install", "apply", "cancel")


class LibraryMissing(ProxyflashError):
    """The component enumerator for Azure Device Update's agent was not built when proxyflash was installed."""

    code = "E-ADU-LIBRARY"
    default_remedy = "Install a C compiler (apt install gcc), and install proxyflash again."


class OutputFile(ProxyflashError):
    """A file that a command has to write can't be written."""

    code = "E-TARGET"
    default_remedy = "Is there room, and may this user write there?"

    @classmethod
    def of(cls, error: OSError, path: Path) -> Self:
        """`path`: what can't be written, where the error names no file."""
        remedy = "Move it away, or name another place." if isinstance(error, FileExistsError) else None
        return cls(f"{error.filename or path}: {error.strerror}", remedy=remedy)


@group("adu")
def adu() -> None:
    """Azure Device Update: the agent's component enumerator, and scripts that flash.

    \b
    proxyflash adu enumerator /usr/lib/proxyflash
    proxyflash adu script imu.hex --version 1.5.0 --provider Contoso --name Imu --group imus --to update
    """


@command("components")
@click.option("--select", "selector", metavar="JSON", help="Only those that match every pair of this object.")
def components(session: Session, selector: str | None) -> int | None:
    """The components as the agent's enumerator contract has them: one JSON document.

    \b
    proxyflash adu components
    proxyflash adu components --select '{"group": "motors"}'
    """
    wanted = parse_selector(selector) if selector is not None else None
    found = _once_free(lambda: session.bench.scan()).components
    found = tuple(component for component in found if not session.bench.unplugged(component))
    chosen = list(found) if wanted is None else select(found, [wanted])
    session.output.data(document(chosen))
    return None


@command("enumerator")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--conf", type=click.Path(path_type=Path), help="Writes the configuration for scripts there as well.")
def enumerator(session: Session, folder: Path, conf: Path | None) -> int | None:
    """Puts the component enumerator into a folder, set up for this bench file, and says how it is registered.

    \b
    sudo proxyflash --bench /etc/proxyflash/bench.toml --state /var/lib/proxyflash \\
        adu enumerator /usr/lib/proxyflash --conf /etc/proxyflash/adu.conf
    """
    library = FOLDER / LIBRARY
    if not library.exists():
        raise LibraryMissing(f"{LIBRARY} was not built when proxyflash was installed: there was no C compiler")
    bench = session.bench
    # Isolated: neither the agent's working folder nor its environment or its user's folder says what Python imports.
    words = [sys.executable, "-I", "-m", "proxyflash.tools", "--bench", str(bench.file.path.absolute())]
    words += ["--state", str(bench.state.absolute())]
    text = _configuration(words)
    target = folder.absolute() / LIBRARY
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A library that the agent has open is replaced, not overwritten.
        with private_files.whole(target) as stream:
            stream.write(library.read_bytes())
            os.fchmod(stream.fileno(), 0o755)
        for path in (folder / CONF, conf):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                named_files.refuse_other(path, lambda found: found.startswith(HEAD), "a configuration of proxyflash")
                creating.write(path, text)
    except OSError as error:
        raise OutputFile.of(error, folder) from error
    register = shell_line(
        ["AducIotAgent", "-l", "2", "--extension-type", "componentEnumerator", "--register-extension", target]
    )
    session.output.document({"library": str(target), "command": words, "register": register})
    session.output.lines([str(target), f"register it:  sudo {register}"])
    return None


def _configuration(words: Sequence[str]) -> bytes:
    """What the agent's scripts and its enumerator read: a word on each line.

    Raises OutputFile for a word that a line can't hold.
    """
    for word in words:
        if not word or word.startswith("#") or "\n" in word or word.endswith("\r"):
            raise OutputFile(
                f"{word!r} can't be a line of {CONF}",
                remedy="Move the file or folder of this name to a path without line breaks.",
            )
    return HEAD + os.fsencode("".join(f"{word}\n" for word in words))


@command("script")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--version", "version", required=True, help="What the component reports once the image runs.")
@click.option("--provider", required=True, help="Of the update's id.")
@click.option("--name", required=True, help="Of the update's id; the update of the components is NAME-components.")
@click.option("--group", help="Selects the components of this group.")
@click.option("--model", help="Selects the components of this model.")
@click.option("--address", help="Where a raw binary goes, such as 0x08000000.")
@click.option("--host", "hosts", multiple=True, metavar="KEY=VALUE,...", help="Which hosts it is for.")
@click.option("--to", "folder", type=click.Path(path_type=Path), required=True, help="The folder to write; made.")
def script(
    session: Session, image: Path, version: str, provider: str, name: str, group: str | None, model: str | None,
    address: str | None, hosts: tuple[str, ...], folder: Path,
) -> int | None:  # fmt: skip
    """Writes an update that the agent carries out with its own script handler, by proxyflash on the host.

    Two import manifests, the script and the image: import them as they are.

    \b
    proxyflash adu script imu-1.5.0.hex --version 1.5.0 --provider Contoso --name Imu --group imus --to update
    """
    wanted = {key: value for key, value in (("group", group), ("model", model)) if value}
    if not wanted:
        raise click.UsageError("name the components: --group or --model")
    if image.name == SCRIPT:
        raise OutputFile(f"{image} has the name of the script that is written beside it", remedy="Rename the image.")
    start = _number(address)
    load(image, address=start, as_is=True)
    try:
        selected = creating.selectors(hosts, "--host")
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    text = (FOLDER / "script.sh").read_text(encoding="utf-8").replace("@IMAGE@", shlex.quote(image.name))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if image.absolute() != (folder / image.name).absolute():
            data = named_files.read(image)
            named_files.refuse_other(folder / image.name, lambda found: found == data, "this image", len(data))
            creating.write(folder / image.name, data)
        creating.write(folder / SCRIPT, os.fsencode(text), mode=0o755)
    except OSError as error:
        raise OutputFile.of(error, folder) from error
    # The manifest is signed: the script flashes the image that it names, whatever lies beside the script by then.
    arguments = f"--component --component-name-val --sha256 {backup_store.digest(folder / image.name)}"
    arguments += "" if start is None else f" --address 0x{start:X}"
    child = creating.Draft(
        provider, f"{name}-components", version, select=(wanted,), files=(folder / SCRIPT, folder / image.name),
        handler=creating.SCRIPT,
        properties={
            "scriptFileName": SCRIPT, "arguments": arguments, "installedCriteria": version, "apiVersion": "1.1",
        },
    )  # fmt: skip
    path = _written(child, folder)
    parent = creating.Draft(provider, name, version, host=selected, children=(path,))
    paths = [path, _written(parent, folder)]
    session.output.document({"folder": str(folder), "manifests": [str(item) for item in paths]})
    for item in (*paths, folder / SCRIPT, folder / image.name):
        session.output.line(str(item))
    return None


def _written(draft: creating.Draft, folder: Path) -> Path:
    text, manifest = creating.import_manifest(draft)
    path = folder / creating.file_name(manifest.updateId, "importmanifest.json")
    creating.write(path, text.encode())
    return path


@command("act")
@click.option("--action", type=click.Choice(ACTIONS), required=True)
@click.option("--component", "name", required=True)
@click.option("--image", type=click.Path(path_type=Path), required=True)
@click.option("--installed-criteria", "version", required=True)
@click.option("--result-file", type=click.Path(path_type=Path), required=True)
@click.option("--work-folder", type=click.Path(path_type=Path))
@click.option("--address")
@click.option("--sha256", metavar="HEX", help="The image's; another image is not used.")
def act(
    session: Session, action: str, name: str, image: Path, version: str, result_file: Path, work_folder: Path | None,
    address: str | None, sha256: str | None,
) -> int | None:  # fmt: skip
    """One action on one component, as the agent's script handler asks for it. Scripts of `adu script` call it.

    The result goes to the result file; the exit status is 0 once it is there.

    \b
    proxyflash adu act --action install --component imu --image imu.hex --installed-criteria 1.5.0 --result-file r.json
    """
    session.stop_safely()
    properties: dict[str, Any] = {"installedCriteria": version}
    if address is not None:
        properties["address"] = _number(address)
    step = InlineStep(handler=creating.FLASH, files=(image.name,), handlerProperties=properties)
    try:
        result = _acted(session, action, name, step, image, sha256)
    except ProxyflashError as error:
        code = extended_code(FACILITY_STEP_HANDLERS, COMPONENT_FLASH_HANDLER, error.exit_status)
        result = ActionResult(ResultCode.FAILURE, code, f"{error.code} {name}: {error.cause}")
    text = {"resultCode": result.code, "extendedResultCode": result.extended, "resultDetails": result.details}
    creating.write(result_file, json.dumps(text).encode())
    session.output.line(f"{name}  {action}  {int(result.code)}  {plain(result.details, CAUSE)}".rstrip())
    return None


def _acted(session: Session, action: str, name: str, step: InlineStep, image: Path, sha256: str | None) -> ActionResult:
    """What the handler of flash steps makes of it."""
    if action == Action.CANCEL:
        # The agent asks when an action has ended; there is nothing under way any more.
        return ActionResult(ResultCode.CANCEL_SUCCESS)
    bench = session.bench
    context = StepContext(
        step=step,
        files={image.name: image},
        work_folder=image.parent,
        backup_folder=image.parent,
        component=bench.component(name),
        record=None,
        conditions=BenchConditions(bench, name),
        run=session.context,
        payloads=_payloads(image, sha256),
    )
    return _once_free(Action(action).method_of(FlashHandler(context)))


def _payloads(image: Path, sha256: str | None) -> dict[str, PayloadFile]:
    """What the agent's manifest says of the image; empty where it doesn't say it."""
    if sha256 is None:
        return {}
    try:
        digest = base64.b64encode(bytes.fromhex(sha256)).decode()
        size = image.stat().st_size
        return {image.name: PayloadFile(filename=image.name, sizeInBytes=size, hashes={"sha256": digest})}
    except OSError as error:
        raise PayloadMissing(f"{image}: {error.strerror}") from error
    except ValueError:
        raise click.UsageError(f"--sha256 {sha256}: not 64 digits of a SHA-256 in hex, or the image is empty") from None


def _once_free(action: Callable[[], T]) -> T:
    """Does it once no other process works on the bench, which is waited for. Raises what it raises."""
    deadline = Deadline.after(WAIT_SECONDS)
    while True:
        try:
            return action()
        except BenchLocked:
            if deadline.expired:
                raise
            clock.sleep(LOOK_SECONDS)


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(text, 0)
    except ValueError:
        raise click.UsageError(f"--address {text}: no number such as 0x08000000") from None


for _command in (components, enumerator, script, act):
    adu.add_command(_command)
