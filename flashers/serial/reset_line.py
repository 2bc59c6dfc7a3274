"""One modem line resets the part; its bootloader runs after each reset, and waits a while before it starts the application."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from ...transports import clock
from ...transports.serial.port import SerialPort
from ..settings import Field, Settings


class ResetSettings(Settings):
    """How a modem line resets the part."""

    reset: Literal["dtr", "rts", "both", "none"] = "dtr"
    """The modem lines that reset the part. `"none"`: a person resets the part."""
    wiring: Literal["capacitor", "direct"] = "capacitor"
    """`"capacitor"`: the edge of the line makes a short pulse, as on Arduino boards (100 nF between DTR and the reset
    pin). `"direct"`: the part is in reset as long as the line is."""
    asserted: bool = True
    """Whether the asserted line (low on the wire) resets the part."""
    discharge: float = Field(default=0.25, ge=0, le=5)
    """Seconds for which the line is released before a pulse through a capacitor."""
    hold: float = Field(default=0.01, gt=0, le=5)
    """Seconds that a direct reset is held."""
    settle: float = Field(default=0.05, ge=0, le=5)
    """Seconds that the bootloader has to start after the reset."""

    def at_opening(self, asserted: Mapping[str, bool]) -> Iterator[str]:
        """What the lines do to the part when the port is opened. `asserted`: each line's state then."""
        if self.reset == "none":
            return
        by_edge = self.wiring == "capacitor"
        for line in ("dtr", "rts") if self.reset == "both" else (self.reset,):
            # Before, both lines are released: only what is asserted makes an edge.
            if asserted[line] == self.asserted and not (by_edge and not self.asserted):
                does = "resets the part each time" if by_edge else "holds the part in reset"
                yield (
                    f"opening the port leaves {line.upper()} {'asserted' if self.asserted else 'released'}, which by the "
                    f"profile's entry {does}; give the bus {line} = {str(not self.asserted).lower()}"
                )


class ResetLine:
    """The reset pin of the part on `port`."""

    def __init__(self, port: SerialPort, settings: ResetSettings) -> None:
        self._port = port
        self._settings = settings

    @property
    def is_driven(self) -> bool:
        """Whether a line drives the reset pin."""
        return self._settings.reset != "none"

    def pulse(self) -> bool:
        """Resets the part; False where the port hasn't got the line. Raises TransportError."""
        settings = self._settings
        by_edge = settings.wiring == "capacitor"
        driven = self._drive(settings.asserted != by_edge)
        if driven:
            clock.sleep(settings.discharge if by_edge else settings.hold)
            self._drive(settings.asserted == by_edge)
        clock.sleep(settings.settle)
        return driven

    def _drive(self, asserted: bool) -> bool:
        reset = self._settings.reset
        return self._port.set_modem(
            dtr=asserted if reset in ("dtr", "both") else None,
            rts=asserted if reset in ("rts", "both") else None,
        )
