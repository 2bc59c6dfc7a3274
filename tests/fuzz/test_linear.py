"""Twice the input, twice the work: counted in lines of Python that run and functions that are called, not in time."""

from __future__ import annotations

import json
import struct
import sys
import tomllib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from types import FrameType
from typing import Any

import pytest
from proxyflash.enumerators.benchfile.toml_positions import key_lines
from proxyflash.flashers.avr import stk500v2_codec
from proxyflash.flashers.formats import dfu, elf, ihex, srec
from proxyflash.flashers.smp import codec as smp_codec
from proxyflash.transports import json_text
from proxyflash.transports.errors import ProxyflashError

from .targets import _with_suffix

MOST = 2.2
"""Times as much work for twice as much input: sorting has its logarithm."""


def work(read: Callable[[Any], object], data: Any) -> int:
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with suppress(ProxyflashError, ValueError):
            read(data)
    finally:
        sys.settrace(before)
    return count


def hex_record(address: int) -> bytes:
    body = bytes([1, address >> 8, address & 0xFF, 0, 0x55])
    return b":" + (body + bytes([-sum(body) & 0xFF])).hex().encode() + b"\n"


def s_record(address: int) -> bytes:
    body = bytes([5]) + address.to_bytes(3, "big") + b"\x55"
    return b"S2" + (body + bytes([~sum(body) & 0xFF])).hex().encode() + b"\n"


def dfuse(count: int) -> bytes:
    elements = b"".join(dfu.ELEMENT.pack(8 * (count - number), 4) + b"abcd" for number in range(count))
    target = dfu.TARGET.pack(dfu.TARGET_SIGNATURE, 0, 0, b"", len(elements), count) + elements
    return _with_suffix(dfu.PREFIX.pack(dfu.PREFIX_SIGNATURE, 1, dfu.PREFIX.size + len(target), 1) + target)


def elf_of(count: int) -> bytes:
    """As many segments as sections, each section in all of the segments."""
    ident = bytes.fromhex("7f454c4601010100") + bytes(8)
    at = 52 + 72 * count
    fields = [2, 40, 1, 0, 52, 52 + 32 * count, 0, 52, 32, count, 40, count, 0]
    widths = [2, 2, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2]
    head = b"".join(value.to_bytes(width, "little") for value, width in zip(fields, widths, strict=True))
    programs = struct.pack("<8I", 1, at, 0, 0, 16, 16, 5, 4) * count
    sections = struct.pack("<10I", 0, 1, 2, 0, at, 16, 0, 0, 0, 0) * count
    return ident + head + programs + sections + bytes(16)


CASES: dict[str, tuple[Callable[[Any], object], Callable[[int], Any]]] = {
    "Intel HEX, each record a segment": (
        lambda data: ihex.read(BytesIO(data), ""),
        lambda count: b"".join(hex_record(2 * (count - number)) for number in range(count)) + b":00000001FF\n",
    ),
    "S-record, each record a segment": (
        lambda data: srec.read(BytesIO(data), ""),
        lambda count: b"".join(s_record(2 * (count - number)) for number in range(count)) + b"S9030000FC\n",
    ),
    "DfuSe, each element a segment": (lambda data: dfu.read_dfuse(BytesIO(data), ""), dfuse),
    "ELF, each section in each segment": (lambda data: elf.read(BytesIO(data), ""), elf_of),
    "JSON, the last field given twice": (
        lambda text: json_text.parse(text, most=1 << 20),
        lambda count: json.dumps(dict.fromkeys(map(str, range(count))))[:-1] + ', "0": 1}',
    ),
    "CBOR, many items": (
        lambda data: smp_codec.decode(smp_codec.HEADER.pack(1, 0, len(data), 0, 0, 0) + data),
        lambda count: b"\xbf\x61a\x9f" + b"\x01" * count + b"\xff\xff",
    ),
    "SMP, bytes that are no packet": (lambda data: smp_codec.RawFraming().feed(data), lambda count: b"\xff" * count),
    "SMP, lines that are none": (lambda data: smp_codec.ConsoleFraming().feed(data), lambda count: b"\x06\t\n" * count),
    "STK500v2, beginnings of messages": (
        lambda data: stk500v2_codec.take(bytearray(data), 0),
        lambda count: b"\x1b\0\0\2\x0e" * count,
    ),
    "a bench file of many keys": (
        key_lines,
        lambda count: "".join(f"[a{number}]\nx = [1, {{y = 2}}]\n" for number in range(count)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_twice_the_input_is_twice_the_work(name: str) -> None:
    read, make = CASES[name]
    once, twice = work(read, make(400)), work(read, make(800))
    assert once > 0
    assert twice <= MOST * once + 200


def test_the_bench_file_of_that_test_is_toml() -> None:
    assert len(tomllib.loads(CASES["a bench file of many keys"][1](3))) == 3
