"""The AVR flashers with real bootloaders on a simulated part: programs by avr-gcc are written, and run.

Expected: what the program itself says on its UART, and the flash as the simulator has it, which the loader isn't asked for.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from proxyflash.flashers import formats
from proxyflash.flashers.avr.flasher import AvrFlasher
from proxyflash.flashers.avr.identity import EEPROM_START
from proxyflash.flashers.avr.profile import AvrAddress, AvrEntrySettings, AvrProfile
from proxyflash.flashers.avr.stk500v1 import Stk500v1Flasher
from proxyflash.flashers.avr.stk500v2 import Stk500v2Flasher
from proxyflash.flashers.errors import ImageError, PartError, Unsupported
from proxyflash.flashers.flasher import State
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.programmer import Programmer
from proxyflash.hil_tests.real.avr import ATMEGABOOT, BOARDS, OPTIBOOT, WIRING, AvrPart, AvrPort, Board, program
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import TransportError

FLASHERS: dict[str, type[AvrFlasher]] = {"stk500v1": Stk500v1Flasher, "stk500v2": Stk500v2Flasher}
SIZE = 5000
QUICK = AvrProfile(entry=AvrEntrySettings(discharge=0.0, settle=0.02))
"""There is no capacitor."""


@pytest.fixture(params=BOARDS, ids=lambda board: board.name)
def part(request: pytest.FixtureRequest) -> Iterator[AvrPart]:
    with AvrPart(request.param) as running:
        yield running


def image(board: Board, version: str, size: int = SIZE) -> FirmwareImage:
    return formats.load(program(board, version, size))


def flasher(port: AvrPort) -> AvrFlasher:
    kind = FLASHERS[port.part.board.protocol]
    return kind.attach(port, AvrAddress(), QUICK)


def flash(port: AvrPort, wanted: FirmwareImage, **choices: bool) -> Programmer:
    programmer = Programmer(flasher(port), "part", **choices)  # type: ignore[arg-type]
    programmer.flash(programmer.plan(wanted), verify=True)
    return programmer


def heard(port: AvrPort, wanted: bytes, seconds: float = 120.0) -> bytes:
    """What comes until it ends with what is wanted."""
    limit = Deadline.after(seconds)
    data = b""
    while not data.endswith(wanted):
        more = port.read_some(limit)
        assert more, f"{data!r} came, and no {wanted!r}"
        data += more
    return data


def holds(part: AvrPart, wanted: FirmwareImage) -> bool:
    held = part.flash()
    return all(held[segment.address : segment.end] == segment.data for segment in wanted.segments)


def test_a_program_is_written_verified_and_runs(part: AvrPart) -> None:
    wanted = image(part.board, "1.5.0")
    with AvrPort.to(part) as port:
        programmer = Programmer(flasher(port), "part")
        result = programmer.flash(programmer.plan(wanted))
        assert heard(port, b"\r\n") == b"hello from 1.5.0\r\n"
        port.write(b"\r", Deadline.after(5))
        assert heard(port, b"\r\n") == b"FW 1.5.0\r\n"
    assert result.verified == "read back"
    assert result.identity.part.lower() == part.board.mcu
    assert result.identity.details["boot_section"].startswith(f"0x{part.board.boot:05X}")
    assert holds(part, wanted)
    assert part.boot_section_is_whole()


def test_another_version_takes_the_place_of_the_first_and_the_same_is_not_written(part: AvrPart) -> None:
    old, new = image(part.board, "1.4.2"), image(part.board, "1.5.0", SIZE - 1800)
    with AvrPort.to(part) as port:
        flash(port, old)
        heard(port, b"hello from 1.4.2\r\n")
        flash(port, new)
        heard(port, b"hello from 1.5.0\r\n")
        assert holds(part, new)
        programmer = Programmer(flasher(port), "part")
        plan = programmer.plan(new)
        assert plan.nothing_to_do
        programmer.flash(plan)
        heard(port, b"hello from 1.5.0\r\n")
    assert part.boot_section_is_whole()


def test_pages_of_ff_in_the_image_become_ff(part: AvrPart) -> None:
    """No loader erases but by writing, so that what is blank in the image is written too."""
    page = part.board.page
    full = FirmwareImage((Segment(0, bytes(range(256)) * 16),), "bin")
    holed = FirmwareImage((Segment(0, bytes(range(1, 129)) * 8 + b"\xff" * 2048 + bytes(range(128)) * 8),), "bin")
    with AvrPort.to(part) as port:
        flash(port, full)
        flash(port, holed)
    assert holds(part, holed)
    assert page <= 256


def test_a_few_pages_alone_are_changed(part: AvrPart) -> None:
    content = bytearray(bytes(range(251)) * 16)
    with AvrPort.to(part) as port:
        flash(port, FirmwareImage((Segment(0, bytes(content)),), "bin"))
        content[700] ^= 0xFF
        content[3000] ^= 0xFF
        wanted = FirmwareImage((Segment(0, bytes(content)),), "bin")
        programmer = Programmer(flasher(port), "part")
        plan = programmer.plan(wanted)
        assert plan.write_bytes == 3 * part.board.page
        programmer.flash(plan)
    assert holds(part, wanted)
    assert part.boot_section_is_whole()


def test_the_boot_section_is_no_place_for_an_image(part: AvrPart) -> None:
    before = part.flash()
    reaching = FirmwareImage((Segment(part.board.boot - 64, b"\x00" * 128),), "bin")
    with AvrPort.to(part) as port, pytest.raises(ImageError):
        flash(port, reaching)
    assert part.flash() == before


@pytest.mark.parametrize("board", [OPTIBOOT, WIRING], ids=lambda board: board.name)
@pytest.mark.parametrize("share", [0.001, 0.03, 0.3, 0.6, 0.9, 0.97, 0.999])
def test_after_a_cut_the_part_is_whole_or_recoverable(board: Board, share: float) -> None:
    """The supply goes when this share of what a whole run sends was sent; the host's line to its reset is there again for
    the second run."""
    old, new = image(board, "1.4.2"), image(board, "1.5.0")
    with AvrPart(board) as part:
        with AvrPort.to(part) as port:
            flash(port, old)
            heard(port, b"hello from 1.4.2\r\n")
        with AvrPort.to(part, wired=False) as port:
            programmer = Programmer(flasher(port), "part", attempts=1)
            plan = programmer.plan(new)
            sent = plan.write_bytes + plan.erase_bytes
            part.tell(f"cut {max(1, int(share * sent))}")
            with suppress(PartError, TransportError):
                programmer.flash(plan, boot=False)
        held = part.flash()
        first = held[: board.page]
        whole = holds(part, old) or holds(part, new)
        boots = first not in (b"\xff" * board.page, parked(board))
        assert whole or not boots
        assert part.boot_section_is_whole()
        with AvrPort.to(part) as port:
            sighted = probe(port)
            assert whole or (sighted is not None and sighted is State.BOOTLOADER)
            flash(port, new)
            heard(port, b"hello from 1.5.0\r\n")
        assert holds(part, new)


def parked(board: Board) -> bytes:
    """JMP to the boot section, of Optiboot RJMP to itself (AVR Instruction Set Manual: 1001 010k kkkk 110k kkkk kkkk kkkk
    kkkk, and 1100 kkkk kkkk kkkk), by hand."""
    code = {"optiboot": "ff cf", "wiring": "0d 94 00 f0"}[board.name]
    return bytes.fromhex(code).ljust(board.page, b"\xff")


def probe(port: AvrPort) -> State | None:
    kind = FLASHERS[port.part.board.protocol]
    found = kind.probe(port, AvrAddress(), QUICK, active=True, deadline=Deadline.after(10))
    return found.state if found else None


def test_a_supply_that_comes_back_is_not_the_end_where_a_line_resets_the_part(part: AvrPart) -> None:
    new = image(part.board, "1.5.0")
    with AvrPort.to(part) as port:
        programmer = Programmer(flasher(port), "part")
        plan = programmer.plan(new)
        part.tell(f"cut {plan.write_bytes // 2}")
        programmer.flash(plan)
        heard(port, b"hello from 1.5.0\r\n")
    assert holds(part, new)


def test_an_application_is_left_to_itself_by_a_look(part: AvrPart) -> None:
    """Opening the port has reset the part: its loader answers, gets the command to go on, and the application runs."""
    with AvrPort.to(part) as port:
        flash(port, image(part.board, "1.5.0"))
        heard(port, b"hello from 1.5.0\r\n")
    with AvrPort.to(part) as port:
        assert probe(port) is None
        heard(port, b"hello from 1.5.0\r\n")


@pytest.mark.parametrize("board", [ATMEGABOOT, WIRING], ids=lambda board: board.name)
def test_the_eeprom_of_an_elf_file_is_written(board: Board) -> None:
    both = formats.load(program(board, "1.5.0", 600, eeprom=True))
    text = b"kept in the EEPROM\x00"
    with AvrPart(board) as part, AvrPort.to(part) as port:
        before = part.eeprom()
        flash(port, both)
        heard(port, b"hello from 1.5.0\r\n")
        held = part.eeprom()
        assert held == text + before[len(text) :]
        (odd,) = [Segment(EEPROM_START + 3, b"\x11\x22\x33")]
        flash(port, FirmwareImage((odd,), "bin"))
        assert part.eeprom() == held[:3] + b"\x11\x22\x33" + held[6:]
        assert holds(part, formats.load(program(board, "1.5.0", 600)))


def test_optiboot_has_no_eeprom() -> None:
    both = formats.load(program(OPTIBOOT, "1.5.0", 600, eeprom=True))
    with AvrPart(OPTIBOOT) as part, AvrPort.to(part) as port:
        before = part.flash()
        with pytest.raises(ImageError):
            flash(port, both)
        assert part.flash() == before


def test_the_mega_2560_s_loader_takes_no_image_that_begins_later() -> None:
    with AvrPart(WIRING) as part, AvrPort.to(part) as port:
        flash(port, image(WIRING, "1.5.0"))
        before = part.flash()
        with pytest.raises(Unsupported):
            flash(port, FirmwareImage((Segment(0x2000, bytes(300)),), "bin"))
        assert part.flash() == before


def test_the_command_line_flashes_and_scans(part: AvrPart, tmp_path: Path) -> None:
    """Without a modem line: opening the port resets the part, as a board's does under Linux."""
    bench = tmp_path / "bench.toml"
    bench.write_text(
        f"""
[bus.line]
kind = "serial"
url = "{part.url}"
baudrate = {part.board.baudrate}

[[component]]
name = "part"
bus = "line"
protocol = "{part.board.protocol}"
version = {{send = "\\r", match = "FW ([0-9.]+)"}}
"""
    )
    firmware = program(part.board, "1.5.0", SIZE)
    proxyflash(bench, "flash", "part", firmware, "--yes", "--expect-version", "1.5.0")
    assert holds(part, formats.load(firmware))


def proxyflash(bench: Path, *words: object) -> str:
    command = [sys.executable, "-m", "proxyflash.tools", "--bench", str(bench), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
