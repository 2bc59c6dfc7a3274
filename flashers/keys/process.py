"""The process that a key library is called in: a request on its standard input, an answer on its standard output, in JSON.

Run by `keys` as a program, apart from all else, with nothing but Python's own library. Whatever the library prints goes
nowhere. Its functions are called as their headers declare them (GenerateKeyEx and GenerateKeyExOpt: Vector's VKeyGen;
XCP_ComputeKeyFromSeed: ASAM MCD-1 XCP, part 1, 8.2).
"""

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

LONGEST_KEY = 255
VKEY = {1: "BufferTooSmall", 2: "SecurityLevelInvalid", 3: "VariantInvalid", 4: "UnspecifiedError"}
XCP = {1: "privilege not available", 2: "seed length wrong", 3: "key length too small"}


def refused(code: int, names: dict[int, str]) -> dict[str, Any]:
    return {"refused": f"{code} ({names[code]})" if code in names else str(code)}


def called(function: Any, request: dict[str, Any]) -> dict[str, Any]:
    data = bytes.fromhex(request["seed"])
    seed = (ctypes.c_ubyte * max(len(data), 1)).from_buffer_copy(data or b"\0")
    key = (ctypes.c_ubyte * 4096)()  # Some write beyond what they are given.
    level, size = request["level"], ctypes.c_uint32(0)
    if request["call"] == "XCP_ComputeKeyFromSeed":
        width = ctypes.c_ubyte(LONGEST_KEY)
        function.restype = ctypes.c_uint32
        code = function(ctypes.c_ubyte(level), ctypes.c_ubyte(len(data)), seed, ctypes.byref(width), key)
        names, size = XCP, ctypes.c_uint32(width.value)
    else:
        texts = [request["variant"]] + ([request["options"]] if request["call"] == "GenerateKeyExOpt" else [])
        function.restype = ctypes.c_int
        code = function(
            seed, ctypes.c_uint32(len(data)), ctypes.c_uint32(level), *(ctypes.c_char_p(text.encode()) for text in texts),
            key, ctypes.c_uint32(LONGEST_KEY), ctypes.byref(size),
        )  # fmt: skip
        names = VKEY
    if code:
        return refused(code, names)
    if not 0 < size.value <= LONGEST_KEY:
        return {"refused": f"a key of {size.value} bytes"}
    return {"key": bytes(key[: size.value]).hex()}


def main() -> None:
    request = json.loads(sys.stdin.read())
    answers = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    answer: dict[str, Any] = {}
    try:
        library = ctypes.CDLL(str(Path(request["file"]).absolute()))
    except OSError as error:
        answer = {"load": str(error)}
    else:
        function = getattr(library, request["call"], None)
        if function is None:
            answer = {"lacks": request["call"]}
        elif "seed" in request:
            answer = called(function, request)
    os.write(answers, json.dumps(answer).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
