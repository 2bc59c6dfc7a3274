"""There is one way to a person: what comes from elsewhere passes `transports.plain` before it is shown or kept as text.

Each place that writes to a stream, a test report or a log without that is named here, with the reason why it may.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from .sources import MODULES, ROOT

ALLOWED = {
    "tools/output.py": "neutralises",
    "tools/bars.py": "neutralises, as rich's Text",
    "tools/monitor_table.py": "neutralises, as rich's Text",
    "tools/cli.py": "prints the constant help",
    "tools/commands/__init__.py": "sets how the streams encode",
    "tools/commands/vm.py": "hands on the output of the user's own command, byte for byte",
    "hil_tests/plugin.py": "prints what summary.py has neutralised, and what make_safe has",
    "hil_tests/bench_run.py": "neutralises",
    "hil_tests/verdicts.py": "neutralises",
    "hil_tests/conftest.py": "neutralises",
    "hil_tests/simulated_time.py": "warns of a test by pytest's own name of it, which pytest has made ASCII",
    "testing/thinning.py": "keeps a number",
    "hil_tests/test_soak.py": "keeps numbers, as JSON",
    "hil_tests/kernel_bench.py": "neutralises its errors, and hands on pytest's own output",
    "hil_tests/kernel/usb_lab.py": "has a forked command write into files",
    "hil_tests/real/zephyr_bench.py": "neutralises",
    "hil_tests/real/smpclient_peer.py": "prints JSON for the test that has started it",
}
WRITERS = {
    "secho", "echo_via_pager", "write_line", "write_sep", "print_exc", "print_exception", "print_stack",
    "print_last", "record_property", "record_testsuite_property", "user_properties", "sections", "terminalreporter",
    "lastResort", "basicConfig", "StreamHandler", "FileHandler", "warn", "showwarning",
}  # fmt: skip
"""Names by which a text gets past Output."""
STREAMS = {"stdin", "stdout", "stderr", "__stdout__", "__stderr__"}
ASKING = {"is_terminal", "takes_escapes"}
"""Functions that look at a stream and write nothing to it."""


def ways_out(tree: ast.AST) -> Iterator[str]:
    """What in a module writes to a person without `transports.plain`, with its line."""
    looked_at = {
        id(argument)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ASKING
        for argument in node.args
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="print" | "input" as name)):
                yield f"line {node.lineno}: {name}()"
            case ast.Attribute(value=ast.Name(id="sys"), attr=name) if name in STREAMS and id(node) not in looked_at:
                if name != "stdin":
                    yield f"line {node.lineno}: sys.{name}"
            case ast.ImportFrom(module="sys", names=names) if STREAMS & {alias.name for alias in names}:
                yield f"line {node.lineno}: a stream of sys"
            case ast.ImportFrom(module=str(name)) if name.split(".")[0] == "rich":
                yield f"line {node.lineno}: {name}"
            case ast.Attribute(value=ast.Name(id="click"), attr="echo" | "confirm" | "prompt" as name):
                yield f"line {node.lineno}: click.{name}"
            case ast.ImportFrom(module="click", names=names) if "echo" in {alias.name for alias in names}:
                yield f"line {node.lineno}: click.echo"
            case ast.Attribute(attr=name) if name in WRITERS:
                yield f"line {node.lineno}: .{name}"
            case ast.Call(func=ast.Name(id=name)) if name in WRITERS:
                yield f"line {node.lineno}: {name}()"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr="write"), args=[ast.Constant(), *_]):
                yield f"line {node.lineno}: os.write to a number"
            case ast.Name(id=name) if name == "terminalreporter":
                yield f"line {node.lineno}: {name}"
            case _:
                pass


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_gets_past_the_one_way_out(path: Path) -> None:
    found = list(ways_out(ast.parse(path.read_text(encoding="utf-8"))))
    if str(path.relative_to(ROOT)) in ALLOWED:
        assert found, "it needs no leave any more"
    else:
        assert not found


@pytest.mark.parametrize(
    "code",
    [
        "print('x')",
        "import click\nclick.echo('x')",
        "import sys\nsys.stdout.write('x')",
        "import sys\nout = sys.stderr",
        "from sys import stderr",
        "import traceback\ntraceback.print_exc()",
        "import warnings\nwarnings.warn('x')",
        "import os\nos.write(2, b'x')",
        "from rich.console import Console\nConsole()",
        "def summary(terminalreporter):\n    terminalreporter.line('x')",
        "item.user_properties.append(1)",
    ],
)
def test_a_way_past_it_is_found(code: str) -> None:
    assert list(ways_out(ast.parse(code)))


def test_output_s_streams_take_plain_lines_alone() -> None:
    """In the one module that writes, one function has the streams, and it neutralises each line."""
    tree = ast.parse((ROOT / "tools" / "output.py").read_text(encoding="utf-8"))
    writing = {
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id == "print")
            or (isinstance(node.func, ast.Attribute) and node.func.attr in ("write", "writelines"))
        )
    }
    assert writing == {"_print", "_logged"}
