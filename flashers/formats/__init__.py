"""Firmware file formats: bytes of a file in, a `FirmwareImage` out, and back.

One module a format: `ihex`, `srec`, `elf`, `raw`, `dfu` (with ST's DfuSe), `mcuboot`, and those of other packages, by entry
points of the group `proxyflash.formats`. Each reads a stream and writes one, and knows nothing of paths. The rule: what a
file is, its content says; its ending is asked only where the content can't. A file that is not a program for a part (`foreign`)
is refused with the name of its kind.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ...transports import named_files, plugins
from ...transports.errors import PluginBroken
from ..errors import ImageEmpty, ImageFormat, ImageMissing, ImageNotWritten, Unsupported
from ..image import FirmwareImage
from . import avr_memories, foreign
from .format import Format
from .raw import RawBinary

LARGEST_FILE = 1 << 30
"""Bytes. No part behind these bootloaders has as much, and a disk image taken by mistake would fill the memory."""


def formats() -> list[type[Format]]:
    """In the order in which content is looked at. One whose package can't be loaded is left out."""
    found: list[type[Format]] = []
    for name in plugins.names(plugins.FORMATS):
        with suppress(PluginBroken):
            found.append(plugins.load(plugins.FORMATS, name))
    return sorted(found, key=lambda one: one.priority)


def load(
    path: Path | str, *, address: int | None = None, format: str | None = None, as_is: bool = False
) -> FirmwareImage:
    """Reads a firmware file of any known format.

    `address`: where a file without addresses goes (raw binary, DFU without DfuSe's); without it the image is
    relocatable, at 0. `format`: the name of a format, which is then not guessed. `as_is`: the part's bootloader takes a
    file whole and judges it itself, so that a file of no known format, and another bootloader's container, are its
    matter; archives and documents are refused all the same.

    Raises ImageMissing, ImageFormat (with the line or the offset), ImageOverlap and ImageEmpty; ImageMisplaced for an
    `address` that is none; Unsupported for a `format` that isn't known.
    """
    path = Path(path)
    try:
        with named_files.opened(path) as stream:
            image = _read(stream, path, os.fstat(stream.fileno()).st_size, address, format, as_is)
    except OSError as error:
        remedy = "May you read it?" if isinstance(error, PermissionError) else "Is this the right path?"
        raise ImageMissing(f"{path} can't be read: {error.strerror}", remedy=remedy) from error
    return _placed(image, path, address)


def loads(
    data: bytes, path: Path, *, address: int | None = None, format: str | None = None, as_is: bool = False
) -> FirmwareImage:
    """As `load`, of bytes that were read already; `path`: what errors call them, with the ending of their format.

    Raises what `load` raises, but ImageMissing.
    """
    return _placed(_read(io.BytesIO(data), path, len(data), address, format, as_is), path, address)


def _placed(image: FirmwareImage, path: Path, address: int | None) -> FirmwareImage:
    """Raises ImageEmpty, ImageFormat."""
    if not image.segments:
        raise ImageEmpty(f"{path} holds no bytes to write", remedy="Did the build that made it go well?")
    if address is None:
        return avr_memories.in_its_memory(image, path, [ending for one in formats() for ending in one.endings])
    if not image.relocatable:
        raise ImageFormat(
            f"{path} has addresses of its own ({image.format}) and was to be placed at 0x{address:X}",
            remedy="Leave the address away.",
        )
    return image.at(address)


def save(image: FirmwareImage, path: Path | str, *, format: str | None = None, of_slot: bool = False) -> None:
    """Writes an image in the format of the path's ending, or of the name `format`: a whole file or none.

    A path that ends in .dfu becomes DfuSe, or DFU with a suffix alone if the image is relocatable or `of_slot`.

    Raises ImageNotWritten when the disk is full, the folder is missing, the path is a device or a pipe, or the format
    can't hold the image; Unsupported for a `format` that isn't known.
    """
    path = Path(path)
    write = _writer(image, path, format, of_slot)
    try:
        with suppress(FileNotFoundError):
            # A file would take the place of a device, and the device be gone.
            if not stat.S_ISREG(path.stat().st_mode):
                raise ImageNotWritten(f"{path} is there and is not a file", remedy="Name a file.")
        with named_files.whole(path) as stream:
            write(image, stream)
    except OSError as error:
        raise ImageNotWritten(
            f"{path} can't be written: {error.strerror}",
            remedy="Is the folder there, may you write to it, and has its disk room?",
        ) from error


def refuse_ending(path: Path) -> None:
    """Raises ImageNotWritten where no format is written into files of this ending."""
    found = _with_ending(path)
    if not any(kind.is_written for kind in found):
        raise _unwritten(path, found[0] if found else None)


def _unwritten(path: Path, kind: type[Format] | None) -> ImageNotWritten:
    known = ", ".join(dict.fromkeys(ending for one in formats() if one.is_written for ending in one.endings))
    return ImageNotWritten(
        f"{path}: a format that is only read" if kind else f"{path}: no firmware format has this ending",
        remedy=f"Name a file that ends in {known}.",
    )


def _writer(
    image: FirmwareImage, path: Path, format: str | None, of_slot: bool
) -> Callable[[FirmwareImage, BinaryIO], None]:
    kind = _named(format) if format else _for_ending(path, relocatable=image.relocatable or of_slot)
    if kind is None or not kind.is_written:
        raise _unwritten(path, kind)
    if not image.segments:
        raise ImageNotWritten(f"{path}: the image has no bytes to write")
    if image.relocatable and kind.addresses:
        raise ImageNotWritten(
            f"{path}: {image.source or 'the image'} has no address, and {kind.name} needs one",
            remedy="Give the address at which the part has its memory: --address 0x08000000",
        )
    return kind.write


def _read(
    stream: BinaryIO, path: Path, size: int, address: int | None, format: str | None, as_is: bool
) -> FirmwareImage:
    if size > LARGEST_FILE:
        raise ImageFormat(f"{path} has {size:,} bytes, more than any firmware file", remedy="Is it the right file?")
    if format:
        return _named(format).read(stream, str(path))
    head = stream.read(foreign.HEAD_SIZE)
    stream.seek(max(0, size - 64))
    tail = stream.read(64)
    stream.seek(0)
    if not head:
        raise ImageEmpty(f"{path} is empty", remedy="Did the build that made it go well?")
    kind = next((one for one in formats() if one.recognises(head[:64], tail)), None)
    if kind is None:
        # Of several formats with one ending, the last takes what none recognises.
        kind = next(reversed(_with_ending(path)), None)
        if kind is None and (address is not None or as_is or path.suffix.lower() == avr_memories.EEPROM_ENDING):
            kind = RawBinary
        _refuse_foreign(head, path, kind, as_is)
    if kind is None:
        raise ImageFormat(
            f"{path}: neither its content nor its ending is that of a firmware format",
            remedy="If it is a raw binary, give its address, such as --address 0x08000000, or let its name end in .bin.",
        )
    return kind.read(stream, str(path))


def _refuse_foreign(head: bytes, path: Path, kind: type[Format] | None, as_is: bool) -> None:
    """Raises ImageFormat for a file that is not firmware by its start, whatever its name ends in."""
    found = foreign.kind(head)
    if found is None or (found.container and as_is) or (found.unknown and kind not in (RawBinary, None)):
        return
    raise ImageFormat(f"{path} is {found.what}, not firmware for this part", remedy=found.remedy)


def keeps_addresses(path: Path) -> bool:
    """Whether a file of this name would say where its bytes go; True for an ending that no format has."""
    kind = _for_ending(path, relocatable=False)
    return kind is None or kind.addresses


def _with_ending(path: Path) -> list[type[Format]]:
    ending = path.suffix.lower()
    return [one for one in formats() if ending in one.endings]


def _for_ending(path: Path, *, relocatable: bool) -> type[Format] | None:
    """What an image is written in: of several formats with one ending, the first that has addresses just as the image has."""
    found = _with_ending(path)
    fitting = (one for one in found if one.addresses is not relocatable)
    return next(fitting, found[0] if found else None)


def _named(name: str) -> type[Format]:
    """Raises Unsupported, PluginBroken."""
    if name not in (known := plugins.names(plugins.FORMATS)):
        raise Unsupported(f"no firmware file format is called {name!r}", remedy=f"One of {', '.join(known)}.")
    kind: type[Format] = plugins.load(plugins.FORMATS, name)
    return kind
