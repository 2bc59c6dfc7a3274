"""An ECU whose answers never end: one consecutive frame just before each time-out (ISO 15765-2:2016, table 16: N_Cr is
1 s). A scan gives it a few seconds, and a flash waits as long as before."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing, nullcontext

import can
import pytest
from proxyflash.emulators.can.wire import CanWire
from proxyflash.flashers.uds.discovery import DISCOVER_RUN_ON, SIGHT_RUN_ON, Found, discover
from proxyflash.flashers.uds.flasher import UdsFlasher
from proxyflash.flashers.uds.profile import UdsAddress, UdsProfile
from proxyflash.transports import clock
from proxyflash.transports.can.bus import CanBus
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import IsoTpTimeout
from proxyflash.transports.isotp.opening import RUN_ON_SECONDS, IsoTpChannel, IsoTpOptions

pytestmark = pytest.mark.simulated_time

SIGHT_SECONDS = 2.0
PERIOD = 0.9
CLOSE = 1.5
"""Seconds that the last wait for a frame and the last request may add."""


class Ecu:
    """Answers each request with `head`, then with consecutive frames every `period` seconds, `frames` of them."""

    def __init__(self, wire: CanWire, response: int, head: str, frames: int = 4000, period: float = PERIOD) -> None:
        self._node = wire.attach(f"ecu-{response:x}", self._hear)
        self._response = response
        self._head = bytes.fromhex(head)
        self._frames = frames
        self._period = period
        self._asked = clock.Event()
        self._closed = False
        self._thread = clock.Thread(target=self._run, name=f"ecu {response:x}")
        self._thread.start()

    def _hear(self, message: can.Message) -> None:
        if message.arbitration_id == 0x7DF:
            self._say(b"\x02\x7e\x00")
        elif message.arbitration_id == self._response - 8 and message.data[0] >> 4 == 0:
            self._asked.set()

    def _run(self) -> None:
        while self._asked.wait() and not self._closed:
            self._asked.clear()
            self._say(self._head)
            for number in range(1, self._frames + 1):
                clock.sleep(self._period)
                if self._closed:
                    return
                self._say(bytes((0x20 | number % 16,)) + b"1234567")

    def _say(self, data: bytes) -> None:
        self._node.send(can.Message(arbitration_id=self._response, data=data, is_extended_id=False))

    def close(self) -> None:
        self._closed = True
        self._asked.set()
        self._thread.join()


class Rig:
    def __init__(self) -> None:
        self.wire = CanWire(f"drip-{uuid.uuid4().hex}", pace=0.0)
        self.bus = CanBus.open("drip", self.wire.host_settings())
        self.ecus: list[Ecu] = []

    def ecu(self, response: int, head: str, frames: int = 4000, period: float = PERIOD) -> None:
        self.ecus.append(Ecu(self.wire, response, head, frames, period))

    def close(self) -> None:
        for ecu in self.ecus:
            ecu.close()
        self.bus.close()
        self.wire.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


@pytest.mark.parametrize(
    "head",
    ["1f ff 62 f1 86 03 00 00", "10 00 00 0f ff ff 62 f1", "1f ff 7f 22 78 00 00 00", "1f ff 50 03 00 00 00 00"],
    ids=["of 4,095 bytes", "of 1 MiB", "as if it were pending", "as the answer to another request"],
)
def test_a_scan_waits_a_few_seconds_for_an_answer_that_never_ends(rig: Rig, head: str) -> None:
    rig.ecu(0x7E8, head)
    address, profile = UdsAddress(request=0x7E0), UdsProfile()
    began = clock.monotonic()
    UdsFlasher.probe(rig.bus, address, profile, active=False, deadline=Deadline.after(SIGHT_SECONDS))
    assert clock.monotonic() - began < SIGHT_SECONDS + SIGHT_RUN_ON + CLOSE


def test_foreign_answers_that_end_late_do_not_add_up(rig: Rig) -> None:
    """Each message ends, and is not an answer: the next one begins at once."""
    rig.ecu(0x7E8, "10 0c 50 03 00 00 00 00", frames=1)
    address, profile = UdsAddress(request=0x7E0), UdsProfile()
    began = clock.monotonic()
    UdsFlasher.probe(rig.bus, address, profile, active=False, deadline=Deadline.after(SIGHT_SECONDS))
    assert clock.monotonic() - began < SIGHT_SECONDS + SIGHT_RUN_ON + CLOSE


def test_ecus_that_drip_keep_no_other_from_being_found(rig: Rig) -> None:
    rig.ecu(0x7E8, "1f ff 62 f1 8c 41 41 41")
    rig.ecu(0x7E9, "1f ff 62 f1 8c 41 41 41")
    rig.ecu(0x7EA, "06 62 f1 8c 52 41 31", frames=0)
    began = clock.monotonic()
    found = discover(rig.bus, deadline=Deadline.after(SIGHT_SECONDS))
    assert clock.monotonic() - began < SIGHT_SECONDS + DISCOVER_RUN_ON + CLOSE
    assert [(item.response.value, item.serial) for item in found] == [(0x7E8, ""), (0x7E9, ""), (0x7EA, "RA1")]


def test_many_ecus_that_drip_share_one_time(rig: Rig) -> None:
    for response in range(0x7E8, 0x7F0):
        rig.ecu(response, "1f ff 62 f1 8c 41 41 41")
    began = clock.monotonic()
    found: list[Found] = discover(rig.bus, deadline=Deadline.after(SIGHT_SECONDS))
    assert len(found) == 8
    assert clock.monotonic() - began < SIGHT_SECONDS + DISCOVER_RUN_ON + 8 * 2 * CLOSE


def test_an_identifier_at_the_slowest_rate_of_the_standard_is_read(rig: Rig) -> None:
    """17 characters, as those of a vehicle's number, in a first frame and two more."""
    rig.ecu(0x7E8, "10 11 62 f1 8c 41 41 41", frames=2)
    found = discover(rig.bus, deadline=Deadline.after(SIGHT_SECONDS))
    assert [item.serial for item in found] == ["AAA12345671234"]


def test_what_is_no_scan_waits_as_long_as_before(rig: Rig) -> None:
    rig.ecu(0x7E8, "1f ff 62 f1 86 03 00 00")
    channel = IsoTpChannel.open(rig.bus, UdsAddress(request=0x7E0).isotp(), IsoTpOptions())
    channel.send(b"\x22\xf1\x86", Deadline.after(1.0))
    began = clock.monotonic()
    with pytest.raises(IsoTpTimeout, match="did not end its message within 60 s"):
        channel.recv(Deadline.after(1.0))
    channel.close()
    assert RUN_ON_SECONDS <= clock.monotonic() - began < RUN_ON_SECONDS + 1.0 + CLOSE


@pytest.mark.parametrize(("latency", "answered"), [(0.2, False), (1.5, True)])
def test_a_wire_that_adds_seconds_adds_them_to_each_frame(rig: Rig, latency: float, answered: bool) -> None:
    rig.ecu(0x7E8, "10 11 62 f1 8c 41 41 41", frames=2, period=2.0)
    profile = UdsProfile.model_validate({"timings": {"latency": latency, "retries": 0}})
    flasher = UdsFlasher.attach(rig.bus, UdsAddress(request=0x7E0), profile)
    with closing(flasher), nullcontext() if answered else pytest.raises(IsoTpTimeout):
        assert flasher._connection.client.request(b"\x22\xf1\x8c") == b"AAA12345671234"
