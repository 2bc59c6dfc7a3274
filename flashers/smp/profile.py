"""What a bench file says of a part that speaks SMP: its address and its profile."""

from __future__ import annotations

from typing import Literal

from ...transports.serial import MOST_RATE
from ..flasher import Address
from ..settings import Field, Settings
from .codec import LINE_LENGTH


class SmpAddress(Address):
    """One part is on the bus. A component is one of the part's images."""

    image: int = Field(default=0, ge=0, le=15)
    """Number of the part's image. 0: the only or first one."""


class SmpProfile(Settings):
    """How a part that speaks SMP differs from the usual."""

    part: str = ""
    """A text that the part's platform or name must contain (`"nrf52840dk"`). "": any part."""
    framing: Literal["console", "raw"] = "console"
    """Framing on a serial line: `"console"` (lines of base64, between which log text may stand) or `"raw"` (bare
    packets). Without effect over UDP."""
    line_length: int = Field(default=LINE_LENGTH, ge=16, le=8192)
    """Bytes of a console line. Give more than 127 only if the part's line buffer is larger. Without effect over UDP."""
    mode: Literal["auto", "application", "recovery"] = "auto"
    """Who answers: the `"application"`, or MCUboot's serial `"recovery"`. `"auto"`: depends on the answer."""
    recovery: bool = False
    """Whether the application is restarted into serial recovery for the upload."""
    recovery_baudrate: int | None = Field(default=None, ge=1, le=MOST_RATE)
    """Bit rate of serial recovery. Default: that of the application, which is the `baudrate` of the bus. No effect over UDP."""
    confirm: bool = True
    """Whether the image is made permanent once it runs. If false, the next reset brings the old image back."""
    run_address: int | None = Field(default=None, ge=0, le=0xFFFF_FFFF)
    """Address at which the part runs its image. An image that starts elsewhere is refused. Default: not checked."""
    slot_size: int = Field(default=0x0100_0000, gt=0, le=0xFFFF_FFFF)
    """Bytes of the slot, for a part that does not report them."""
    buffer: int = Field(default=384, ge=96, le=0x1_0000)
    """Bytes of the largest packet, for a part that does not report them. MCUboot's recovery has 512 or 1024."""
    window: int = Field(default=1, ge=1, le=64)
    """Requests under way at the same time while uploading. Never more than the part has buffers."""
    answer: float = Field(default=2.0, gt=0, le=60)
    """Seconds that the part has for an answer."""
    erase: float = Field(default=40.0, gt=0, le=600)
    """Seconds for the first piece of an upload, before which the part may erase the slot."""
    swap: float = Field(default=120.0, gt=0, le=1800)
    """Seconds until the part answers again after a reset, in which MCUboot may swap the slots."""
    quiet: float = Field(default=1.0, ge=0, le=60)
    """Seconds for which a part that starts must be silent before anything is sent to it."""
