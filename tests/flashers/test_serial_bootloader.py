"""`SerialBootloader`: when a part is entered again, whose application is started after a failure, and what is said."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.flashers.errors import NoResponse, WrongPart, check_part
from proxyflash.flashers.flasher import Address, Identity, MemoryAccess, SlotAccess, State
from proxyflash.flashers.serial.bootloader import ENTRY_TRIES, SerialBootloader
from proxyflash.flashers.serial.entry import LineSettings, SerialEntry
from proxyflash.flashers.serial.profile import SerialProfile
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import SerialTimeout
from proxyflash.transports.serial.port import SerialPort


class ToyProfile(SerialProfile):
    part: str | int = ""
    enter: str = "LOADER"


class Entry(SerialEntry):
    """`has_line`: whether the port has the line that resets the part, if there is one."""

    resets = False
    has_line = True
    entered = 0

    def enter(self) -> bool:
        self.entered += 1
        self.use_loader_settings()
        return self.has_line

    def reset(self) -> bool:
        return True


class Toy(SerialBootloader):
    """`answers`: at which sync it answers, 0 for never. `calls`: what was asked of it. `is_there`: before it was brought
    into its bootloader."""

    is_there = False

    protocol = "toy"
    Address = Address
    Profile = ToyProfile
    _entry: Entry

    def __init__(self, port: SerialPort, profile: ToyProfile, answers: int = 1) -> None:
        super().__init__(port, profile)
        self.answers = answers
        self.calls: list[str] = []

    def _make_entry(self) -> Entry:
        line = LineSettings(self._port.baudrate)
        return Entry(
            self._port, text=self._profile.enter, text_seconds=1, settle=0, loader=LineSettings(9600), application=line
        )

    def _sync(self) -> bool:
        self.calls.append("sync")
        return self.calls.count("sync") == self.answers

    def _answers(self) -> bool:
        return self.is_there

    def _identify(self) -> Identity:
        return Identity(part="Toy")

    def _accept(self, identity: Identity) -> None:
        check_part(self._profile.part, "a Toy", "Toy", "0x00AB")

    def access(self) -> MemoryAccess | SlotAccess:
        raise NotImplementedError

    def start_application(self) -> None:
        self.calls.append("start")


@pytest.fixture
def port() -> Iterator[SerialPort]:
    wire = UartWire(uuid.uuid4().hex)
    with SerialPort.open("b", {**wire.host_settings(), "baudrate": 115_200}) as port:
        yield port
    wire.close()


def test_the_line_has_the_loaders_settings_once_connected(port: SerialPort) -> None:
    assert Toy(port, ToyProfile()).connect() == Identity(part="Toy")
    assert port.baudrate == 9600


def test_the_way_in_is_taken_again_until_it_answers(port: SerialPort) -> None:
    toy = Toy(port, ToyProfile(), answers=2)
    toy.connect()
    assert toy._entry.entered == 2


def test_a_mute_part_is_not_told_to_start_anything(port: SerialPort) -> None:
    toy = Toy(port, ToyProfile(), answers=0)
    toy._entry.has_line = False
    with pytest.raises(NoResponse, match=r"no answer on b to its greeting at 9,600 bit/s.*has no modem lines"):
        toy.connect()
    assert toy.calls == ["sync"] * ENTRY_TRIES
    assert port.baudrate == 115_200


@pytest.mark.parametrize(("part", "asked"), [("Other", "Other"), (0xCD, "0x00CD")])
def test_a_part_that_is_refused_is_started_again(port: SerialPort, part: str | int, asked: str) -> None:
    toy = Toy(port, ToyProfile(part=part))
    with pytest.raises(WrongPart, match=rf"the part is a Toy \(0x00AB\), the profile wants {asked}"):
        toy.connect()
    assert toy.calls == ["sync", "start"]
    assert port.baudrate == 115_200


def test_a_part_that_was_there_already_is_not_started_when_it_is_refused(port: SerialPort) -> None:
    toy = Toy(port, ToyProfile(part="Other"))
    toy.is_there = True
    with pytest.raises(WrongPart):
        toy.connect()
    assert toy.calls == ["sync"]
    assert port.baudrate == 115_200


@pytest.mark.parametrize("part", ["toy", "", 0xAB])
def test_a_piece_of_the_name_or_the_number_is_enough(port: SerialPort, part: str | int) -> None:
    assert Toy(port, ToyProfile(part=part)).connect().part == "Toy"


def test_a_part_that_was_changed_stays_in_its_bootloader(port: SerialPort) -> None:
    toy = Toy(port, ToyProfile(part="Other"))
    toy._changed = True
    with pytest.raises(WrongPart):
        toy.connect()
    assert toy.calls == ["sync"]


class TestProbe:
    def probe(self, port: SerialPort, *, active: bool = True) -> State | None:
        found = Toy.probe(port, Address(), ToyProfile(), active=active, deadline=Deadline.after(1))
        return found.state if found is not None else None

    def test_a_bootloader_is_found_and_the_line_is_as_before(self, port: SerialPort) -> None:
        assert self.probe(port) is State.BOOTLOADER
        assert port.baudrate == 115_200

    def test_nothing_is_asked_where_it_must_not_be(self, port: SerialPort, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(Toy, "_sync")
        monkeypatch.setattr(Toy, "__abstractmethods__", frozenset())
        assert self.probe(port, active=False) is None

    def test_a_failure_finds_nothing(self, port: SerialPort, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(toy: Toy) -> bool:
            raise SerialTimeout("nothing came")

        monkeypatch.setattr(Toy, "_sync", fails)
        assert self.probe(port) is None
        assert port.baudrate == 115_200
