"""The structure holds: imports point one way, errors have codes of their own, entry points load."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from proxyflash.transports import plugins
from proxyflash.transports.errors import ExitStatus, ProxyflashError

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "transports": set(),
    "flashers": {"transports"},
    "enumerators": {"flashers", "transports"},
    "updates": {"enumerators", "flashers", "transports"},
    "tools": {"updates", "enumerators", "flashers", "transports"},
    "emulators": {"transports"},
    "hil_tests": {"updates", "enumerators", "flashers", "transports", "emulators"},
}
EXCEPTIONS = {
    # A bench file that asks for emulated parts, and the command that serves them.
    ("enumerators/bench.py", "emulators"),
    ("tools/commands/emulate.py", "emulators"),
    # A recording in the place of a bench's hardware.
    ("tools/commands/recordings.py", "emulators"),
    # Commands under test, in forks: a Python of their own takes its time to start in a guest.
    ("hil_tests/kernel/usb_lab.py", "tools"),
    ("hil_tests/kernel/test_vm_run.py", "tools"),
    # Programs and files of PyPI, each fetched once for the tests and the benchmarks.
    ("hil_tests/real/conftest.py", "benchmarks"),
    ("hil_tests/real/zephyr_firmware.py", "benchmarks"),
    # What a demo copies; the demo on real boot loaders runs the commands.
    ("tools/commands/demo.py", "examples"),
    ("hil_tests/real/demo.py", "examples"),
    ("hil_tests/real/demo.py", "benchmarks"),
    ("hil_tests/real/demo.py", "tools"),
}


def imports(path: Path) -> Iterator[tuple[str, str, bool]]:
    """The packages of proxyflash that a module imports: package, what of it, whether at import time."""
    depth = len(path.relative_to(ROOT).parts) - 1
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if node.level > depth:
                names = [node.module] if node.module else [alias.name for alias in node.names]
            elif node.level == 0 and (node.module or "").startswith("proxyflash."):
                names = [str(node.module).removeprefix("proxyflash.")]
            else:
                continue
            for name in names:
                for alias in node.names:
                    yield name.split(".")[0], f"{name}.{alias.name}", id(node) in top
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("proxyflash."):
                    yield alias.name.split(".")[1], alias.name, id(node) in top


MODULES = sorted(
    path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    module = str(path.relative_to(ROOT))
    package = path.relative_to(ROOT).parts[0]
    for imported, what, at_top in imports(path):
        if imported == package or imported in MAY_IMPORT[package]:
            continue
        lazily = not at_top or package == "hil_tests" or "TYPE_CHECKING" in path.read_text()
        if (module, imported) in EXCEPTIONS and lazily:
            continue
        if package == "emulators" and imported == "flashers":
            name = what.rpartition(".")[2]
            assert name[0].isupper(), f"{module} imports {what}: emulators share named constants only"
            continue
        pytest.fail(f"{module} imports {what}")


def subclasses(kind: type[ProxyflashError]) -> Iterator[type[ProxyflashError]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def all_errors() -> list[type[ProxyflashError]]:
    for path in MODULES:
        if path.is_relative_to(ROOT / "hil_tests"):
            continue  # Tests raise what others have defined.
        if "raise " in path.read_text(encoding="utf-8") or path.name == "errors.py":
            import_module("proxyflash." + ".".join(path.relative_to(ROOT).with_suffix("").parts))
    return sorted(set(subclasses(ProxyflashError)), key=lambda kind: kind.__name__)


def test_each_code_is_one_class() -> None:
    codes: dict[str, str] = {}
    for kind in all_errors():
        if "code" not in vars(kind):
            continue
        assert kind.code not in codes, f"{kind.__name__} and {codes[kind.code]} share {kind.code}"
        codes[kind.code] = kind.__name__
        assert re.fullmatch(r"E(-[A-Z0-9]+)+", kind.code)
        assert isinstance(kind.exit_status, ExitStatus)


def test_each_code_is_documented_with_its_exit_status() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(E-[A-Z0-9-]+)` \| ([0-9, ]+) \|", text, re.MULTILINE))
    raised = {kind.code: kind for kind in all_errors() if "code" in vars(kind) and not kind.__subclasses__()}
    assert set(listed) == set(raised)
    for code, statuses in listed.items():
        if code != "E-CANCELLED":
            assert int(statuses) == raised[code].exit_status, code


@pytest.mark.parametrize("group", plugins.GROUPS)
def test_every_built_in_plugin_loads(group: str) -> None:
    own = [plugin for plugin in plugins.survey() if plugin.group == group and plugin.package == "proxyflash"]
    assert own
    assert [plugin for plugin in own if plugin.fault] == []


CLOCKS = ("transports/clock.py", "transports/simulated_clock.py")
"""The only modules that read time, sleep, and make threads and what they wait with."""
OF_THE_CLOCK = ("time", "threading", "queue", "sched", "concurrent")
REAL = {
    "hil_tests/endings.py": "signals belong to the process's own main thread",
    "hil_tests/simulated_time.py": "tells tests that they use real time",
    "tools/commands/session.py": "within a signal nothing but a real thread, which uses no clock, may print",
    "transports/recording_formats.py": "formats times that were recorded",
}
"""Modules that take something of it from the standard library all the same, and why."""


def takes_time_itself(path: Path) -> list[str]:
    """The modules of time and threads that a module imports itself."""
    taken = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            taken += [alias.name for alias in node.names if alias.name.split(".")[0] in OF_THE_CLOCK]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and str(node.module).split(".")[0] in OF_THE_CLOCK:
            taken.append(str(node.module))
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("datetime.now", "datetime.utcnow", "date.today"):
            taken.append(ast.unparse(node))
    return taken


FOR_REAL_PARTS = ("hil_tests/kernel", "hil_tests/real")
"""Tests against kernel drivers and real bootloaders, which know no other time."""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_time_and_threads_come_from_the_clock(path: Path) -> None:
    module = str(path.relative_to(ROOT))
    if module in CLOCKS or module.startswith(FOR_REAL_PARTS):
        return
    taken = takes_time_itself(path)
    if module in REAL:
        assert taken, f"{module} needs no exception any more"
    else:
        assert not taken, f"{module} takes {', '.join(taken)} itself: use transports/clock.py"


def test_exceptions_from_the_clock_exist() -> None:
    assert set(REAL) <= {str(path.relative_to(ROOT)) for path in MODULES}
