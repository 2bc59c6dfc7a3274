"""Two pins bring a part into its bootloader: its reset pin, and a pin that selects the bootloader while the part starts.

The board decides what the modem lines drive and what an asserted line does: the profile says both.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Literal

from ...transports import clock
from ...transports.serial.port import SerialPort
from ..settings import Field, Settings
from .entry import LineSettings, SerialEntry

Output = Literal["dtr", "rts", "none"]


class PinSettings(Settings):
    """Which modem lines drive the pins. A family names the second pin, and its keys, as its makers do."""

    reset: Output = "none"
    """The modem line that resets the part. `"none"`: a person resets the part."""
    reset_asserted: bool = True
    """Whether the asserted line (low on the wire) resets the part."""
    hold: float = Field(default=0.01, gt=0, le=5)
    """Seconds that the reset is held."""
    settle: float = Field(default=0.05, ge=0, le=5)
    """Seconds that the part has to start after the reset."""

    def check_together(self) -> None:
        if self.reset == self.select_line[0] != "none":
            raise ValueError(f"one line, {self.reset}, can't both reset the part and select its bootloader")

    @property
    @abstractmethod
    def select_line(self) -> tuple[Output, bool]:
        """Which line drives the second pin, and whether it selects the bootloader when it is asserted."""

    def at_opening(self, asserted: Mapping[str, bool]) -> Iterator[str]:
        """What the lines do to the part once the port is open. `asserted`: each line's state then."""
        select, selects = self.select_line
        for line, active, does in (
            (self.reset, self.reset_asserted, "hold the part in reset"),
            (select, selects, "have each reset start its bootloader"),
        ):
            if asserted.get(line) == active:
                state = "asserted" if active else "released"
                yield (
                    f"{line.upper()} is {state} from opening the port on, which by the profile's entry would {does}; "
                    f"give the bus {line} = {str(not active).lower()}"
                )


class BootPins(SerialEntry):
    """See SerialEntry. `loader`, `application`: the line settings of each."""

    def __init__(
        self,
        port: SerialPort,
        pins: PinSettings,
        *,
        text: str,
        text_seconds: float,
        loader: LineSettings,
        application: LineSettings,
    ) -> None:
        super().__init__(
            port, text=text, text_seconds=text_seconds, settle=pins.settle, loader=loader, application=application
        )
        self._pins = pins
        self._select_line, self._select_asserted = pins.select_line

    @property
    def resets(self) -> bool:
        return self._pins.reset != "none"

    @property
    def is_wired(self) -> bool:
        """Whether the lines alone choose what starts: they drive both pins."""
        return self.resets and self._select_line != "none"

    def enter(self) -> bool:
        self.send_text()
        driven = self._reset_into(loader=True)
        self.use_loader_settings()
        return driven

    def reset(self) -> bool:
        return self._reset_into(loader=False)

    def let_go(self) -> None:
        """Selects the bootloader no more: what starts at the part's next reset is its own choice. Raises TransportError."""
        self._select(loader=False)

    def _reset_into(self, *, loader: bool) -> bool:
        """Selects what starts, and resets the part where a line does; False where the port hasn't got these lines."""
        pins = self._pins
        driven = self._select(loader=loader)
        if self.resets:
            driven &= self._drive(pins.reset, pins.reset_asserted)
            clock.sleep(pins.hold)
            driven &= self._drive(pins.reset, not pins.reset_asserted)
            clock.sleep(pins.settle)
        return driven

    def _select(self, *, loader: bool) -> bool:
        """Whether the second pin is as wished, or nothing drives it."""
        return self._select_line == "none" or self._drive(self._select_line, loader == self._select_asserted)

    def _drive(self, line: Output, asserted: bool) -> bool:
        return self._port.set_modem(dtr=asserted) if line == "dtr" else self._port.set_modem(rts=asserted)
