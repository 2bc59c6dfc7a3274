"""`microsoft/apt:1`: the host's apt and dpkg, on a repository and a system in folders."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers.errors import Cancelled
from proxyflash.updates.engine.results import ResultCode
from proxyflash.updates.errors import ManifestField, StepFailed
from proxyflash.updates.handlers.apt import AptHandler, Package, parse

from .steps import Stage, inline

CONF = """
Dir "{root}";
Dir::State::status "{root}/var/lib/dpkg/status";
DPkg::Options {{ "--root={root}"; "--force-not-root"; "--force-script-chrootless"; "--log={root}/dpkg.log"; }};
APT::Sandbox::User "root";
"""
FOLDERS = (
    "var/lib/dpkg/updates var/lib/dpkg/info var/lib/dpkg/triggers var/cache/apt/archives/partial var/log/apt "
    "var/lib/apt/lists/partial etc/apt/apt.conf.d etc/apt/preferences.d etc/apt/sources.list.d etc/apt/trusted.gpg.d"
)


class System:
    """A system and its repository, both in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.repository = folder / "repository"
        for name in FOLDERS.split():
            (self.root / name).mkdir(parents=True)
        self.repository.mkdir()
        (self.root / "var/lib/dpkg/status").touch()
        (self.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{self.repository} ./\n")
        (folder / "apt.conf").write_text(CONF.format(root=self.root))

    def publish(self, *packages: tuple[str, str], script: str = "") -> None:
        """In the place of what was published before."""
        shutil.rmtree(self.repository)
        self.repository.mkdir()
        index = ""
        for name, version in packages:
            tree = self.folder / "tree"
            (tree / "DEBIAN").mkdir(parents=True)
            (tree / "opt").mkdir()
            (tree / "opt" / name).write_text(version)
            about = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: d\n"
            (tree / "DEBIAN/control").write_text(about)
            if script:
                (tree / "DEBIAN/postinst").write_text(script)
                (tree / "DEBIAN/postinst").chmod(0o755)
            file = f"{name}_{version.replace(':', '%3a')}_all.deb"
            subprocess.run(
                ["dpkg-deb", "--root-owner-group", "-b", tree, self.repository / file], check=True, capture_output=True
            )
            shutil.rmtree(tree)
            data = (self.repository / file).read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            index += f"{about}Filename: ./{file}\nSize: {len(data)}\nSHA256: {digest}\n\n"
        (self.repository / "Packages").write_text(index)

    def holds(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in sorted((self.root / "opt").glob("*"))}


@pytest.fixture
def system(tmp_path: Path) -> System:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("apt is not installed")
    made = System(tmp_path)
    made.publish(("thermo", "1.0"), ("report", "1:2.0-1"))
    return made


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "bench.toml").write_text("")
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as opened:
        yield opened


def handler_in(folder: Path) -> type[AptHandler]:
    """Of the system in a folder."""
    root = folder / "root"

    class Handler(AptHandler):
        environment: ClassVar[Mapping[str, str]] = {
            "APT_CONFIG": str(folder / "apt.conf"),
            "DPKG_ADMINDIR": str(root / "var/lib/dpkg"),
        }
        dpkg = (
            "dpkg", f"--root={root}", "--force-not-root", "--force-script-chrootless", f"--log={root}/dpkg.log",
        )  # fmt: skip

    return Handler


def stage(bench: Bench, *packages: dict[str, str], **more: Any) -> Stage:
    made = bench.file.path.parent
    content = {"name": "contoso", "version": "1.0.1", "packages": list(packages), **more}
    (made / "apt.json").write_text(json.dumps(content))
    return Stage(
        bench, handler_in(made), inline("microsoft/apt:1", "apt.json", installedCriteria="contoso-1.0.1"), made
    )


OLD = ({"name": "thermo", "version": "1.0"},)
NEW = ({"name": "thermo", "version": "1.1"}, {"name": "report"})


@pytest.fixture
def old(system: System, bench: Bench) -> System:
    """With the old thermo installed, and the new one published beside it."""
    made = stage(bench, *OLD)
    assert made.act("download").succeeded
    assert made.act("install").succeeded
    system.publish(("thermo", "1.0"), ("thermo", "1.1"), ("report", "1:2.0-1"))
    return system


def test_packages_are_installed_and_what_was_there_comes_back(old: System, bench: Bench) -> None:
    made = stage(bench, *NEW)
    assert made.act("download").code == ResultCode.DOWNLOAD_SUCCESS
    assert made.act("is_installed").code == ResultCode.NOT_INSTALLED
    assert made.act("backup").code == ResultCode.BACKUP_SUCCESS
    assert old.holds() == {"thermo": "1.0"}
    assert made.act("install").code == ResultCode.INSTALL_SUCCESS
    assert made.act("apply").code == ResultCode.APPLY_SUCCESS
    assert made.act("is_installed").code == ResultCode.INSTALLED
    assert old.holds() == {"report": "1:2.0-1", "thermo": "1.1"}
    # The archive forgets the old one; what Backup fetched is enough.
    old.publish(("thermo", "1.1"))
    for _ in range(2):
        assert made.act("restore").code == ResultCode.RESTORE_SUCCESS
        assert old.holds() == {"thermo": "1.0"}


def test_a_package_without_a_version_is_as_new_as_there_is(old: System, bench: Bench) -> None:
    made = stage(bench, {"name": "thermo"})
    made.act("download")
    assert made.act("is_installed").code == ResultCode.NOT_INSTALLED
    made.act("install")
    assert made.act("is_installed").code == ResultCode.INSTALLED
    assert old.holds()["thermo"] == "1.1"


def test_a_downgrade_is_done_when_it_is_asked_for(old: System, bench: Bench) -> None:
    for version in ("1.1", "1.0"):
        made = stage(bench, {"name": "thermo", "version": version})
        made.act("download")
        assert made.act("install").succeeded
        assert made.act("apply").succeeded
        assert old.holds()["thermo"] == version


def test_an_unknown_version_fails_at_the_download(old: System, bench: Bench) -> None:
    made = stage(bench, {"name": "thermo", "version": "7.0"})
    result = made.act("download")
    assert (result.code, result.extended) == (ResultCode.FAILURE, 0x30200001)
    assert "7.0" in result.details
    assert made.act("install").code == ResultCode.FAILURE
    assert made.act("apply").details == "thermo=7.0 is wanted, and it is 1.0"


def test_no_way_back_is_promised_for_what_can_not_be_fetched_any_more(old: System, bench: Bench) -> None:
    old.publish(("thermo", "1.1"))
    made = stage(bench, *NEW[:1])
    made.act("download")
    for path in (old.root / "var/cache/apt/archives").glob("*.deb"):
        path.unlink()
    backed = made.act("backup")
    assert backed.code == ResultCode.BACKUP_UNSUPPORTED
    assert "thermo=1.0 can't be fetched any more" in backed.details
    made.act("install")
    assert made.act("restore").code == ResultCode.RESTORE_UNSUPPORTED
    assert old.holds()["thermo"] == "1.1"


def test_what_a_cut_left_half_configured_is_ended_first(old: System, bench: Bench, tmp_path: Path) -> None:
    """A postinst that is killed once, as by a cut: the package is unpacked and not configured."""
    once = tmp_path / "once"
    once.touch()
    script = f"#!/bin/sh\nif [ -e {once} ]; then rm {once}; kill -9 $$; fi\n"
    old.publish(("thermo", "1.1"), script=script)
    made = stage(bench, *NEW[:1])
    made.act("download")
    assert made.act("install").code == ResultCode.FAILURE
    assert made.act("is_installed").code == ResultCode.NOT_INSTALLED  # unpacked is not installed
    assert made.act("install").code == ResultCode.INSTALL_SUCCESS
    assert made.act("is_installed").code == ResultCode.INSTALLED


def test_dpkg_that_was_cut_in_the_midst_is_put_right_first(old: System, bench: Bench) -> None:
    """It leaves entries of its status in a folder of their own; apt does nothing until they are taken over."""
    admin = old.root / "var/lib/dpkg"
    (admin / "updates/0001").write_text((admin / "status").read_text().split("\n\n")[0] + "\n")
    made = stage(bench, *NEW[:1])
    assert made.act("install").code == ResultCode.INSTALL_SUCCESS
    assert old.holds()["thermo"] == "1.1"
    assert not list((admin / "updates").iterdir())


def test_a_backup_that_was_changed_is_not_installed(old: System, bench: Bench) -> None:
    made = stage(bench, *NEW[:1])
    for action in ("download", "backup", "install"):
        assert made.act(action).succeeded
    (package,) = made.backup.glob("*/*.deb")
    package.write_bytes(package.read_bytes() + b"x")
    assert made.act("restore").code == ResultCode.FAILURE
    assert old.holds()["thermo"] == "1.1"


def test_the_agent_s_own_package_asks_for_its_restart(system: System, bench: Bench) -> None:
    made = stage(bench, *OLD, agentRestartRequired=True)
    made.act("download")
    made.act("install")
    assert made.act("apply").code == ResultCode.APPLY_IMMEDIATE_AGENT_RESTART
    assert parse(b'{"name":"n","version":"1","packages":[{"name":"deviceupdate-agent"}]}', "f")[1]


def test_a_download_can_be_stopped(system: System, bench: Bench) -> None:
    made = stage(bench, *OLD)
    made.cancelled = lambda: True
    (bench.file.path.parent / "apt.conf").open("a").write('APT::Update::Pre-Invoke { "sleep 600"; };\n')
    with pytest.raises(Cancelled):
        made.act("download")


@pytest.mark.parametrize(
    "package",
    [
        {"name": "thermo-"},  # apt would remove it
        {"name": "--purge"},
        {"name": "-o=Dir=/"},
        {"name": "./file.deb"},
        {"name": "a b"},
        {"name": "thermo^"},
        {"name": ""},
        {"name": 7},
        {"version": "1"},
        {"name": "thermo", "version": "1.0 other"},
        {"name": "thermo", "version": "=1"},
        {"name": "thermo", "version": 1},
        "thermo",
    ],
)
def test_names_that_mean_something_else_to_apt(package: Any) -> None:
    text = json.dumps({"name": "n", "version": "1", "packages": [package]})
    with pytest.raises(StepFailed, match=r"packages\[0\]\."):
        parse(text.encode(), "apt.json")


@pytest.mark.parametrize("name", ["thermo", "g++", "libstdc++6", "python3.11", "libc6:armhf"])
def test_names_that_are_ones(name: str) -> None:
    text = json.dumps({"name": "n", "version": "1", "packages": [{"name": name, "version": "1:2.0~rc1-1+b2"}]})
    assert parse(text.encode(), "apt.json") == ([Package(name, "1:2.0~rc1-1+b2")], False)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_manifest_or_none(data: bytes) -> None:
    with contextlib.suppress(StepFailed):
        packages, _ = parse(data, "apt.json")
        assert packages


@pytest.mark.parametrize("text", ["[" * 9000, '{"name": "n"}', '{"name": "n", "version": "1", "packages": []}'])
def test_what_is_no_manifest(text: str) -> None:
    with pytest.raises(StepFailed):
        parse(text.encode(), "apt.json")


@pytest.mark.parametrize(("files", "properties"), [(("a", "b"), {"installedCriteria": "x"}), (("a",), {})])
def test_properties(files: tuple[str, ...], properties: dict[str, Any]) -> None:
    with pytest.raises(ManifestField):
        AptHandler.check(inline("microsoft/apt:1", *files, **properties), on_component=False, place="p")
