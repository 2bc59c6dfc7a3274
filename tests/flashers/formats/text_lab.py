"""What tests of the text formats have in common: files of lines, and what each of them must say of a bad one."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol

import bincopy
import pytest
from proxyflash.flashers.errors import ImageEmpty, ImageError, ImageFormat
from proxyflash.flashers.formats import load
from proxyflash.flashers.image import FirmwareImage


class Module(Protocol):
    def read(self, stream: BinaryIO, source: str) -> FirmwareImage: ...
    def write(self, image: FirmwareImage, stream: BinaryIO) -> None: ...


@dataclass(frozen=True)
class TextFormat:
    """`module`: the format's; `file`: the name of its files."""

    module: Module
    file: str

    def read(self, *lines: str) -> FirmwareImage:
        return self.read_bytes("\n".join(lines).encode() + b"\n")

    def read_bytes(self, data: bytes) -> FirmwareImage:
        return self.module.read(BytesIO(data), self.file)

    def written(self, image: FirmwareImage) -> bytes:
        stream = BytesIO()
        self.module.write(image, stream)
        return stream.getvalue()

    def peak_while_reading(self, text: bytes) -> tuple[FirmwareImage, int]:
        """Also the most bytes that were allocated at a time."""
        stream = BytesIO(text)
        tracemalloc.start()
        try:
            image = self.module.read(stream, self.file)
            return image, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def refuses(self, lines: list[str], cause: str) -> None:
        with pytest.raises(ImageFormat) as raised:
            self.read(*lines)
        assert raised.value.cause.startswith(f"{self.file}: {cause}")
        assert (raised.value.code, raised.value.exit_status) == ("E-IMAGE-FORMAT", 12)

    def finds_no_data(self, text: bytes, folder: Path) -> None:
        (folder / self.file).write_bytes(text)
        with pytest.raises(ImageEmpty):
            load(folder / self.file)

    def reads_or_refuses(self, data: bytes) -> FirmwareImage | None:
        with suppress(ImageError):
            return self.read_bytes(data)
        return None


def contents(image: FirmwareImage | bincopy.BinFile) -> list[tuple[int, bytes]]:
    return [(segment.address, bytes(segment.data)) for segment in image.segments]


def in_bincopy(image: FirmwareImage) -> bincopy.BinFile:
    oracle = bincopy.BinFile()
    for segment in image.segments:
        oracle.add_binary(bytes(segment.data), segment.address)
    oracle.execution_start_address = image.entry
    return oracle
