"""`stm32-can` and `stm32-fdcan`: frames of other people's implementations, both shapes of answers, and what they refuse.

The frames are those of: AN2662 and AN3154 (ST); OpenBL, openbl_can_cmd.c and openbl_fdcan_cmd.c (ST's own loader); canprog 0.2.1
(PyPI, stm32.py); andoma/mios, stm32_fdcan_flasher.c; ToyotaInfoTech/RAMN, canboot.py.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import can
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.emulators import application
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.replay.session import Replay
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.benchfile.schema import load
from proxyflash.enumerators.component import Presence
from proxyflash.enumerators.described import describers
from proxyflash.flashers.describing import described
from proxyflash.flashers.errors import (
    NoResponse,
    OperationFailed,
    PartError,
    PartProtected,
    PartRefused,
    PartWrongMode,
    ProfileWrong,
    Unsupported,
    WrongPart,
)
from proxyflash.flashers.stm32 import codec
from proxyflash.flashers.stm32.can_commands import CanCommands, FdcanCommands
from proxyflash.flashers.stm32.codec import MassErase
from proxyflash.testing.rig import Rig, settled
from proxyflash.tests.flashers.test_contract import KINDS
from proxyflash.transports import clock
from proxyflash.transports.can.bus import CanBus
from proxyflash.transports.recording.formats import Recording
from proxyflash.transports.recording.recorder import Recorder
from proxyflash.updates.engine.scheduling import limits_of

Frame = tuple[int, str]
Exchange = tuple[Frame, Sequence[Frame]]
Script = Sequence[Exchange]
ACK, NACK = "79", "1f"


class Loader:
    """Answers frames by a script: what the host is to send next, and what comes then. Anything else is kept as unexpected."""

    def __init__(self, *script: Exchange, fd: bool) -> None:
        self.script = list(script)
        self.unexpected: list[Frame] = []
        self._fd = fd
        self.wire = CanWire(uuid.uuid4().hex, pace=0, data_bitrate=2_000_000 if fd else None)
        self._node = self.wire.attach("loader", self._received)

    def _received(self, message: can.Message) -> None:
        frame = (message.arbitration_id, bytes(message.data).hex())
        if not self.script or self.script[0][0] != frame:
            self.unexpected.append(frame)
            return
        _, answers = self.script.pop(0)
        clock.Thread(target=lambda: self._answer(answers), name="loader").start()

    def _answer(self, answers: Sequence[Frame]) -> None:
        for identifier, data in answers:
            self._node.send(
                can.Message(
                    arbitration_id=identifier,
                    is_extended_id=False,
                    data=bytes.fromhex(data),
                    is_fd=self._fd,
                    bitrate_switch=self._fd,
                )
            )


@contextmanager
def talking(
    *script: Exchange, make: type[CanCommands] = CanCommands, answer: float = 0.2
) -> Iterator[tuple[CanCommands, Loader]]:
    """The host, and a loader with a script that is over at the end."""
    loader = Loader(*script, fd=make.fd)
    bus = CanBus.open("b", loader.wire.host_settings())
    commands = make(bus, answer=answer)
    try:
        yield commands, loader
    finally:
        commands.close()
        bus.close()
        loader.wire.close()
    assert not loader.script
    assert not loader.unexpected


def answers(identifier: int, *datas: str) -> list[Frame]:
    return [(identifier, data) for data in datas]


FILLER = (0x79, "ff" * 8)


@pytest.mark.parametrize("answer", [ACK, NACK], ids=["after a reset", "waiting for a command"])
def test_initialising(answer: str) -> None:
    """canprog, _init: ACK or NACK under 0x79."""
    with talking((FILLER, [(0x79, answer)])) as (host, _):
        assert host.sync()


def test_the_usual_form_without_data_comes_last() -> None:
    with talking((FILLER, []), (FILLER, []), ((0x79, ""), [(0x79, ACK)])) as (host, _):
        assert host.sync()


def test_nobody_there() -> None:
    with talking((FILLER, []), (FILLER, []), ((0x79, ""), [])) as (host, _):
        assert not host.sync()


GET = ["00", "01", "02", "03", "11", "21", "31", "43", "63", "73", "82", "92"]
"""AN2662, 3.4: N = 12, and twelve commands, each in a frame of its own."""


def test_get() -> None:
    with talking(((0x00, ""), answers(0x00, ACK, "0c", "20", *GET, ACK))) as (host, _):
        assert host.get() == (0x20, frozenset(int(code, 16) for code in GET))


def test_an_extended_erase_that_can_lists_is_not_used() -> None:
    """No document says how it would be on classic CAN."""
    with talking(((0x00, ""), answers(0x00, ACK, "02", "20", "43", "44", ACK))) as (host, _):
        assert host.get() == (0x20, frozenset({0x43}))


def test_get_version_and_id() -> None:
    """AN2662, 3.5 and 3.6."""
    version = ((0x01, ""), answers(0x01, ACK, "20", "0000", ACK))
    with talking(version, ((0x02, ""), answers(0x02, ACK, "0418", ACK))) as (host, _):
        assert host.get_version() == (0x20, bytes(2))
        assert host.get_id() == 0x418


@pytest.mark.parametrize("rest", [("0809",), ("08", "09")], ids=["ROM: one frame", "OpenBL: single bytes"])
def test_reading(rest: tuple[str, ...]) -> None:
    script = ((0x11, "0800000009"), answers(0x11, ACK, "0001020304050607", *rest, ACK))
    with talking(script) as (host, _):
        assert host.read_memory(0x08000000, 10) == bytes(range(10))


def test_writing() -> None:
    """Data under 0x04, an ACK for each frame, and a last one once all is programmed (AN2662, 3.10)."""
    script: Script = (
        ((0x31, "080001000b"), answers(0x31, ACK)),
        ((0x04, "0001020304050607"), answers(0x31, ACK)),
        ((0x04, "08090a0b"), answers(0x31, ACK, ACK)),
    )
    with talking(*script) as (host, _):
        host.write_memory(0x08000100, bytes(range(12)), blank=0xFF, seconds=0.1)


ROM_ERASE = (((0x43, "01"), [(0x43, ACK)]), ((0x43, "0507"), answers(0x43, ACK, ACK)))
OPENBL_ERASE = (((0x43, "01"), answers(0x43, ACK, ACK)), ((0x43, "0507"), answers(0x43, ACK)))


@pytest.mark.parametrize("script", [ROM_ERASE, OPENBL_ERASE], ids=["ROM", "OpenBL"])
def test_erasing_pages(script: Script) -> None:
    """canprog waits for three ACKs in all; OpenBL sends two of them before the numbers."""
    with talking(*script) as (host, _):
        host.erase_pages([5, 7], extended=False, seconds=0.5)


def test_an_erase_that_is_acknowledged_twice_in_all() -> None:
    """A loader that says nothing of the numbers themselves: once it waits for a command again the erase is over."""
    script: Script = (
        ((0x43, "00"), [(0x43, ACK)]),
        ((0x43, "05"), [(0x43, ACK)]),
        ((0x79, "05" * 8), [(0x79, NACK)]),
    )
    with talking(*script) as (host, _):
        host.erase_pages([5], extended=False, seconds=0.1)


@pytest.mark.parametrize("count", [2, 3], ids=["ROM", "OpenBL"])
def test_erasing_all_drains_what_comes_beyond(count: int) -> None:
    script = (((0x43, "ff"), answers(0x43, *[ACK] * count)), ((0x02, ""), answers(0x02, ACK, "0413", ACK)))
    with talking(*script) as (host, _):
        assert host.mass_erase(MassErase.ALL, extended=False, seconds=0.5)
        assert host.get_id() == 0x413


def test_an_erase_whose_numbers_were_lost_is_ended_by_its_own_numbers() -> None:
    """The loader waits for numbers of units. The frame that asks for it has them, and no others."""
    own = (0x79, "05" * 8)
    script: Script = (
        ((0x43, "00"), answers(0x43, ACK)),
        ((0x43, "05"), []),
        (own, answers(0x43, ACK, ACK)),
        (own, answers(0x79, NACK)),
        ((0x43, "00"), answers(0x43, ACK)),
        ((0x43, "05"), answers(0x43, ACK, ACK)),
    )
    with talking(*script) as (host, _):
        host.erase_pages([5], extended=False, seconds=0.1)


def test_a_block_whose_frame_was_lost_is_filled_up_and_compared() -> None:
    script: Script = (
        ((0x31, "0800010007"), answers(0x31, ACK)),
        ((0x04, "0001020304050607"), []),
        (FILLER, answers(0x31, ACK, ACK)),
        (FILLER, answers(0x79, NACK)),
        ((0x11, "0800010007"), answers(0x11, ACK, "ff" * 8, ACK)),
        ((0x31, "0800010007"), answers(0x31, ACK)),
        ((0x04, "0001020304050607"), answers(0x31, ACK, ACK)),
    )
    with talking(*script) as (host, _):
        host.write_memory(0x08000100, bytes(range(8)), blank=0xFF, seconds=0.0)


def test_a_loader_that_refuses_data_has_left_the_command() -> None:
    """NACK under 0x04: the frame of data was taken for a command. The block there is another one."""
    script: Script = (
        ((0x31, "0800010007"), answers(0x31, ACK)),
        ((0x04, "0001020304050607"), answers(0x04, NACK)),
        (FILLER, answers(0x79, NACK)),
        ((0x11, "0800010007"), answers(0x11, ACK, "0001020304ffffff", ACK)),
    )
    with talking(*script) as (host, _), pytest.raises(OperationFailed, match="half written"):
        host.write_memory(0x08000100, bytes(range(8)), blank=0xFF, seconds=0.0)


def refused(frame: Frame, query: Frame = FILLER) -> Script:
    """A command that gets NACK three times."""
    again = (query, answers(query[0], NACK))
    return [(frame, [(frame[0], NACK)]), again, (frame, [(frame[0], NACK)]), again, (frame, [(frame[0], NACK)])]


def test_a_first_read_that_is_refused_is_protected() -> None:
    with talking(*refused((0x11, "0800000003"))) as (host, _), pytest.raises(PartProtected):
        host.read_memory(0x08000000, 4)


def test_a_later_read_that_is_refused_is_of_no_memory() -> None:
    first = ((0x11, "0800000003"), answers(0x11, ACK, "00000000", ACK))
    with talking(first, *refused((0x11, "1ff1e8000b"))) as (host, _):
        host.read_memory(0x08000000, 4)
        with pytest.raises(PartRefused):
            host.read_memory(0x1FF1E800, 12)


def test_go() -> None:
    """canprog, _go."""
    with talking((FILLER, [(0x79, NACK)]), ((0x21, "08000000"), [(0x21, ACK)])) as (host, _):
        host.go(0x08000000)


def test_go_is_not_sent_to_nobody() -> None:
    silent: Script = [(FILLER, []), (FILLER, []), ((0x79, ""), [])]
    with talking(*silent, answer=0.0) as (host, _), pytest.raises(NoResponse):
        host.go(0x08000000)


def test_the_bytes_of_speed() -> None:
    """OpenBL, OPENBL_CAN_Speed; canprog, _speed."""
    assert codec.SPEEDS == {125_000: 1, 250_000: 2, 500_000: 3, 1_000_000: 4}


# CAN FD.

FD_QUERY = (0x00, "ff" * 64)


def test_fd_starting_by_any_frame() -> None:
    with talking((FD_QUERY, answers(0x00, ACK, "01", "20", "00", ACK)), make=FdcanCommands) as (host, _):
        assert host.sync()


def test_fd_starting_by_the_opener() -> None:
    """AN5405, 1: above protocol 2.1 only 0x111 with the byte 5A starts the loader."""
    silent: Script = [(FD_QUERY, [])] * 5
    script = [*silent, ((0x111, "5a"), []), (FD_QUERY, answers(0x00, ACK, "01", "22", "00", ACK))]
    with talking(*script, make=FdcanCommands) as (host, _):
        assert host.sync()


def test_fd_reading_a_frame_that_is_filled_up() -> None:
    script = ((0x11, "0800000045"), answers(0x11, ACK, "aa" * 64, "bb" * 6 + "ff" * 58, ACK))
    with talking(script, make=FdcanCommands) as (host, _):
        assert host.read_memory(0x08000000, 70) == b"\xaa" * 64 + b"\xbb" * 6


def test_fd_writing_has_one_answer_at_the_end() -> None:
    """mios, stm32_write_mem: data under the command's id. OpenBL reads 64 bytes of each frame."""
    script: Script = (
        ((0x31, "0800000043"), answers(0x31, ACK)),
        ((0x31, "aa" * 64), []),
        ((0x31, "bb" * 4 + "ff" * 60), answers(0x31, ACK)),
    )
    with talking(*script, make=FdcanCommands) as (host, _):
        host.write_memory(0x08000000, b"\xaa" * 64 + b"\xbb" * 4, blank=0xFF, seconds=0.1)


def test_fd_erasing_pages() -> None:
    """OpenBL and mios count from 1. By AN3155's way one page more would go: it is the last one again."""
    script: Script = (
        ((0x44, "0002"), answers(0x44, ACK, ACK)),
        ((0x44, "0003" + "0105" * 31), answers(0x44, ACK)),
    )
    with talking(*script, make=FdcanCommands) as (host, _):
        host.erase_pages([3, 0x105], extended=True, seconds=0.1)


@pytest.mark.parametrize(
    ("what", "sent"), [(MassErase.ALL, "ffff"), (MassErase.BANK_1, "fffe"), (MassErase.BANK_2, "fffd")]
)
def test_fd_erasing_much(what: MassErase, sent: str) -> None:
    """RAMN, eraseMemory: two ACKs."""
    with talking(((0x44, sent), answers(0x44, ACK, ACK)), make=FdcanCommands) as (host, _):
        assert host.mass_erase(what, extended=True, seconds=0.1)


def test_fd_go_has_two_answers() -> None:
    query = (FD_QUERY, answers(0x00, ACK, "01", "20", "00", ACK))
    with talking(query, ((0x21, "08000000"), answers(0x21, ACK, ACK)), make=FdcanCommands) as (host, _):
        host.go(0x08000000)
    refusal = ((0x21, "09000000"), answers(0x21, ACK, NACK))
    with talking(query, refusal, make=FdcanCommands) as (host, _), pytest.raises(PartProtected):
        host.go(0x09000000)


def test_fd_silence_to_reading_alone_is_protection() -> None:
    """mios: an STM32H7 whose readout protection is on does not answer Read Memory, and Get ID as ever."""
    answered: Exchange = (FD_QUERY, answers(0x00, ACK, "01", "20", "00", ACK))
    read: Exchange = ((0x11, "0800000003"), [])
    script = [read, answered, read, answered, read, answered]
    with talking(*script, make=FdcanCommands) as (host, _), pytest.raises(PartProtected, match="answers, but not"):
        host.read_memory(0x08000000, 4)


# Whole parts.


def rig_of(kind: str, folder: Path, **emulated: object) -> Rig:
    part = type("Changed", (KINDS[kind],), {"emulated": {**KINDS[kind].emulated, **emulated}})()
    return Rig(part, folder)


def refusal(kind: str, folder: Path, **emulated: object) -> BaseException | None:
    rig = rig_of(kind, folder, **emulated)
    with rig.powered() as bench:
        before = bench.emulated_device("part").flash.read(rig.start, 0x1000)
        error = rig.error(bench)
        assert bench.emulated_device("part").flash.read(rig.start, 0x1000) == before
        settled(bench)
    return error


@pytest.mark.parametrize("kind", ["stm32-can", "stm32-can-openbl", "stm32-fdcan"])
def test_a_readout_protected_part_is_left_as_it_was(kind: str, tmp_path: Path) -> None:
    assert isinstance(refusal(kind, tmp_path, rdp=1), PartProtected)


def test_an_h7_that_is_readout_protected(tmp_path: Path) -> None:
    assert isinstance(refusal("stm32-fdcan", tmp_path, part="stm32h743xi", rdp=1), PartProtected)


@pytest.mark.parametrize("kind", ["stm32-can", "stm32-can-openbl", "stm32-fdcan"])
def test_a_write_protected_part_is_left_as_it_was(kind: str, tmp_path: Path) -> None:
    error = refusal(kind, tmp_path, write_protected=[0])
    assert isinstance(error, PartProtected)
    assert "write-protected" in error.cause


def test_units_that_a_byte_cannot_name_are_refused_before_anything_is_erased(tmp_path: Path) -> None:
    """An STM32L476 has 512 units; Erase on classic CAN names 0 to 255."""
    rig = Rig(KINDS["stm32-can"](), tmp_path)
    with rig.powered() as bench:
        (tmp_path / "far.bin").write_bytes(bytes(range(256)))
        with pytest.raises(Unsupported, match="erase unit 256"):
            bench.component("part").flash(tmp_path / "far.bin", address=0x08000000 + 256 * 2048)
        assert settled(bench) == "1.4.2"


def test_fd_names_all_of_its_units(tmp_path: Path) -> None:
    rig = rig_of("stm32-fdcan", tmp_path, part="stm32l476xg")
    with rig.powered() as bench:
        (tmp_path / "far.bin").write_bytes(bytes(range(256)))
        bench.component("part").flash(tmp_path / "far.bin", address=0x08000000 + 256 * 2048)
        assert bench.emulated_device("part").flash.read(0x08000000 + 256 * 2048, 256) == bytes(range(256))


@pytest.mark.parametrize("part", ["stm32f405xg", "stm32f103xb", "stm32l476xg"])
@pytest.mark.parametrize("shape", ["rom", "openbl"])
def test_other_parts(shape: str, part: str, tmp_path: Path) -> None:
    rig = rig_of("stm32-can", tmp_path, part=part, shape=shape)
    with rig.powered() as bench:
        rig.ends_with_the_new_image(bench)


@pytest.mark.parametrize(
    ("kind", "emulated", "sent"),
    [
        ("stm32-can", {"part": "stm32f103xb", "shape": "rom"}, (0x43, "ff")),
        ("stm32-can", {"part": "stm32f103xb", "shape": "openbl"}, (0x43, "ff")),
        ("stm32-fdcan", {"part": "stm32g071xb"}, (0x44, "ffff")),
    ],
)
def test_an_image_as_large_as_the_flash_erases_all_at_once(
    kind: str, emulated: dict[str, str], sent: Frame, tmp_path: Path
) -> None:
    rig = rig_of(kind, tmp_path, **emulated)
    image = application.make("1.5.0", "part", "Acme", 0x20000, start=0x08000000, seed=3)
    (tmp_path / "whole.bin").write_bytes(image)
    erases: list[Frame] = []

    def heard(message: can.Message) -> None:
        data = bytes(message.data)
        if message.arbitration_id in (0x43, 0x44) and data != b"\x79":
            erases.append((message.arbitration_id, data.hex()))

    with rig.powered() as bench:
        bench.emulated_wire("b").attach("ear", heard)
        bench.component("part").flash(tmp_path / "whole.bin", address=0x08000000)
        assert bench.emulated_device("part").flash.read(0x08000000, len(image)) == image
    assert erases == [sent]


@pytest.mark.parametrize("part", ["stm32g474xe", "stm32h743xi", "stm32g071xb"])
@pytest.mark.parametrize("opener", [False, True])
def test_other_parts_on_can_fd(opener: bool, part: str, tmp_path: Path) -> None:
    rig = rig_of("stm32-fdcan", tmp_path, part=part, opener=opener)
    with rig.powered() as bench:
        rig.ends_with_the_new_image(bench)


KILLED = {
    "erase": ("stm32-can", "stm32f103xb", (0x43, "00")),
    "erase of seven": ("stm32-can", "stm32f405xg", (0x43, "06")),
    "block": ("stm32-can", "stm32f405xg", (0x31, "08000800ff")),
    "erase on CAN FD": ("stm32-fdcan", "stm32g474xe", (0x44, "0007")),
    "block on CAN FD": ("stm32-fdcan", "stm32g474xe", (0x31, "08000800ff")),
}
"""By what the last frame of a command was that was killed: the loader waits for the rest."""


@pytest.mark.parametrize("case", KILLED)
def test_the_rest_of_a_killed_command_erases_nothing_else(case: str, tmp_path: Path) -> None:
    kind, part, (identifier, data) = KILLED[case]
    rig = rig_of(kind, tmp_path, part=part)
    with rig.blank() as bench:
        flash = bench.emulated_device("part").flash
        flash.load(0x08010000, bytes(range(256)) * 256)
        before = flash.read(0x08010000, flash.end - 0x08010000)
        raw = bench.emulated_wire("b").attach("killed", lambda message: None)
        query = (0x79, b"") if kind == "stm32-can" else (0x00, b"")
        for number, sent in (query, (identifier, bytes.fromhex(data))):
            is_fd = kind == "stm32-fdcan"
            raw.send(can.Message(arbitration_id=number, is_extended_id=False, data=sent, is_fd=is_fd))
            clock.sleep(0.1)
        raw.detach()
        rig.ends_with_the_new_image(bench)
        assert flash.read(0x08010000, len(before)) == before


OTHER = """
[[component]]
name = "other"
bus = "b"
protocol = "stm32-can"
address = {version_request = 0x122, version_response = 0x123}
profile = {enter = {id = 0x7F1, data = "b0 07"}, version = {send = "01", match = "FW ([0-9.]+)"}, answer = 0.1}
emulated = {part = "stm32l476xg"}
"""
"""Without a firmware: in its bootloader."""


def test_the_bootloader_of_another_part_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    rig = Rig(KINDS["stm32-can"](), tmp_path)
    file = tmp_path / "bench.toml"
    file.write_text(file.read_text() + OTHER)
    with rig.powered() as bench:
        other = bench.emulated_device("other").flash
        before = other.read(0x08000000, 0x4000)
        error = rig.error(bench)
        assert isinstance(error, PartWrongMode)
        assert "another part's" in error.cause
        assert other.read(0x08000000, 0x4000) == before
        assert settled(bench) == "1.4.2"


@pytest.mark.parametrize(("serial", "fits"), [("313233" * 4, True), ("0" * 24, False)])
def test_a_part_with_another_id_is_refused(serial: str, fits: bool, tmp_path: Path) -> None:
    kind = KINDS["stm32-can"]
    address = {**kind.component["address"], "serial": serial.upper()}
    changed = {
        "component": {**kind.component, "address": address},
        "emulated": {**kind.emulated, "serial": "313233" * 4},
    }
    rig = Rig(type("Changed", (kind,), changed)(), tmp_path)
    with rig.powered() as bench:
        error = rig.error(bench)
        assert error is None if fits else isinstance(error, WrongPart)
        assert settled(bench) == ("1.5.0" if fits else "1.4.2")


@pytest.mark.parametrize(("serial", "found"), [("313233" * 4, Presence.BOOTLOADER), ("0" * 24, Presence.ABSENT)])
def test_scan_does_not_take_another_parts_bootloader_for_this_one(serial: str, found: Presence, tmp_path: Path) -> None:
    kind = KINDS["stm32-can"]
    address = {**kind.component["address"], "serial": serial}
    changed = {
        "bus": {**kind.bus, "probe": True},
        "component": {**kind.component, "address": address},
        "emulated": {**kind.emulated, "serial": "313233" * 4},
    }
    rig = Rig(type("Changed", (kind,), changed)(), tmp_path)
    with rig.blank() as bench:
        assert bench.component("part").look().presence is found


def test_an_update_works_on_one_part_of_a_bus_after_the_other(tmp_path: Path) -> None:
    kind = KINDS["stm32-can"]
    rig = Rig(type("Changed", (kind,), {"bus": {**kind.bus, "at_once": 4}})(), tmp_path)
    with rig.powered() as bench:
        assert limits_of(bench) == {"b": 1}


def test_nothing_is_asked_on_a_bus_whose_part_is_worked_on(tmp_path: Path) -> None:
    """A loader in the middle of a block would take the question for data."""
    kind = KINDS["stm32-can"]
    file = tmp_path / "bench.toml"
    rig = Rig(type("Changed", (kind,), {"bus": {**kind.bus, "probe": True}})(), tmp_path)
    file.write_text(file.read_text() + OTHER)
    with rig.powered() as bench:
        other = bench.emulated_device("other").node  # type: ignore[attr-defined]
        other.node.power(False)
        seen: list[int] = []
        bench.emulated_wire("b").attach("ear", lambda message: seen.append(message.arbitration_id))
        with bench.component("part").programmer() as programmer:
            programmer.connect()
            seen.clear()
            bench.component("other").look()
            assert set(seen) <= {0x122}


def test_two_components_of_a_bus_are_not_worked_on_at_once(tmp_path: Path) -> None:
    rig = Rig(KINDS["stm32-can"](), tmp_path)
    with rig.powered() as bench, bench.component("part").programmer() as first:
        first.connect()
        with bench.component("part").programmer() as second, pytest.raises(PartWrongMode, match="another component"):
            second.connect()


@pytest.mark.parametrize("emulated", [True, False])
def test_a_bus_is_can_fd_by_default(emulated: bool, tmp_path: Path) -> None:
    part = KINDS["stm32-fdcan"]()
    file = tmp_path / "bench.toml"
    bus = {"kind": "can", "emulated": True} if emulated else {"kind": "can", "interface": "virtual", "channel": "x"}
    file.write_text(part.bench_file(bus=bus, emulated=part.emulated) if emulated else part.bench_file(bus=bus))
    with Bench.open(file, state=tmp_path / "state") as bench:
        assert bench.file.settings("b")["fd"] is True
        if emulated:
            assert bench.emulated_wire("b").data_bitrate == 2_000_000
            assert bench.component("part").look().presence is Presence.ABSENT


# The bit rate.


def test_the_second_answer_to_speed_under_either_id() -> None:
    """AN2662 prints 0x02; OpenBL answers under 0x03."""
    for identifier in (0x03, 0x02):
        script: Script = (((0x03, "04"), [(0x03, ACK), (identifier, ACK)]), (FILLER, [(0x79, NACK)]))
        with talking(*script) as (host, _):
            host.speed(1_000_000)
            assert host.await_speed()


def test_a_bootloader_that_begins_at_another_bit_rate(tmp_path: Path) -> None:
    """It changes to the bus's bit rate, at which all else goes on; an application that answers keeps the bus from it."""
    rig = Rig(KINDS["stm32-can-speed"](), tmp_path)
    with rig.powered() as bench:
        node = bench.emulated_device("part").node  # type: ignore[attr-defined]
        rates: list[tuple[int, int]] = []
        ears = [
            bench.emulated_wire("b").attach("ear", lambda m, at=at: rates.append((at, m.arbitration_id)))
            for at in (1, 2)
        ]
        ears[0].change_bit_rate(125_000)
        rig.flash(bench)
        assert settled(bench) == "1.5.0"
        assert node.node.bitrate == 500_000
        slow = [number for at, number in rates if at == 1]
        assert set(slow) <= {0x79, 0x03}
        assert 0x31 in [number for at, number in rates if at == 2]
        rates.clear()
        rig.plan(bench)
        assert settled(bench) == "1.5.0"


def test_without_first_bitrate_it_is_not_found(tmp_path: Path) -> None:
    rig = rig_of("stm32-can", tmp_path, first_bitrate=125_000)
    with rig.powered() as bench:
        error = rig.error(bench)
        assert error is not None
        assert error.code in ("E-CAN-NOT-ACKNOWLEDGED", "E-PART-MUTE")


def test_a_bit_rate_that_speed_has_no_code_for(tmp_path: Path) -> None:
    kind = KINDS["stm32-can-speed"]
    rig = Rig(type("Changed", (kind,), {"bus": {"kind": "can", "bitrate": 800_000}})(), tmp_path)
    with rig.powered() as bench:
        error = rig.error(bench)
        assert isinstance(error, ProfileWrong)
        assert "125_000" in str(error.remedy)
        assert settled(bench) in ("1.4.2", None)


@pytest.mark.parametrize("kind", ["stm32-can", "stm32-can-openbl", "stm32-fdcan"])
def test_a_recorded_flash_replays(kind: str, tmp_path: Path) -> None:
    rig = Rig(KINDS[kind](), tmp_path, size=3000, pace=1)
    recorder = Recorder()
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "recorded", recorder=recorder) as bench:
        settled(bench)
        assert rig.flash(bench).version == "1.5.0"
    replay = Replay(Recording(tuple(recorder.records())))
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "replayed", replay=replay) as bench:
        bench.component("part").await_version()
        assert rig.flash(bench).version == "1.5.0"
    replay.finish()
    replay.close()
    words = [line.words for line in described(recorder.records(), describers(load(tmp_path / "bench.toml")))]
    assert "Write Memory 256 bytes" in words
    assert "Go 0x08000000" in words
    assert not any(line.startswith("unknown") for line in words)


class Babbler:
    """Answers each frame with the next ones of a list, whatever they are."""

    def __init__(self, turns: Sequence[Sequence[tuple[int, bytes]]], *, fd: bool) -> None:
        self._turns = list(turns)
        self._fd = fd
        self.wire = CanWire(uuid.uuid4().hex, pace=0, data_bitrate=2_000_000 if fd else None)
        self._node = self.wire.attach("babbler", self._received)

    def _received(self, message: can.Message) -> None:
        turn = self._turns.pop(0) if self._turns else ()

        def answer() -> None:
            for identifier, data in turn:
                self._node.send(can.Message(arbitration_id=identifier, is_extended_id=False, data=data, is_fd=self._fd))

        clock.Thread(target=answer, name="babbler").start()


FRAMES = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from((0x00, 0x02, 0x04, 0x11, 0x31, 0x43, 0x44, 0x79)),
            st.sampled_from((b"", b"\x79", b"\x1f", b"\xff", bytes(8), b"\x79" * 8, bytes(2))),
        ),
        max_size=4,
    ),
    max_size=30,
)


@settings(max_examples=25, deadline=None)
@given(FRAMES, st.booleans(), st.sampled_from(range(5)))
def test_whatever_a_loader_answers(turns: list[list[tuple[int, bytes]]], fd: bool, what: int) -> None:
    """A result, or an error of the part, within its time."""
    babbler = Babbler(turns, fd=fd)
    bus = CanBus.open("b", babbler.wire.host_settings())
    host = (FdcanCommands if fd else CanCommands)(bus, answer=0.1)
    actions: list[Callable[[], object]] = [
        host.get,
        lambda: len(host.read_memory(0x08000000, 20)) == 20,
        lambda: host.write_memory(0x08000000, bytes(16), blank=0xFF, seconds=0.1),
        lambda: host.erase_pages([3, 4], extended=fd, seconds=0.1),
        host.sync,
    ]
    began = clock.monotonic()
    with suppress(PartError):
        assert actions[what]() is not False or what == 4
    assert clock.monotonic() - began < 60
    host.close()
    bus.close()
    babbler.wire.close()


def frames_of(bench: Bench, action: Callable[[], object]) -> list[int]:
    """The ids that pass on the bus meanwhile."""
    seen: list[int] = []
    node = bench.emulated_wire("b").attach("ear", lambda message: seen.append(message.arbitration_id))
    action()
    node.detach()
    return seen


@pytest.mark.parametrize("kind", ["stm32-can", "stm32-fdcan"])
@pytest.mark.parametrize("probe", [False, True])
def test_scan_asks_the_bootloader_where_the_bus_allows_it_alone(kind: str, probe: bool, tmp_path: Path) -> None:
    part = type("Changed", (KINDS[kind],), {"bus": {**KINDS[kind].bus, "probe": probe}})()
    rig = Rig(part, tmp_path)
    with rig.blank() as bench:
        seen = frames_of(bench, bench.scan)
        assert any(number < 0x112 for number in seen) == probe
