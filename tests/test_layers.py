"""The structure holds: imports keep their rules and make no circle, errors have codes of their own, entry points load."""

from __future__ import annotations

import ast
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
from proxyflash.transports import plugins
from proxyflash.transports.errors import ExitStatus, ProxyflashError

from .sources import MODULES, ROOT


def name_of(path: Path) -> str:
    """A module's name without "proxyflash."; a package's for its `__init__`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in MODULES}


@dataclass(frozen=True)
class Import:
    """`module` imports `target`, both without "proxyflash.".

    `lazily`: within a function, or for a type checker alone.
    """

    path: Path
    line: int
    target: str
    lazily: bool

    @property
    def module(self) -> str:
        return name_of(self.path)

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    @property
    def target_package(self) -> str:
        return self.target.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)} imports {self.target}"


def import_statements(node: ast.AST, lazily: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Each import below a node, and whether it is lazy."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, lazily
    elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for body, is_lazy in ((node.body, True), (node.orelse, lazily)):
            for statement in body:
                yield from import_statements(statement, is_lazy)
    else:
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from import_statements(child, lazily or is_function)


def own_imports(path: Path, text: str | None = None) -> list[Import]:
    """What a module imports of proxyflash. `text`: in the place of what the file holds."""
    folder = path.relative_to(ROOT).parts[:-1]
    found = []
    for node, lazily in import_statements(ast.parse(text or path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("proxyflash.")]
            targets = [name.removeprefix("proxyflash.") for name in names]
        else:
            above = [*("proxyflash", *folder)[: len(folder) + 2 - node.level]] if node.level else []
            start, _, base = ".".join([*above, *([node.module] if node.module else [])]).partition(".")
            if start != "proxyflash":
                continue
            # What is imported of a module may be a module itself.
            each = [f"{base}.{alias.name}".lstrip(".") for alias in node.names]
            targets = [target if not base or target in NAMES else base for target in each]
        found += [Import(path, node.lineno, target, lazily) for target in dict.fromkeys(targets)]
    return found


IMPORTS = [found for path in MODULES for found in own_imports(path)]
MAY_IMPORT = {
    "transports": set(),
    "flashers": {"transports"},
    "enumerators": {"flashers", "transports"},
    "updates": {"enumerators", "flashers", "transports"},
    "report_page": {"updates", "enumerators", "flashers", "transports"},
    "tools": {"report_page", "updates", "enumerators", "flashers", "transports"},
    "hil_tests": {"report_page", "updates", "enumerators", "flashers", "transports", "emulators", "testing"},
    "testing": {"updates", "enumerators", "flashers", "transports", "emulators"},
}
FAMILIES = {path.parent.name for path in (ROOT / "flashers").glob("*/profile.py")} - {"serial", "can"}
"""The folders of bootloader protocols."""
ENGINE = {
    f"flashers.{name}"
    for name in ("plan", "programmer", "events", "reporter", "strategy", "memory_strategy", "slot_strategy", "lookout")
}
FOR_FAMILIES = {
    "flashers.describing",
    "flashers.flasher",
    "flashers.image",
    "flashers.memory",
    "flashers.memory_runs",
    "flashers.errors",
    "flashers.retries",
    "flashers.settings",
    "flashers.formats",
    "flashers.formats.avr_memories",
    "flashers.formats.mcuboot",
    "flashers.vector_table",
}
"""Beside `flashers.serial` and `flashers.can`, which hold what the protocols of one kind of bus share, and `flashers.keys`."""
ERRORS = {"flashers.errors", "transports.errors"}


def family(module: str) -> str | None:
    """The protocol's folder that a module lies in, or that it is."""
    start, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    return name if start == "flashers" and name in FAMILIES else None


def is_codec(module: str) -> bool:
    return module.endswith((".codec", "_codec"))


def is_of_the_suite(module: str) -> bool:
    """In hil_tests, but for the tests of kernel drivers and of real bootloaders, each of which is for one protocol."""
    return module.startswith("hil_tests.") and not module.startswith(("hil_tests.kernel.", "hil_tests.real."))


@dataclass(frozen=True)
class Rule:
    """`breaks`: whether an import does."""

    number: int
    sentence: str
    breaks: Callable[[Import], bool]


def points_up(it: Import) -> bool:
    return it.package in MAY_IMPORT and it.target_package not in MAY_IMPORT[it.package] | {it.package}


def from_family(it: Import) -> bool:
    return family(it.module) is not None and family(it.target) != family(it.module)


def imports_more_than_is_shared(it: Import) -> bool:
    shared = it.target in FOR_FAMILIES or it.target.startswith(("flashers.serial.", "flashers.can.", "flashers.keys."))
    return (
        from_family(it)
        and it.target_package == "flashers"
        and not shared
        and it.target not in ENGINE
        and family(it.target) is None
    )


RULES = (
    Rule(1, "imports point one way: tools -> updates -> enumerators -> flashers -> transports", points_up),
    Rule(2, "a protocol's folder never imports the engine", lambda it: from_family(it) and it.target in ENGINE),
    Rule(
        2,
        "a protocol's folder never imports another protocol's folder",
        lambda it: from_family(it) and family(it.target) is not None,
    ),
    Rule(
        2,
        "of flashers, a protocol's folder imports what all protocols share: "
        + ", ".join(sorted(name.removeprefix("flashers.") for name in FOR_FAMILIES))
        + ", serial, can, keys",
        imports_more_than_is_shared,
    ),
    Rule(
        3,
        "the engine, and what all protocols share, never import a protocol's folder",
        lambda it: it.package == "flashers" and family(it.module) is None and family(it.target) is not None,
    ),
    Rule(
        4,
        "of proxyflash, a codec imports errors only",
        lambda it: is_codec(it.module) and it.target not in ERRORS,
    ),
    Rule(
        5,
        "enumerators, updates, testing and the suite of bench tests never import a protocol's folder",
        lambda it: (
            (it.package in ("enumerators", "updates", "testing") or is_of_the_suite(it.module))
            and family(it.target) is not None
        ),
    ),
    Rule(
        6,
        "emulators import transports only",
        lambda it: it.package == "emulators" and it.target_package not in ("emulators", "transports"),
    ),
)
NO_CIRCLES = "no module imports itself by way of others, neither within functions nor for a type checker"
"""Rule 7. Rule 8, the clock's, is further down."""
LAZY = {
    ("enumerators.emulation", "emulators"): "a bench file that asks for emulated parts",
    ("enumerators.buses", "emulators"): "the types of emulated parts, and of a recording in the place of the buses",
    ("enumerators.bench", "emulators"): "the type of a recording in the place of the buses",
    ("tools.commands.emulate", "emulators"): "the command that serves emulated parts",
    ("tools.commands.recordings", "emulators"): "a recording in the place of a bench's hardware",
}
"""What may break rule 1 or 6 within a function or for a type checker: module, package, and why."""
AT_ONCE = {
    ("hil_tests.kernel.usb_lab", "tools"): "a forked command: a Python of its own takes long to start in a guest",
    ("hil_tests.kernel.test_vm_run", "tools"): "tests the command",
    ("hil_tests.kernel.test_can_recipe", "tools"): "tests the command, as a page of the documentation calls it",
    ("hil_tests.kernel.test_can_monitor", "tools"): "tests the command",
    ("hil_tests.real.conftest", "benchmarks"): "programs of PyPI, each fetched once for tests and benchmarks",
    ("hil_tests.real.zephyr_firmware", "benchmarks"): "files of PyPI, each fetched once for tests and benchmarks",
    ("hil_tests.real.demo", "examples"): "the demo on real bootloaders copies an example",
    ("hil_tests.real.demo", "benchmarks"): "the demo on real bootloaders fetches programs of PyPI",
    ("hil_tests.real.demo", "tools"): "the demo on real bootloaders runs the commands",
}
"""What may break rule 1 anywhere in the module."""
KNOWN: set[tuple[str, str]] = set()
"""Modules that still break rule 2 or 5. Add none."""


def is_excepted(it: Import) -> bool:
    pair = it.module, it.target_package
    return pair in AT_ONCE or (pair in LAZY and it.lazily)


def broken(imports: Iterable[Import]) -> list[str]:
    """What breaks a rule, in words."""
    return [
        f"{it}: {rule.sentence}" + (" (here only within a function)" if (it.module, it.target_package) in LAZY else "")
        for it in imports
        for rule in RULES
        if rule.breaks(it) and not is_excepted(it) and (it.module, it.target) not in KNOWN
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_keep_the_rules(path: Path) -> None:
    found = broken(it for it in IMPORTS if it.path == path)
    assert not found, "\n".join(found)


def test_each_known_import_is_there() -> None:
    breaking = {(it.module, it.target) for it in IMPORTS for rule in RULES if rule.breaks(it)}
    mended = sorted(f"{module} -> {target}" for module, target in KNOWN - breaking)
    assert not mended, f"nothing breaks a rule here any more, so delete it from KNOWN: {', '.join(mended)}"


def test_each_exception_is_needed() -> None:
    breaking = {(it.module, it.target_package) for it in IMPORTS for rule in RULES if rule.breaks(it)}
    unneeded = sorted(f"{module} -> {package}" for module, package in (LAZY.keys() | AT_ONCE.keys()) - breaking)
    assert not unneeded, f"delete these exceptions, which nothing needs: {', '.join(unneeded)}"


def circles(imports: Iterable[Import]) -> list[str]:
    """A shortest circle through each module that imports itself by way of others; each circle once, in words."""
    graph: dict[str, dict[str, Import]] = {}
    for it in imports:
        if it.target in NAMES and it.target != it.module:
            graph.setdefault(it.module, {}).setdefault(it.target, it)
    found: dict[frozenset[str], str] = {}
    for start in sorted(graph):
        came_from: dict[str, str] = {}
        ahead = deque([start])
        while ahead and start not in came_from:
            module = ahead.popleft()
            for target in sorted(graph.get(module, {})):
                if target not in came_from:
                    came_from[target] = module
                    ahead.append(target)
        if start in came_from:
            way = [start]
            while len(way) == 1 or way[-1] != start:
                way.append(came_from[way[-1]])
            way.reverse()
            steps = [graph[module][target] for module, target in pairwise(way)]
            places = "".join(f"\n  {it.path.relative_to(ROOT)}:{it.line} imports {it.target}" for it in steps)
            found.setdefault(frozenset(way), " -> ".join(way) + places)
    return sorted(found.values(), key=len)


def test_no_circle_of_modules() -> None:
    found = circles(IMPORTS)
    assert not found, f"{NO_CIRCLES}:\n" + "\n".join(found)


# The rules themselves: what they refuse, and how they say it.


def reading(module: str, text: str) -> list[str]:
    return broken(own_imports(ROOT / module, text))


@pytest.mark.parametrize(
    ("module", "text", "said"),
    [
        ("transports/can/bus.py", "from ...flashers import image", "flashers.image: imports point one way"),
        ("flashers/dfu/link.py", "from ...enumerators.bench import Bench", "enumerators.bench: imports point one way"),
        ("updates/engine/run.py", "def f():\n    from ...tools import output", "tools.output: imports point one way"),
        (
            "flashers/smp/flasher.py",
            "from ..plan import make",
            "flashers.plan: a protocol's folder never imports the engine",
        ),
        (
            "flashers/smp/flasher.py",
            "from .. import events as ev",
            "flashers.events: a protocol's folder never imports the",
        ),
        (
            "flashers/smp/udp.py",
            "from ..uds import client",
            "flashers.uds.client: a protocol's folder never imports anot",
        ),
        (
            "flashers/smp/udp.py",
            "from ..formats import ihex",
            "flashers.formats.ihex: of flashers, a protocol's folder imports",
        ),
        (
            "flashers/programmer.py",
            "from .uds.flasher import UdsFlasher",
            "flashers.uds.flasher: the engine, and what all",
        ),
        ("flashers/serial/boot_pins.py", "from ..avr import entry", "flashers.avr.entry: the engine, and what all"),
        (
            "flashers/avr/stk500v1_codec.py",
            "from ...transports import clock",
            "transports.clock: of proxyflash, a codec",
        ),
        (
            "enumerators/probers/serial.py",
            "from ...flashers.smp.profile import Profile",
            "flashers.smp.profile: enumerators, upd",
        ),
        (
            "updates/handlers/flash.py",
            "from ...flashers.dfu import entry",
            "flashers.dfu.entry: enumerators, updates, testing and the suite",
        ),
        (
            "hil_tests/parts.py",
            "from ..flashers.dfu import entry",
            "flashers.dfu.entry: enumerators, updates, testing and the suit",
        ),
        (
            "emulators/uds/ecu.py",
            "from ...flashers.uds.codec import Sid",
            "flashers.uds.codec: emulators import transpo",
        ),
        (
            "emulators/uds/ecu.py",
            "import proxyflash.flashers.image",
            "flashers.image: emulators import transports only",
        ),
        (
            "enumerators/bench.py",
            "from ..emulators import registry",
            "one way: tools -> updates -> enumerators -> flashers -> tra",
        ),
        (
            "enumerators/bench.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import can\nfrom ..emulators import registry",
            "emulators.registry: imports point one way: tools -> updates -> enumerators -> flashers -> transports (here only",
        ),
    ],
)
def test_what_breaks_a_rule_is_said_in_words(module: str, text: str, said: str) -> None:
    [found] = reading(module, text)
    assert found.startswith(f"{module} imports ")
    assert said in found


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (
            "flashers/smp/flasher.py",
            "from ..serial import boot_pins\nfrom ..formats import mcuboot\nfrom . import codec",
        ),
        ("flashers/avr/stk500v1_codec.py", "import struct\nfrom ..errors import NoResponse"),
        ("hil_tests/real/demo.py", "from ...flashers.dfu import entry"),
        ("enumerators/bench.py", "def f():\n    from ..emulators import registry"),
        ("enumerators/bench.py", "import typing\nif typing.TYPE_CHECKING:\n    from ..emulators import registry"),
    ],
)
def test_what_keeps_the_rules_is_let_through(module: str, text: str) -> None:
    assert reading(module, text) == []


def test_a_circle_is_said_in_words() -> None:
    """One of three modules, of which one import is within a function and one for a type checker."""
    texts = {
        "transports/can/bus.py": "from ..usb import bus",
        "transports/usb/bus.py": "def f():\n    from ..serial.port import SerialPort",
        "transports/serial/port.py": "if TYPE_CHECKING:\n    from proxyflash.transports.can.bus import CanBus",
        "transports/udp.py": "from .can import bus",
    }
    [found] = circles(it for module, text in texts.items() for it in own_imports(ROOT / module, text))
    assert (
        found.splitlines()[0]
        == "transports.can.bus -> transports.usb.bus -> transports.serial.port -> transports.can.bus"
    )
    assert "transports/usb/bus.py:2 imports transports.serial.port" in found


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
            assert raised[code].exit_status in map(int, statuses.split(", ")), code


@pytest.mark.parametrize("group", plugins.GROUPS)
def test_every_built_in_plugin_loads(group: str) -> None:
    own = [plugin for plugin in plugins.survey() if plugin.group == group and plugin.package == "proxyflash"]
    assert own
    assert [plugin for plugin in own if plugin.fault] == []


CLOCKS = ("transports/clock.py", "transports/simulated_clock.py")
"""The only modules that read time, sleep, and make threads and what they wait with."""
OF_THE_CLOCK = ("time", "threading", "queue", "sched", "concurrent")
REAL = {
    "hil_tests/signal_guard.py": "signals belong to the process's own main thread",
    "hil_tests/simulated_time.py": "warns of tests that use real time",
    "tools/commands/session.py": "within a signal nothing but a real thread, which uses no clock, may print",
    "transports/recording/records.py": "formats times that were recorded",
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


def may_be(raised: ast.expr) -> set[str]:
    """The names whose value a raised expression may have."""
    match raised:
        case ast.Name(id=name):
            return {name}
        case ast.IfExp(body=body, orelse=other):
            return may_be(body) | may_be(other)
        case ast.BoolOp(values=values):
            return set().union(*map(may_be, values))
    return set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_error_is_raised_from_itself(path: Path) -> None:
    """Whoever follows its causes would never end."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and node.exc is not None and isinstance(node.cause, ast.Name):
            assert node.cause.id not in may_be(node.exc), f"line {node.lineno}: {ast.unparse(node)}"


def test_exceptions_from_the_clock_exist() -> None:
    assert set(REAL) <= {str(path.relative_to(ROOT)) for path in MODULES}
