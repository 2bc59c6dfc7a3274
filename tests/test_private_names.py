"""The names that libraries call private and that proxyflash uses all the same: each is there, and its library is bounded.

A release of a library may drop such a name without a word. Then a test here fails and says which name of which library.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import can
import click
import isotp
import pytest
import serial
import usb.core
from _pytest.fixtures import FixtureRequest
from packaging.requirements import Requirement
from xdist.scheduler.loadscope import LoadScopeScheduling

from .test_dependencies import ROOT, SETUP, installed_files, listed


@dataclass(frozen=True)
class Private:
    """`owner`: the class that has the name, as an attribute or as a name that its own code uses. `users`: our modules."""

    library: str
    owner: Any
    name: str
    users: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.library}: {self.owner.__name__}.{self.name}"


BUSES = ("emulators/can/python_can.py", "emulators/replay/can.py")
LINES = ("emulators/serial/protocol_emulated.py", "emulators/replay/protocol_replay.py")
NAMES = (
    Private("python-can", can.BusABC, "_can_protocol", BUSES),
    Private("python-can", can.BusABC, "_is_shutdown", BUSES),
    Private("python-can", can.BusABC, "_matches_filters", ("emulators/can/clocked.py",)),
    Private("python-can", can.BusABC, "_recv_internal", ("emulators/can/clocked.py", *BUSES)),
    Private("pyserial", serial.SerialBase, "_reconfigure_port", LINES),
    Private("pyserial", serial.SerialBase, "_timeout", ("transports/serial/port.py",)),
    Private("pyserial", serial.SerialBase, "_update_break_state", LINES),
    Private("pyserial", serial.SerialBase, "_update_dtr_state", LINES),
    Private("pyserial", serial.SerialBase, "_update_rts_state", LINES),
    Private("pyserial", serial.SerialBase, "_write_timeout", ("transports/serial/port.py",)),
    Private("pyusb", usb.core.Device, "_ctx", ("transports/usb/strings.py",)),
    Private("pytest", pytest.Config, "_tmp_path_factory", ("hil_tests/bench_run.py",)),
    Private("pytest", FixtureRequest, "_arg2fixturedefs", ("hil_tests/plugin.py",)),
    Private("pytest-xdist", LoadScopeScheduling, "_split_scope", ("hil_tests/xdist_scheduler.py",)),
    # Those that tests alone use.
    Private("click", click.Context, "_protected_args", ("tests/test_docs.py",)),
    Private("pyusb", usb.core.Device, "_ctx", ("tests/emulators/test_usb_backend.py",)),
)
UNDERSCORED = re.compile(r"_(?!_)\w+")


def broken(one: Private, how: str) -> str:
    return (
        f"{one.library} {how} the private name {one.owner.__name__}.{one.name}, which {', '.join(one.users)} "
        f"rely on: adapt them, or bound {one.library} in setup.cfg below this release"
    )


@pytest.mark.parametrize("one", NAMES, ids=str)
def test_a_private_name_is_there(one: Private) -> None:
    if not hasattr(one.owner, one.name):
        # Made in a method: the class's own code has it, or what sets it up for pytest.
        code = inspect.getsource(importlib.import_module(_definer(one.owner)))
        assert re.search(rf"\.{one.name}\b|[\"']{one.name}[\"']", code), broken(one, "no longer has")


def _definer(owner: Any) -> str:
    # pytest's Config gets its folder from the module of the folders.
    return "_pytest.tmpdir" if owner is pytest.Config else str(owner.__module__)


def test_pyusb_opens_a_device_through_its_context() -> None:
    [one, _] = [one for one in NAMES if one.library == "pyusb"]
    context = importlib.import_module("usb.core")._ResourceManager
    assert callable(getattr(context, "managed_open", None)), broken(one, "has no managed_open behind")


@pytest.mark.parametrize("name", ["_timeout", "_write_timeout"])
def test_the_handlers_of_pyserial_take_their_time_limits_from_where_they_are_set(name: str) -> None:
    one = next(one for one in NAMES if one.name == name)
    port = serial.serial_for_url("loop://", timeout=0)
    with port:
        setattr(port, name, 0.125)
        assert getattr(port, name.removeprefix("_")) == 0.125, broken(one, "no longer takes its limit from")


def test_can_isotp_has_the_timers_that_are_replaced() -> None:
    """They are not called private; nothing promises their names either."""
    address = isotp.Address(isotp.AddressingMode.Normal_11bits, txid=1, rxid=2)
    logic = isotp.TransportLayerLogic(rxfn=lambda _: None, txfn=lambda _: None, address=address)
    for name in ("timer_tx_stmin", "timer_rx_fc", "timer_rx_cf"):
        assert isinstance(getattr(logic, name, None), isotp.tools.Timer), (
            f"can-isotp no longer has the timer TransportLayerLogic.{name}, which transports/isotp/opening.py replaces"
        )


@pytest.mark.parametrize("library", sorted({one.library for one in NAMES} | {"can-isotp"}))
def test_a_library_whose_private_names_are_used_has_an_upper_bound(library: str) -> None:
    required = listed(SETUP["options"]["install_requires"]) + listed(SETUP["options.extras_require"]["dev"])
    [found] = [one for one in required if one.name == library]
    assert isinstance(found, Requirement)
    assert any(one.operator == "<" for one in found.specifier), f"{found} has no upper bound in setup.cfg"


def test_no_other_private_name_of_a_library_is_used() -> None:
    """Whatever looks private and isn't made by the module that uses it."""
    found: set[tuple[str, str]] = set()
    for path in installed_files():
        user = str(path.relative_to(ROOT))
        tree = ast.parse(path.read_bytes())
        found |= {(user, name) for name in set(_reached(tree)) - set(_made(tree))}
        if path.stem != "__main__":
            found |= {(user, name) for name in _inherited(tree, _module(path))}
    found -= {(user, "_getframe") for user, _ in found} | OF_NO_LIBRARY
    told = {(user, one.name) for one in NAMES for user in one.users if not user.startswith("tests/")}
    assert found == told


OF_NO_LIBRARY = {
    ("transports/simulated_clock.py", "_current"),
    ("transports/simulated_clock.py", "_signal"),
    ("flashers/keys/process.py", "_exit"),
}
"""By module: a name of `transports/clock.py`, and one of Python's own, for which there is a substitute."""


def _made(tree: ast.Module) -> Iterator[str]:
    """The names that look private and that a module gives to something of its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from filter(UNDERSCORED.fullmatch, [node.name])
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                yield from filter(UNDERSCORED.fullmatch, [node.attr])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield from filter(UNDERSCORED.fullmatch, [node.id])


def _reached(tree: ast.Module) -> Iterator[str]:
    """The names that look private and that are asked of something else than `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and UNDERSCORED.fullmatch(node.attr):
            value = node.value
            of_super = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "super"
            if not of_super and not (isinstance(value, ast.Name) and value.id in ("self", "cls")):
                yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr"):
            yield from filter(UNDERSCORED.fullmatch, [str(ast.literal_eval(one)) for one in _texts(node.args[1:2])])


def _texts(nodes: list[ast.expr]) -> Iterator[ast.expr]:
    return (node for node in nodes if isinstance(node, ast.Constant))


def _inherited(tree: ast.Module, module: ModuleType) -> Iterator[str]:
    """The names that look private and that a class uses or overrides of a base from a library."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        used = set(_named(node))
        for base in getattr(module, node.name).__mro__[1:]:
            if base.__module__.partition(".")[0] in ("can", "serial", "usb", "isotp", "xdist", "_pytest"):
                code = inspect.getsource(base)
                yield from (name for name in used if hasattr(base, name) or re.search(rf"\bself\.{name}\b", code))


def _named(node: ast.ClassDef) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef):
            yield from filter(UNDERSCORED.fullmatch, [inner.name])
        elif isinstance(inner, ast.Attribute):
            yield from filter(UNDERSCORED.fullmatch, [inner.attr])


def _module(path: Path) -> ModuleType:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return importlib.import_module(".".join(("proxyflash", *parts)).removesuffix(".__init__"))
