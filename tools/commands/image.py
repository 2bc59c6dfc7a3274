"""`image`: what a firmware file holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from ...flashers.formats import load as load_image
from ...flashers.formats import save as save_image
from ...transports import named_files
from ...transports.plain import word
from .outputs import FORCE, refuse_firmware
from .session import NUMBER, Session, command


@command("image")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--address", type=NUMBER, help="Where a raw binary goes.")
@click.option("--format", "format", metavar="NAME", help="The file's format, which is then not guessed.")
@click.option("--to", type=click.Path(path_type=Path), help="Write it to this file; its ending picks the format.")
@FORCE
def image(
    session: Session, file: Path, address: int | None, format: str | None, to: Path | None, force: bool
) -> int | None:
    """What a firmware file holds: format, segments, gaps, entry, hash, version; converts it with --to. A file that is
    there stays, unless --force is given.

    Reads Intel HEX, S-record, ELF, raw binary, DFU, DfuSe and MCUboot files.

    \b
    proxyflash image imu-1.5.0.hex
    proxyflash image imu.elf --to imu.hex
    proxyflash image imu.bin --address 0x08000000 --to imu.dfu
    """
    if to is not None:
        refuse_firmware(to, force=force)
    loaded = load_image(file, address=address, format=format)
    with named_files.opened(file) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    segments = [(segment.address, segment.size) for segment in loaded.segments]
    gaps = [(low.end, high.address - low.end) for low, high in zip(loaded.segments, loaded.segments[1:], strict=False)]
    if to is not None:
        save_image(loaded, to)
    session.output.document(
        {
            "file": str(file),
            "format": loaded.format,
            "bytes": loaded.size,
            "sha256": digest,
            "version": loaded.version or None,
            "entry": loaded.entry,
            "relocatable": loaded.relocatable,
            "target": dict(loaded.target),
            "segments": [{"address": start, "bytes": count} for start, count in segments],
            "gaps": [{"address": start, "bytes": count} for start, count in gaps],
            "written": str(to) if to else None,
        }
    )
    out = session.output
    width = max(11, *map(len, loaded.target)) if loaded.target else 11
    out.line(f"{file}  {loaded.format}  {loaded.size:,} bytes  SHA-256 {digest}")
    for start, count in segments:
        where = "anywhere" if loaded.relocatable else f"0x{start:08X}..0x{start + count - 1:08X}"
        out.line(f"  {'segment':<{width}} {where}  {count:,} bytes")
    for start, count in gaps:
        out.line(f"  {'gap':<{width}} 0x{start:08X}..0x{start + count - 1:08X}  {count:,} bytes")
    if loaded.version:
        out.line(f"  {'version':<{width}} {word(loaded.version)}")
    if loaded.entry is not None:
        out.line(f"  {'entry':<{width}} 0x{loaded.entry:08X}")
    for key, value in loaded.target.items():
        out.line(f"  {key:<{width}} {f'0x{value:04X}' if isinstance(value, int) else word(value)}")
    if to is not None:
        out.line(f"  {'written':<{width}} {to}")
    return None
