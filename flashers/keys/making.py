"""Keys for the seeds of a part: made by a function of Python, or by a maker's shared library.

The rule: what makes a key is somebody else's code. A function of Python may raise anything. A library may also crash,
hang, print and end its process: it is called in a process of its own, with a time limit, and its file is looked at before
anything is sent to the part.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

from ...transports import clock, private_files
from ...transports.errors import ProxyflashError
from ...transports.outside import Outside, key_question
from ..errors import KeyLibraryFailed, ProfileWrong
from .settings import KeyLibrary, KeySource

HEAD = 20
"""Bytes of an ELF file up to its machine."""
LOADER = Path(__file__).with_name("process.py")
LOAD_SECONDS = 10.0
"""How long a library may take to be loaded."""
LONGEST_KEY = 255
MOST_SOURCE = 1 << 20
"""Bytes of a file with a key function."""
MOST_SAID = 300
_MACHINES = {3: "32-bit x86", 40: "32-bit ARM", 62: "64-bit x86", 183: "64-bit ARM", 243: "RISC-V"}
"""e_machine of the System V ABI's ELF header."""


class KeyFunction(Protocol):
    """Makes the key for a seed."""

    def __call__(self, seed: bytes, secret: bytes, level: int) -> bytes: ...


def key_file(source: KeySource) -> Path | None:
    """The file of the key library, or of the key function beside the bench file; None: neither."""
    if source.library is not None:
        return Path(source.library.file)
    beside = _beside(source.key, source.folder)
    return beside if beside is not None and os.path.lexists(beside) else None


def key_for(make: KeyFunction, source: KeySource, seed: bytes, secret: bytes, level: int) -> bytes:
    """The key for a seed. Raises ProfileWrong where a function of somebody else's fails, and what a library raises."""
    try:
        made = make(seed, secret, level)
    except ProxyflashError:
        raise
    except (Exception, SystemExit) as error:  # Somebody else's function may raise anything.
        raise ProfileWrong(f"the key function {source.key!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, bytes | bytearray):
        raise ProfileWrong(f"the key function {source.key!r} returned no bytes, but {type(made).__name__}")
    return bytes(made)


def recorded_keys(security: KeySource, outside: Outside | None) -> KeyFunction | None:
    """What makes the keys, which are recorded; under replay a function that gives the recorded keys.

    Under replay nothing is imported and no secret is needed. Raises ProfileWrong when it can't be imported or loaded.
    """
    if outside is None or security.key == "none":
        return _maker(security)
    make = None if outside.replayed else _maker(security)

    def key(seed: bytes, secret: bytes, level: int) -> bytes:
        question = key_question(level, seed)
        if make is None:
            return bytes.fromhex(outside.ask(question, str))
        made = make(seed, secret, level)
        if isinstance(made, bytes | bytearray):
            outside.ask(question, bytes(made).hex)
        return made

    return key


def _maker(security: KeySource) -> KeyFunction | None:
    if security.library is not None:
        return library_keys(security.library)
    return key_function(security.key, security.folder)


def key_function(name: str, folder: str = "") -> KeyFunction | None:
    """The key function of that name, from a file in this folder or from an installed module; None for "none".

    Raises ProfileWrong when it can't be imported, or when another user could have written the file.
    """
    if name == "none":
        return None
    if name == "xor":
        return xor_key
    module, _, function = name.partition(":")
    beside = _beside(name, folder)
    is_beside = beside is not None and os.path.lexists(beside)
    source = _source(name, beside) if beside is not None and is_beside else b""
    try:
        found: Any = getattr(_run(source, str(beside)) if is_beside else import_module(module), function)
    except (Exception, SystemExit) as error:  # A module of somebody else's may raise anything while it is imported.
        cause = f"the key function {name!r} can't be imported: {type(error).__name__}: {error}"
        if is_beside:
            raise ProfileWrong(cause, remedy=f"Correct {beside}, or install the module that it imports.") from error
        places = [*([str(beside)] if beside else []), *(place or "." for place in sys.path)]
        raise ProfileWrong(
            f"{cause}; looked for it in {', '.join(places)}", remedy="Put its file there, or install its module."
        ) from error
    if not callable(found):
        raise ProfileWrong(f"the key function {name!r} is not a function")
    return cast(KeyFunction, found)


def _beside(name: str, folder: str) -> Path | None:
    """The file that a key function would lie in; None: it lies in no file of the bench's."""
    module, colon, _ = name.partition(":")
    return Path(folder, *module.split(".")).with_suffix(".py") if folder and colon else None


def _source(name: str, path: Path) -> bytes:
    try:
        source = private_files.code(path, MOST_SOURCE)
    except OSError as error:
        raise ProfileWrong(
            f"the key function {name!r} is not taken from {path}: {error.strerror}",
            remedy="Look at what the file does. If it is right, make it yours alone: chown, chmod go-w.",
        ) from error
    if len(source) > MOST_SOURCE:
        raise ProfileWrong(f"the key function {name!r} is not taken from {path}: more than {MOST_SOURCE:,} bytes")
    return source


def _run(source: bytes, path: str) -> ModuleType:
    """The module that a file is, under a name that no installed module has. Raises anything."""
    module = ModuleType(f"proxyflash keys {path}")
    module.__file__ = path
    sys.modules[module.__name__] = module
    exec(compile(source, path, "exec"), module.__dict__)
    return module


def xor_key(seed: bytes, secret: bytes, level: int) -> bytes:
    return bytes(byte ^ secret[index % len(secret)] for index, byte in enumerate(seed))


def library_keys(library: KeyLibrary) -> KeyFunction:
    """The keys of a shared library. Raises ProfileWrong when this interpreter could not load the file, or the function
    is missing.
    """
    check_class(Path(library.file))
    _call(library, {"look": True}, LOAD_SECONDS)

    def key(seed: bytes, secret: bytes, level: int) -> bytes:
        asked = {"seed": seed.hex(), "level": level if library.level is None else library.level}
        return bytes.fromhex(_call(library, asked, library.seconds)["key"])[:LONGEST_KEY]

    return key


def check_class(path: Path, interpreter: str = sys.executable) -> None:
    """Raises ProfileWrong unless the file is a shared library for the machine of this interpreter."""
    try:
        head = private_files.code(path, HEAD - 1)
    except PermissionError as error:
        raise ProfileWrong(
            f"the key library {path} is not taken: {error.strerror}",
            remedy="Look at what the file does. If it is right, make it yours alone: chown, chmod go-w.",
        ) from error
    except (OSError, ValueError) as error:
        raise ProfileWrong(
            f"the key library {path} can't be read: {getattr(error, 'strerror', error)}",
            remedy="Correct security.library.file in the profile; it starts at the bench file's folder.",
        ) from error
    remedy = f"Ask its maker for one for Linux on {_machine(interpreter)}, or write a Python function: security.key."
    if head[:2] == b"MZ":
        raise ProfileWrong(f"the key library {path} is a Windows DLL, which can't be loaded here", remedy=remedy)
    found = _class(head)
    if found is None:
        raise ProfileWrong(f"{path} is not a shared library", remedy="Correct security.library.file in the profile.")
    with Path(interpreter).open("rb") as stream:
        own = _class(stream.read(HEAD))
    if found != own:
        raise ProfileWrong(f"the key library {path} is for {_name(found)}, and this Python is not", remedy=remedy)


def _machine(interpreter: str) -> str:
    with Path(interpreter).open("rb") as stream:
        found = _class(stream.read(HEAD))
    return "this machine" if found is None else _name(found)


def _class(head: bytes) -> tuple[int, int, int] | None:
    """Class, byte order and machine in an ELF header; None for another file, or an ELF file that can't be loaded."""
    if len(head) < HEAD or head[:4] != b"\x7fELF" or head[5] not in (1, 2):
        return None
    machine = struct.unpack("<H" if head[5] == 1 else ">H", head[18:20])[0]
    return head[4], head[5], machine


def _name(found: tuple[int, int, int]) -> str:
    bits, _, machine = found
    return _MACHINES.get(machine, f"{bits * 32} bits, machine {machine}")


def _call(library: KeyLibrary, asked: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """What the library's process answers. Raises KeyLibraryFailed; ProfileWrong where it can't be loaded."""
    what = f"the key library {library.file}"
    clock.program(what)
    request = {"file": library.file, "call": library.call, "variant": library.variant, "options": library.options}
    command = [sys.executable, "-I", str(LOADER)]
    try:
        ended = subprocess.run(
            command, input=json.dumps(request | dict(asked)), capture_output=True, text=True, errors="replace",
            timeout=seconds, start_new_session=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise KeyLibraryFailed(
            f"{what} did not return from {library.call} within {seconds:g} s",
            remedy="Raise security.library.seconds in the profile if it needs longer.",
        ) from error
    except OSError as error:
        raise KeyLibraryFailed(f"{what} can't be called: {error.strerror}") from error
    if ended.returncode < 0:
        raise KeyLibraryFailed(f"{what} crashed in {library.call} ({_signal(-ended.returncode)})")
    try:
        answer = json.loads(ended.stdout)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise KeyLibraryFailed(f"{what} ended its process in {library.call}, with status {ended.returncode}")
    if (wrong := answer.get("load")) is not None:
        raise ProfileWrong(
            f"{what} can't be loaded: {str(wrong)[:MOST_SAID]}", remedy="Do its own libraries lie there?"
        )
    if (wrong := answer.get("lacks")) is not None:
        raise ProfileWrong(
            f"{what} has no function {wrong}",
            remedy="Set security.library.call in the profile to the function that it has.",
        )
    if (wrong := answer.get("refused")) is not None:
        raise KeyLibraryFailed(f"{library.call} of {what} returned {str(wrong)[:MOST_SAID]}")
    return answer


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
