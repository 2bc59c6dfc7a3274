"""What a bench file says of a loader with a menu or a command line that takes a file by XMODEM or YMODEM: its profile.

Patterns are regular expressions over what the loader says, bytes taken as they come. In a step's text and patterns, and
in `success`, four words stand for what is known once there is an image: `<size>` its bytes, in decimal digits,
`<size-hex>` in hexadecimal, `<sent>` its bytes with the last block's padding, `<crc32>` its CRC-32 (ISO-HDLC) as eight
small hexadecimal digits.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from ..flasher import Address, Settings
from ..serial.boot_pins import Output, PinSettings
from ..serial.profile import SerialProfile

WORDS = ("size", "size-hex", "sent", "crc32")


def _is_pattern(text: str) -> str:
    try:
        re.compile(filled(text, dict.fromkeys(WORDS, "0")).encode())
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"no regular expression: {error}") from error
    return text


def _has_group(text: str) -> str:
    if text and re.compile(text.encode()).groups < 1:
        raise ValueError("the pattern needs one group, around the version")
    return text


Pattern = Annotated[str, Field(max_length=1000), AfterValidator(_is_pattern)]


def filled(text: str, words: dict[str, str]) -> str:
    """The text with what its words stand for."""
    for word, value in words.items():
        text = text.replace(f"<{word}>", value)
    return text


class Step(Settings):
    """`send`: what the loader is sent; `expect`: what it then says, "" for nothing that is waited for; `seconds`: how
    long that may take."""

    send: str = ""
    expect: Pattern = ""
    seconds: float = Field(default=10.0, gt=0, le=600)


class XymodemPins(PinSettings):
    """How the modem lines bring the part into its loader. `select`: which line selects the loader while the part starts,
    "none" for by hand. `select_asserted`: whether the line asserted (low on the wire) is what selects it."""

    select: Output = "none"
    select_asserted: bool = True

    @property
    def select_line(self) -> tuple[Output, bool]:
        return self.select, self.select_asserted


class Timings(Settings):
    """Seconds. `connect`: for all of bringing the loader to its prompt; `knock`: between two greetings; `start`: until it
    asks for the file; `block`: until it answers a block, or the end of the file; `verdict`: until it has said what it
    makes of the file."""

    connect: float = Field(default=10.0, gt=0, le=600)
    knock: float = Field(default=0.5, gt=0, le=60)
    start: float = Field(default=60.0, gt=0, le=600)
    block: float = Field(default=15.0, gt=0, le=600)
    verdict: float = Field(default=60.0, gt=0, le=600)


class XymodemAddress(Address):
    """The serial bus is the address: one part is on it."""


class XymodemProfile(SerialProfile):
    """`loader`: one of loaders.toml, whose keys hold where this table has none. `baudrate`: the loader's, None for the
    bus's own. `entry`, `enter`: how the part gets into its loader, by modem lines or by a text that its application is
    sent. `greet`: what makes the loader say its prompt; `prompt`: what it ends with when it waits for a command; `part`:
    what its greeting must hold; `bootloader`: a group around its version. `upload`: the steps after which it asks for the
    file. `block_size`: 128 or 1024. `whole_blocks`: the rest of a file goes into a block of `block_size` too, for loaders
    that count on it; else into blocks of 128 bytes where that is less. `padding`: byte that the last block is filled up
    with. `success`, `failure`, `rejection`: what the loader says of the file that it got: that it is in place, that it is
    not for a reason that may pass, that it is not because of the file. `commit`: steps after that, such as copying it
    into the flash, each of which must be answered by what it expects. `run`: steps that start the application. `boot`:
    how it is started: by `run`, by the reset line, by the loader itself once the file is in place, not at all, or by what
    there is ("auto"). `slot_size`: bytes that the part takes."""

    protocol: ClassVar[str]

    loader: str = ""
    part: Pattern = ""
    entry: XymodemPins = XymodemPins()
    enter: str = ""
    greet: str = "\r"
    prompt: Pattern = ""
    bootloader: Annotated[Pattern, AfterValidator(_has_group)] = ""
    upload: tuple[Step, ...] = ()
    block_size: Literal[128, 1024] = 128
    whole_blocks: bool = False
    padding: int = Field(default=0x1A, ge=0, le=255)
    success: Pattern = ""
    failure: Pattern = ""
    rejection: Pattern = ""
    commit: tuple[Step, ...] = ()
    run: tuple[Step, ...] = ()
    boot: Literal["auto", "run", "reset", "itself", "none"] = "auto"
    slot_size: int = Field(default=0x0100_0000, gt=0)
    timings: Timings = Timings()

    @model_validator(mode="before")
    @classmethod
    def _of_the_loader(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        name = given.get("loader", "")
        if not isinstance(name, str) or not name:
            return _with_tuples(given)
        known = {key: table for key, table in loaders().items() if cls.protocol in table["protocols"]}
        if name not in known:
            there = ", ".join(known) or "none"
            raise ValueError(f"no {cls.protocol} loader is called {name!r}; there are: {there}")
        return _with_tuples({key: value for key, value in known[name].items() if key != "protocols"} | given)

    @property
    def way_to_boot(self) -> str:
        """`boot` with "auto" decided."""
        if self.boot != "auto":
            return self.boot
        return "run" if self.run else "reset" if self.entry.reset != "none" else "none"


def _with_tuples(table: dict[str, Any]) -> dict[str, Any]:
    """What came through a validator counts no more as read from a file, whose lists would do for tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


@cache
def loaders() -> dict[str, dict[str, Any]]:
    """The shipped profiles by name."""
    return tomllib.loads((files(__package__) / "loaders.toml").read_text(encoding="utf-8"))
