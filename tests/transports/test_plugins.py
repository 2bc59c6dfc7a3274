"""Entry points of installed packages: found without an import, loaded by name, broken ones named and left alone."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution, entry_points
from pathlib import Path

import pytest
from proxyflash.transports import plugins
from proxyflash.transports.errors import PluginBroken, PluginUnknown

MODULES = {
    "fine.py": "class Fine:\n    pass\n",
    "failing.py": "raise RuntimeError('no licence found')\n",
    "hungry.py": "import a_package_that_is_not_there\n",
    "number.py": "SEVEN = 7\n",
}
ENTRIES = """\
[proxyflash.flashers]
acme = fine:Fine
acme-failing = failing:Thing
acme-hungry = hungry:Thing
acme-number = number:SEVEN
acme-missing = fine:Nothing
acme-nowhere = a_module_that_is_not_there:Thing
"""


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package as pip leaves it in site-packages."""
    info = tmp_path / "acme_sensors-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-sensors\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    for name, text in MODULES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    _forget()
    yield
    _forget()
    for name in MODULES:
        sys.modules.pop(name.removesuffix(".py"), None)


def _forget() -> None:
    plugins._installed.cache_clear()
    plugins._group.cache_clear()
    plugins.load.cache_clear()


@pytest.mark.usefixtures("acme")
def test_a_package_of_somebody_elses_is_found_beside_the_built_in_ones() -> None:
    names = plugins.names(plugins.FLASHERS)
    assert names == sorted(names)
    assert {"uds", "dfu", "stm32-uart", "acme"} <= set(names)
    assert plugins.load(plugins.FLASHERS, "acme").__name__ == "Fine"


@pytest.mark.usefixtures("acme")
def test_the_entry_points_are_those_of_the_standard_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = tmp_path / "older"
    (older / "Acme.Sensors-1.1.dist-info").mkdir(parents=True)
    (older / "Acme.Sensors-1.1.dist-info" / "entry_points.txt").write_text(
        "[proxyflash.flashers]\nacme-old = fine:Fine\n"
    )
    (older / "loose-1.egg-info").mkdir()
    (older / "loose-1.egg-info" / "entry_points.txt").write_text(
        "# x = y\n[other]\na=b:c\n[proxyflash.wires]\nw=w:W [x]\n\n"
    )
    (older / "single-1.egg-info").write_text("Name: single\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(older), str(tmp_path / "nowhere")])
    found = {(entry.group, entry.name, entry.value) for entry in plugins._installed() if entry.group in plugins.GROUPS}
    standard = (entry for group in plugins.GROUPS for entry in entry_points(group=group))
    assert found == {(entry.group, entry.name, entry.value) for entry in standard}
    assert ("proxyflash.wires", "w", "w:W [x]") in found
    assert "acme-old" not in {name for _, name, _ in found}


def test_a_package_in_an_archive_is_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("packed.py", "class Packed:\n    pass\n")
        archive.writestr(
            "packed_sensors-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: packed-sensors\nVersion: 1\n"
        )
        archive.writestr(
            "packed_sensors-1.dist-info/entry_points.txt", "[proxyflash.flashers]\npacked = packed:Packed\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path / "packed.zip"))
    _forget()
    try:
        assert plugins.load(plugins.FLASHERS, "packed").__name__ == "Packed"
        (found,) = (item for item in plugins.survey() if item.name == "packed")
        assert (found.package, found.fault) == ("packed-sensors", "")
    finally:
        _forget()
        sys.modules.pop("packed", None)


def test_a_package_in_an_egg_folder_is_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "laid_sensors-1-py3.egg" / "EGG-INFO"
    info.mkdir(parents=True)
    (info / "PKG-INFO").write_text("Metadata-Version: 1.0\nName: laid-sensors\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[proxyflash.flashers]\nlaid = laid:Laid\n")
    monkeypatch.syspath_prepend(str(info.parent))
    _forget()
    try:
        assert "laid" in plugins.names(plugins.FLASHERS)
    finally:
        _forget()


@pytest.mark.usefixtures("acme")
def test_a_package_without_its_metadata_has_a_name(tmp_path: Path) -> None:
    """As pip leaves it where its removal was interrupted."""
    (tmp_path / "acme_sensors-1.2.dist-info" / "METADATA").unlink()
    (found,) = (plugin for plugin in plugins.survey() if plugin.name == "acme")
    assert found.package == "acme_sensors-1.2.dist-info"


@pytest.mark.usefixtures("acme")
def test_names_import_nothing() -> None:
    plugins.names(plugins.FLASHERS)
    assert not {"fine", "failing", "hungry", "number"} & set(sys.modules)


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("acme-failing", "no licence found"),
        ("acme-hungry", "a_package_that_is_not_there"),
        ("acme-missing", "Nothing"),
        ("acme-nowhere", "a_module_that_is_not_there"),
        ("acme-number", "is not a class"),
    ],
)
def test_a_broken_one_says_why(name: str, why: str) -> None:
    with pytest.raises(PluginBroken) as caught:
        plugins.load(plugins.FLASHERS, name)
    assert why in caught.value.cause
    assert name in caught.value.cause


@pytest.mark.usefixtures("acme")
def test_the_survey_lists_the_broken_with_the_others() -> None:
    found = {plugin.name: plugin for plugin in plugins.survey() if plugin.package == "acme-sensors"}
    assert set(found) == {line.split(" = ")[0] for line in ENTRIES.splitlines()[1:]}
    assert found["acme"].fault == ""
    assert (found["acme"].group, found["acme"].target) == (plugins.FLASHERS, "fine:Fine")
    assert all(plugin.fault for name, plugin in found.items() if name != "acme")


@pytest.mark.usefixtures("acme")
def test_a_name_that_two_packages_claim_is_neithers(tmp_path: Path) -> None:
    """A built-in protocol is not replaced behind its user's back; the same claim found twice is one."""
    for package, target in (("rival", "fine:Fine"), ("acme_again", "fine:Fine")):
        info = tmp_path / f"{package}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        name = "uds" if package == "rival" else "acme"
        (info / "entry_points.txt").write_text(f"[proxyflash.flashers]\n{name} = {target}\n")
    _forget()
    with pytest.raises(PluginBroken, match=r"claimed by .*rival"):
        plugins.load(plugins.FLASHERS, "uds")
    assert plugins.load(plugins.FLASHERS, "acme").__name__ == "Fine"
    claims = [plugin for plugin in plugins.survey() if plugin.name == "uds" and plugin.group == plugins.FLASHERS]
    assert {plugin.package for plugin in claims} == {"proxyflash", "rival"}
    assert all("claimed by" in plugin.fault for plugin in claims)


def test_an_unknown_name_is_told_what_there_is() -> None:
    with pytest.raises(PluginUnknown, match="no transport is called 'i2c'; there are: can, serial, udp, usb"):
        plugins.load(plugins.TRANSPORTS, "i2c")


def test_the_groups_are_those_that_the_package_registers() -> None:
    registered = {entry.group for entry in distribution("proxyflash").entry_points}
    assert set(plugins.GROUPS) == {group for group in registered if group.startswith("proxyflash.")}


def test_asking_for_names_is_cheap() -> None:
    """In a process of its own: no transport library comes in with the names."""
    program = (
        "import sys; from proxyflash.transports import plugins; [plugins.names(group) for group in plugins.GROUPS];"
        "print(sorted({'can', 'serial', 'usb', 'isotp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
