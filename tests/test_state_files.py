"""Files of the state folder are opened by `transports/private_files.py` alone."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("updates", "enumerators", "emulators")
PATH_METHODS = {
    *("write_text", "write_bytes", "read_text", "read_bytes", "mkdir", "touch", "symlink_to", "hardlink_to", "chmod"),
    *("rename", "unlink", "rmdir"),
}
"""Methods of a path that only a path has."""
OS_CALLS = {"open", "mkdir", "makedirs", "mkfifo", "symlink", "link", "rename", "replace", "unlink", "remove", "chmod"}
SHUTIL_CALLS = {"copy", "copy2", "copyfile", "copytree", "move"}
ELSEWHERE = {
    # What the user names, or the system has: none of it lies in the state folder.
    ("enumerators/benchfile/adding.py", "os.open"): "the folder of a bench file that the user names, to lock it",
    ("emulators/usb/vhci.py", "read_text"): "sysfs",
    ("emulators/usb/vhci.py", "write_text"): "sysfs",
    ("emulators/can/server.py", "unlink"): "a socket, when its server ends",
    ("emulators/control.py", "unlink"): "a FIFO, when its reader ends",
    ("emulators/flash.py", "unlink"): "removes a memory that found no room",
    ("emulators/serial/bench_wire.py", "symlink_to"): "a name for a pseudo-terminal, in the folder of emulate",
    ("emulators/serial/bench_wire.py", "unlink"): "the same name, when its server ends",
    ("updates/handlers/app_folder.py", "os.mkdir"): "a folder of the application, by the descriptor of the one above",
    ("updates/engine/disk.py", "open"): "what is copied into the state folder",
    ("updates/engine/disk.py", "os.open"): "a folder, to bring it onto the disk",
    ("emulators/usb/usbip.py", "unlink"): "takes back a USB request: no file",
    ("updates/manifests/resolved_update.py", "read_bytes"): "a manifest that the user names",
    ("updates/manifests/files.py", "os.open"): "a payload, where the update came in",
    ("updates/handlers/partition.py", "os.open"): "a slot, and a staged file for reading",
    ("updates/engine/restarting.py", "read_text"): "procfs",
    ("updates/handlers/script.py", "unlink"): "the result of a script's last run",
    ("updates/engine/store.py", "unlink"): "removes a staged file",
    ("updates/handlers/swupdate.py", "open"): "the system's version",
}


def calls(path: Path) -> Iterator[str]:
    """What a module calls to open, make or change files, by name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name) and function.id == "open":
            yield "open"
        elif isinstance(function, ast.Attribute):
            owner = function.value.id if isinstance(function.value, ast.Name) else ""
            if (owner == "os" and function.attr in OS_CALLS) or (owner == "shutil" and function.attr in SHUTIL_CALLS):
                yield f"{owner}.{function.attr}"
            elif owner not in ("os", "shutil", "private_files") and function.attr in PATH_METHODS:
                # Data of the package itself is read through importlib.resources.
                if "files(" not in ast.unparse(function.value):
                    yield function.attr
            elif function.attr == "open" and _is_mode(node):
                yield "open"


def _is_mode(call: ast.Call) -> bool:
    """Whether the first argument says how a file is opened: others open buses."""
    first = call.args[0] if call.args else None
    return isinstance(first, ast.Constant) and isinstance(first.value, str) and set(first.value) <= set("rwxabt+")


MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_else_opens_files_of_the_state_folder(path: Path) -> None:
    """A new call goes by private_files, or is listed with what it opens elsewhere."""
    module = str(path.relative_to(ROOT))
    assert {name for name in calls(path) if (module, name) not in ELSEWHERE} == set()


def test_the_list_has_nothing_that_is_gone() -> None:
    found = Counter((str(path.relative_to(ROOT)), name) for path in MODULES for name in calls(path))
    assert [place for place in ELSEWHERE if place not in found] == []


def test_a_call_is_seen(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(
        "path.write_text('')\nos.open(path, 0)\nshutil.copyfile(a, b)\npath.open('rb')\nopen(path)\n"
        "Bench.open(path)\nos.close(1)\nprivate_files.read(path)\n"
    )
    assert sorted(calls(tmp_path / "module.py")) == ["open", "open", "os.open", "shutil.copyfile", "write_text"]
