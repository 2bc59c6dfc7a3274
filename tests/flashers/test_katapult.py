"""Katapult's flashers: what passes on the bus, what the rest of the bus feels, and what they refuse."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import can
import pytest
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.katapult.can import KatapultCanDevice
from proxyflash.emulators.katapult.parts import parts as boards
from proxyflash.emulators.replay.session import Replay
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.benchfile.schema import load
from proxyflash.enumerators.component import Presence
from proxyflash.enumerators.described import describers
from proxyflash.flashers.describing import described
from proxyflash.flashers.errors import (
    NoResponse,
    OperationFailed,
    PartRefused,
    ProfileWrong,
    ProtocolError,
    WrongPart,
)
from proxyflash.flashers.katapult import can as katapult_can
from proxyflash.flashers.katapult.can_link import AdminChannel
from proxyflash.flashers.katapult.client import BUSY_SECONDS, TRIES, Client, Link
from proxyflash.flashers.katapult.codec import About, Command, Result, message, word
from proxyflash.flashers.katapult.discovery import KatapultDiscovery
from proxyflash.flashers.katapult.parts import memory_of, part_of, parts
from proxyflash.flashers.katapult.profile import KatapultCanAddress, KatapultCanProfile, KatapultProfile
from proxyflash.testing.rig import Rig, settled
from proxyflash.tests.flashers.test_contract import KINDS
from proxyflash.tests.flashers.test_contract import TestKatapultCan as Kind
from proxyflash.transports import clock
from proxyflash.transports.can.bus import CanBus
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.recording.formats import Recording
from proxyflash.transports.recording.recorder import Recorder

START = 0x08002000


# One request and its answer.


class Scripted(Link):
    """Answers each message with the next bytes of a script."""

    name = "scripted"

    def __init__(self, *script: bytes) -> None:
        self.script = list(script)
        self.sent: list[bytes] = []
        self._left: list[bytes] = []

    def seconds(self, count: int) -> float:
        return 0.0

    def send(self, data: bytes, deadline: Deadline) -> None:
        self.sent.append(data)
        self._left = [self.script.pop(0)] if self.script else []

    def receive(self, deadline: Deadline) -> bytes:
        if self._left:
            return self._left.pop()
        clock.sleep(deadline.remaining)
        return b""

    def resync(self) -> None:
        self._left = []


def acknowledged(command: int, payload: bytes = b"") -> bytes:
    return message(Result.ACKNOWLEDGED, word(command) + payload)


BLOCK = acknowledged(Command.SEND_BLOCK, word(START))


@pytest.mark.parametrize(
    "first",
    [b"", message(Result.NACK), message(Result.COMMAND_ERROR), message(Result.BUSY), BLOCK[:9], BLOCK[:-3] + b"\0\0\0"],
    ids=["lost", "nack", "error", "busy", "cut", "garbled"],
)
def test_a_block_is_sent_again(first: bytes) -> None:
    link = Scripted(first, BLOCK)
    Client(link, 0.1).send_block(START, bytes(64), 0.0)
    assert len(link.sent) == 2
    assert link.sent[0] == link.sent[1]


def test_late_answers_are_not_taken_for_another_blocks() -> None:
    """That of an earlier block, and of another command, come first."""
    late = acknowledged(Command.SEND_BLOCK, word(START - 64)) + acknowledged(Command.EOF, word(1))
    link = Scripted(late + BLOCK)
    Client(link, 0.1).send_block(START, bytes(64), 0.0)
    assert len(link.sent) == 1
    link = Scripted(late)
    with pytest.raises(NoResponse):
        Client(link, 0.1).send_block(START, bytes(64), 0.0)


@pytest.mark.parametrize(
    ("answer", "error", "passes"),
    [
        (message(Result.NACK), ProtocolError, None),
        (message(Result.COMMAND_ERROR), OperationFailed, None),
        (message(0xF9), ProtocolError, None),
        (b"", NoResponse, True),
    ],
)
def test_what_stays_wrong_is_an_error(answer: bytes, error: type[Exception], passes: bool | None) -> None:
    link = Scripted(*[answer] * 20)
    with pytest.raises(error) as caught:
        Client(link, 0.1).send_block(START, bytes(64), 0.0)
    assert len(link.sent) == TRIES
    assert caught.value.passes is passes  # type: ignore[attr-defined]


def test_a_bootloader_that_stays_busy_is_given_up() -> None:
    began = clock.monotonic()
    with pytest.raises(PartRefused, match="busy"):
        Client(Scripted(*[message(Result.BUSY)] * 1000), 0.1).send_block(START, bytes(64), 0.0)
    assert BUSY_SECONDS <= clock.monotonic() - began < BUSY_SECONDS + 1


def test_a_block_of_another_size_is_not_the_memory() -> None:
    short = acknowledged(Command.REQUEST_BLOCK, word(START) + bytes(60))
    with pytest.raises(ProtocolError, match="64 bytes"):
        Client(Scripted(short), 0.1).request_block(START, 64)


# Parts.


def on(mcu: str, start: int = START) -> About:
    return About("1.1.0", start, 64, mcu, "")


@pytest.mark.parametrize("board", boards())
def test_the_emulated_boards_have_the_units_that_the_flasher_takes(board: str) -> None:
    """Of an STM32F103 pages of 2 KiB: whether it has pages of 1 KiB is not reported."""
    row = boards()[board]
    about = on(row["mcu"], row["start"])
    (region,) = memory_of(part_of(about, KatapultProfile()), about).regions
    units = [unit.size for unit in region.erase_units(region.start, region.end)]
    sizes = [size for count, size in row["sectors"] for _ in range(count)]
    own = sizes[-len(units) :]
    factor = 2 if "f103" in row["mcu"] else 1
    assert region.start == row["start"]
    assert units[:3] == [factor * size for size in own][:3] or row["mcu"] == "rp2040"


def test_what_is_not_known_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ProfileWrong, match="stm32u585"):
        part_of(on("stm32u585"), KatapultProfile())
    found = part_of(on("stm32u585"), KatapultProfile(page_size=8192, flash_size=0x20000))
    (region,) = memory_of(found, on("stm32u585")).regions
    assert (region.start, region.size) == (START, 0x1E000)
    with pytest.raises(WrongPart, match="takes blocks"):
        part_of(on("lpc1769", 0x4000), KatapultProfile(page_size=4096, flash_size=0x80000))


@pytest.mark.parametrize("start", [0x08000200, 0x08020200, 0x4000, 0x0800_0000 - 64])
def test_an_application_within_an_erase_unit_is_refused(start: int) -> None:
    """Katapult would never erase that unit: its first block is not the application's. Below the flash there is no unit."""
    about = on("stm32f407xx", start)
    with pytest.raises(ProfileWrong, match="not the start of an erase unit"):
        memory_of(part_of(about, KatapultProfile()), about)


def test_each_row_of_parts_is_the_first_that_fits() -> None:
    for part in parts():
        assert next(row for row in parts() if part.mcu.startswith(row.mcu)) is part


def test_a_uuid_may_be_written_without_leading_zeros() -> None:
    assert KatapultCanAddress(uuid="D1A5E7C0DE").uuid == "00d1a5e7c0de"
    assert KatapultCanAddress(uuid="0").raw == bytes(6)


# On the bus.


@pytest.mark.parametrize("board", boards())
@pytest.mark.parametrize("size", [400, 5000])
def test_each_board(board: str, size: int, tmp_path: Path) -> None:
    kind = type("Board", (Kind,), {"emulated": {"part": board}})()
    rig = Rig(kind, tmp_path, size=size)
    with rig.powered() as bench:
        result = rig.ends_with_the_new_image(bench)
        assert result.written_bytes
        assert rig.verify(bench, rig.image) == "read back"


def test_the_first_page_is_spoilt_first_and_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(Kind(), tmp_path, size=5000)
    sent: list[tuple[int, bytes]] = []
    send_block = Client.send_block

    def seen(self: Client, address: int, data: bytes, seconds: float) -> None:
        sent.append((address, data))
        send_block(self, address, data, seconds)

    monkeypatch.setattr(Client, "send_block", seen)
    with rig.powered() as bench:
        rig.ends_with_the_new_image(bench)
    addresses = [address for address, _ in sent]
    last = START + (5000 - 1) // 64 * 64
    assert sent[0] == (START, b"\xff\xff\xff\xff" + bytes(60))
    assert addresses[1:] == [*range(START + 2048, last + 1, 64), *range(START, START + 2048, 64)]


def test_blank_blocks_are_not_sent_but_for_the_first_of_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(Kind(), tmp_path, size=400)
    image = struct.pack("<II", 0x20004000, START + 0x101) + bytes(0x400)
    image = image.ljust(4096, b"\xff") + b"\xff" * 1024 + b"end"
    (tmp_path / "gap.bin").write_bytes(image)
    sent: list[int] = []
    send_block = Client.send_block

    def seen(self: Client, address: int, data: bytes, seconds: float) -> None:
        sent.append(address)
        send_block(self, address, data, seconds)

    monkeypatch.setattr(Client, "send_block", seen)
    with rig.powered() as bench:
        component = bench.component("part")
        with component.programmer() as programmer:
            programmer.flash(programmer.plan(component.load(tmp_path / "gap.bin", address=START)), boot=False)
        flash = bench.emulated_device("part").flash
        assert flash.read(START, len(image)) == image
    assert [at - START for at in sent if at >= START + 1088] == [4096, 5120]


class Nodes:
    """Many nodes on one bus, and the host's adapter."""

    def __init__(self, uuids: Sequence[str], *, pace: float = 1, firmware: Path | None = None) -> None:
        self.wire = CanWire("katapult nodes", bitrate=500_000, pace=pace)
        settings = {"part": "toolhead-f072", **({"firmware": firmware.name} if firmware else {})}
        folder = firmware.parent if firmware else Path()
        self.devices = [
            KatapultCanDevice.attach(
                DeviceSpec(uuid, address={"uuid": uuid}, settings=settings, firmware_folder=folder, pace=pace),
                self.wire,
            )
            for uuid in uuids
        ]
        self.bus = CanBus.open("b", self.wire.host_settings())
        for device in self.devices:
            device.settle()

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *exc: object) -> None:
        self.bus.close()
        for device in self.devices:
            device.close()
        self.wire.close()

    def answering(self) -> set[str]:
        """Who answers the query: nodes without a node id."""
        admin = AdminChannel(self.bus)
        try:
            return {uuid.hex() for uuid in admin.query(Deadline.after(0.5))}
        finally:
            admin.close()


UUIDS = [f"{number * 0x10203040501:012x}" for number in range(1, 65)]


def test_a_scan_finds_64_nodes_in_two_seconds_and_leaves_them_as_they_were() -> None:
    with Nodes(UUIDS) as nodes:
        began = clock.monotonic()
        found = KatapultDiscovery.discover(nodes.bus, [], active=True, deadline=Deadline.after(5))
        assert clock.monotonic() - began < 2
        assert sorted(part.address for part in found) == sorted(f'uuid = "{uuid}"' for uuid in UUIDS)
        assert all("in its bootloader stm32f072xb v0.0.1" in part.title for part in found)
        assert nodes.answering() == set(UUIDS), "a node has kept its node id"


def test_without_leave_nothing_is_sent() -> None:
    with Nodes(UUIDS[:1]) as nodes:
        frames = nodes.wire.frames
        assert KatapultDiscovery.discover(nodes.bus, [], active=False, deadline=Deadline.after(1)) == []
        assert nodes.wire.frames == frames


def test_listed_nodes_are_left_out_and_applications_are_named(tmp_path: Path) -> None:
    firmware = tmp_path / "app.bin"
    firmware.write_bytes(struct.pack("<II", 0x20004000, START + 0x101) + bytes(0x400))
    with Nodes(UUIDS[:2], firmware=firmware) as nodes:
        listed = [KatapultCanAddress(uuid=UUIDS[0].lstrip("0"))]
        (found,) = KatapultDiscovery.discover(nodes.bus, listed, active=True, deadline=Deadline.after(1))
        assert found.title == f"{UUIDS[1]}  runs its application"


def test_others_keep_their_node_ids() -> None:
    """What another host does on the bus goes on while this one looks and lets go."""
    with Nodes(UUIDS[:2], pace=0) as nodes:
        one, other = nodes.devices
        address = KatapultCanAddress(uuid=UUIDS[0])
        admin = AdminChannel(nodes.bus)
        admin.send(bytes.fromhex("11" + UUIDS[1] + "ff"))
        clock.sleep(0.1)
        held = other.node.assigned
        assert held
        identity = katapult_can.identity_of(nodes.bus, address, KatapultCanProfile())
        clock.sleep(0.1)
        admin.close()
        assert identity.part == "stm32f072xb"
        assert (one.node.assigned, other.node.assigned) == (0, held)


def test_two_nodes_at_once_get_two_node_ids() -> None:
    """Also where their UUIDs would give the same."""
    uuids = ["000000000001", "000000000081"]
    with Nodes(uuids, pace=0) as nodes:
        flashers = [
            katapult_can.KatapultCanFlasher.attach(nodes.bus, KatapultCanAddress(uuid=uuid), KatapultCanProfile())
            for uuid in uuids
        ]
        for flasher in flashers:
            assert flasher.connect().serial in uuids
        assert len({device.node.assigned for device in nodes.devices}) == 2
        for flasher in flashers:
            flasher.close()
        clock.sleep(0.1)
        assert nodes.answering() == set(uuids)


def test_a_node_that_answers_for_another_is_refused() -> None:
    with Nodes(UUIDS[:1], pace=0) as nodes:
        flasher = katapult_can.KatapultCanFlasher.attach(
            nodes.bus, KatapultCanAddress(uuid=UUIDS[0]), KatapultCanProfile()
        )
        request = flasher._client.request
        flasher._client.request = lambda command, *rest, **keys: (  # type: ignore[method-assign]
            bytes(8) if command == Command.GET_CANBUS_ID else request(command, *rest, **keys)
        )
        with pytest.raises(WrongPart, match=UUIDS[0]):
            flasher.connect()
        flasher.close()


def test_a_node_id_that_another_host_clears_is_given_again(tmp_path: Path) -> None:
    """Message 12 clears the ids of all bootloaders: flashtool.py begins with it."""
    rig = Rig(Kind(), tmp_path, size=5000, pace=1)
    with rig.powered() as bench:
        wire = bench.emulated_wire("b")
        node = wire.attach("another host", lambda frame: None)
        frames = 0

        def hears(frame: can.Message) -> None:
            nonlocal frames
            frames += 1
            if frames % 400 == 0:
                node.send(can.Message(arbitration_id=0x3F0, is_extended_id=False, data=b"\x12"), timeout=0)

        node.receive = hears
        rig.ends_with_the_new_image(bench)
        node.detach()


def test_what_is_not_known_of_a_board_that_was_cut_is_not_claimed(tmp_path: Path) -> None:
    """It does not boot while pages behind its first one are written; while the first one is, it may."""
    rig = Rig(Kind(), tmp_path, size=3000)
    said = []
    with rig.powered() as bench:
        total = rig.course().operations
    for operation in (total // 4, total - 400):
        with rig.powered() as bench:
            device = bench.emulated_device("part")
            device.supply.cut_at(operation)
            error = rig.error(bench)
            assert error is not None
            assert error.left is not None
            said.append((error.left.boots, device.flash.read(START, 4) == b"\xff\xff\xff\xff"))
    assert said == [(False, True), (None, False)]


@pytest.mark.parametrize("protocol", ["katapult-can", "katapult-uart"])
def test_a_recorded_flash_replays(protocol: str, tmp_path: Path) -> None:
    """On simulated time: on a busy machine an answer may come after the request was repeated, and a replay has no such wait."""
    rig = Rig(KINDS[protocol](), tmp_path, size=3000, pace=1)
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
    file = load(tmp_path / "bench.toml")
    words = [line.words for line in described(recorder.records(), describers(file))]
    assert "SEND BLOCK 0x08002000: FF FF FF FF 00 00 00 00 00 00 00 00 00 00 00 00 ... (64 bytes)" in words
    assert "acknowledged COMPLETE" in words


BENCH = """
[bus.b]
kind = "can"
bitrate = 500_000
emulated = true
pace = 1
"""


@pytest.fixture
def eight(tmp_path: Path) -> Iterator[tuple[Bench, Path]]:
    text = BENCH
    for number in range(8):
        text += f"""
[[component]]
name = "head{number}"
bus = "b"
protocol = "katapult-can"
address = {{uuid = "{UUIDS[number]}", version_request = {0x120 + 2 * number}, version_response = {0x121 + 2 * number}}}
profile = {{version = {{match = "FW ([0-9.]+)"}}}}
emulated = {{part = "toolhead-f072", firmware = "old.bin"}}
"""
    kind = Kind()
    (tmp_path / "bench.toml").write_text(text.replace(', firmware = "old.bin"', ""))
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as bench:
        device = bench.emulated_device("head0")
        (tmp_path / "old.bin").write_bytes(kind.firmware(device, "1.4.2", 1000))
        (tmp_path / "new.bin").write_bytes(kind.firmware(device, "1.5.0", 6000))
    for path in (tmp_path / "state").rglob("*.flash"):
        path.unlink()
    (tmp_path / "bench.toml").write_text(text)
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as bench:
        yield bench, tmp_path / "new.bin"


def test_eight_parts_on_one_bus_at_once(eight: tuple[Bench, Path]) -> None:
    bench, image = eight
    versions: dict[str, str | None] = {}

    def flash(name: str) -> float:
        began = clock.monotonic()
        versions[name] = bench.component(name).flash(image, address=START).version
        return clock.monotonic() - began

    alone = flash("head0")
    wire = bench.emulated_wire("b")
    began, busy = clock.monotonic(), wire.busy_seconds
    threads = [clock.Thread(target=flash, args=(f"head{number}",)) for number in range(1, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = clock.monotonic() - began
    assert versions == {f"head{number}": "1.5.0" for number in range(8)}
    # What one part's flash takes is another part's time on the bus.
    assert together < 0.8 * 7 * alone
    assert (wire.busy_seconds - busy) / together < 1.0


def test_eight_parts_are_looked_at_and_run_on(eight: tuple[Bench, Path]) -> None:
    bench, _ = eight
    operations = [bench.emulated_device(f"head{number}").supply.operations for number in range(8)]
    components = bench.scan().components
    assert {(component.presence, component.version) for component in components} == {(Presence.OK, "1.4.2")}
    assert operations == [bench.emulated_device(f"head{number}").supply.operations for number in range(8)]


def test_a_hung_board_says_what_a_person_does(tmp_path: Path) -> None:
    rig = Rig(Kind(), tmp_path)
    with rig.powered() as bench:
        device = bench.emulated_device("part")
        device.flash.load(START + 0x140, b"\xff" * 64)
        device.reset()
        device.settle()
        error = rig.error(bench)
        assert isinstance(error, NoResponse)
        assert "two resets" in str(error)
        Kind().by_hand(device)
        rig.ends_with_the_new_image(bench)
