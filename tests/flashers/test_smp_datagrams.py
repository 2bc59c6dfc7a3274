"""Something happens at every datagram between the SMP flasher and a part on a network; then the same command again.

After any of it the part runs all of the old image or of the new one, and the same command, run again, ends with the new
image, confirmed. The network and the part are of this process: a kernel's socket has no simulated time.
"""

from __future__ import annotations

import io
from enum import StrEnum

import pytest
from proxyflash.flashers.formats import mcuboot
from proxyflash.flashers.programmer import Programmer
from proxyflash.flashers.smp.profile import SmpAddress, SmpProfile
from proxyflash.flashers.smp.udp import SmpUdpFlasher
from proxyflash.tests.flashers.smp_application import NEW, OLD, Application
from proxyflash.transports import clock
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import ProxyflashError
from proxyflash.transports.udp import UdpSocket


class How(StrEnum):
    """What happens at a datagram."""

    LOST = "lost"
    DOUBLED = "doubled"
    UNPLUGGED = "unplugged"
    """From this datagram on all are lost, until the command has failed."""
    SUPPLY = "supply"
    """As `UNPLUGGED`; and the part has restarted when the command has failed."""
    RESTART = "restart"
    """The part restarts instead of taking or sending the datagram."""


class Network(UdpSocket):
    """A socket that is connected to the part. `take`: how long a datagram takes, in seconds."""

    def __init__(self, part: Application, take: float) -> None:
        self.name = "lan"
        self.part = part
        self.take = take
        self.units = 0
        self.at = 0
        """The datagram at which it happens, counted from 1; 0: none."""
        self.how = How.LOST
        self._coming: list[bytes] = []

    def send(self, data: bytes) -> None:
        resets = self.part.resets
        for request in self._carried(data):
            clock.sleep(self.take)
            if self.part.resets == resets:  # What comes after a reset was asked for is lost with it.
                self._coming += self._carried(self.part.answer(request))

    def receive(self, deadline: Deadline | float) -> bytes | None:
        clock.sleep(self.take if self._coming else Deadline.of(deadline).remaining)
        return self._coming.pop(0) if self._coming else None

    def drain(self) -> None:
        self._coming.clear()

    def close(self) -> None:
        """There is nothing to close."""

    def mend(self) -> None:
        if self.how is How.SUPPLY:
            self.part.restart()
        self.at = 0
        self.drain()

    def _carried(self, data: bytes) -> list[bytes]:
        self.units += 1
        if not self.at or self.units < self.at:
            return [data]
        if self.how in (How.UNPLUGGED, How.SUPPLY):
            return []
        if self.units > self.at:
            return [data]
        if self.how is How.RESTART:
            self.part.restart()
        return [data] * 2 if self.how is How.DOUBLED else []


def flash(network: Network) -> None:
    profile = SmpProfile.model_validate({"answer": 0.3, "quiet": 0.01, "erase": 1, "window": 2, "swap": 20})
    programmer = Programmer(SmpUdpFlasher.attach(network, SmpAddress(), profile), "weather")
    try:
        programmer.flash(programmer.plan(mcuboot.read(io.BytesIO(NEW), "new.bin")))
    finally:
        programmer.bootloader.close()


@pytest.mark.parametrize("how", How)
@pytest.mark.parametrize("take", [0.0, 0.002])
def test_at_every_datagram(how: How, take: float, request: pytest.FixtureRequest) -> None:
    whole = Network(Application(), take)
    flash(whole)
    assert whole.units > 20
    failures = 0
    for unit in range(1, whole.units + 1):
        part = Application()
        network = Network(part, take)
        network.at, network.how = unit, how
        try:
            flash(network)
        except ProxyflashError:
            failures += 1
        assert network.units >= unit
        network.mend()
        assert part.running in (OLD, NEW)
        flash(network)
        assert (part.running, part.confirmed) == (NEW, True)
    # One datagram is made up for; without a part no command but a finished one ends well.
    assert failures == 0 if how in (How.LOST, How.DOUBLED) else failures > 0
    request.node.user_properties.append(("cuts", whole.units))
