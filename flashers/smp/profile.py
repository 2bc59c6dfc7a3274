"""What a bench file says of a part that speaks SMP: its address and its profile."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..flasher import Address, Settings
from .codec import LINE_LENGTH


class SmpAddress(Address):
    """One part is on the bus; `image`: which of its images this component is, 0 for the only or first one."""

    image: int = Field(default=0, ge=0, le=15)


class SmpProfile(Settings):
    """`part`: what the part's platform or name must contain, "" for any. `framing`: of a serial line: "console" for the
    lines of base64 that may stand amid log text, "raw" for bare packets. `line_length`: of a console's lines, in bytes.
    `mode`: whether SMP is answered by the "application" or by MCUboot's serial "recovery"; "auto" tells by what is
    answered. `recovery`: have the application restart into serial recovery, and upload there. `confirm`: whether an
    image that has started is made to stay; without, the next reset brings the old one back. `run_address`: where the
    part runs its image, None where that isn't checked. `slot_size`: in bytes, of a part that doesn't tell it. `buffer`:
    the largest packet in bytes, where the part doesn't tell it. `window`: requests under way at once while uploading.
    Seconds: `answer`, that the part has for an answer; `erase`, for the first piece of an upload, before which it may
    erase the slot; `swap`, that it may take to come back after a reset; `quiet`, for which it
    then must be silent before it is spoken to."""

    part: str = ""
    framing: Literal["console", "raw"] = "console"
    line_length: int = Field(default=LINE_LENGTH, ge=16, le=8192)
    mode: Literal["auto", "application", "recovery"] = "auto"
    recovery: bool = False
    confirm: bool = True
    run_address: int | None = Field(default=None, ge=0, le=0xFFFF_FFFF)
    slot_size: int = Field(default=0x0100_0000, gt=0, le=0xFFFF_FFFF)
    buffer: int = Field(default=384, ge=96, le=0x1_0000)
    window: int = Field(default=1, ge=1, le=64)
    answer: float = Field(default=2.0, gt=0, le=60)
    erase: float = Field(default=40.0, gt=0, le=600)
    swap: float = Field(default=120.0, gt=0, le=1800)
    quiet: float = Field(default=1.0, ge=0, le=60)
