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

from ..flasher import Address
from ..serial.boot_pins import Output, PinSettings
from ..serial.profile import SerialProfile
from ..settings import After, Field, Settings

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


Pattern = Annotated[str, Field(max_length=1000), After(_is_pattern)]


def filled(text: str, words: dict[str, str]) -> str:
    """The text with what its words stand for."""
    for word, value in words.items():
        text = text.replace(f"<{word}>", value)
    return text


class Step(Settings):
    """One text to the bootloader, and the answer to it."""

    send: str = ""
    """Text that is sent to the bootloader."""
    expect: Pattern = ""
    """A pattern for the bootloader's answer. "": no answer is waited for."""
    seconds: float = Field(default=10.0, gt=0, le=600)
    """Seconds that the answer may take."""


class XymodemPins(PinSettings):
    """How the modem lines bring the part into its bootloader."""

    select: Output = "none"
    """The modem line that selects the bootloader while the part starts. `"none"`: a person selects the bootloader."""
    select_asserted: bool = True
    """Whether the asserted line (low on the wire) selects the bootloader."""

    @property
    def select_line(self) -> tuple[Output, bool]:
        return self.select, self.select_asserted


class Timings(Settings):
    """Time limits, in seconds."""

    connect: float = Field(default=10.0, gt=0, le=600)
    """Seconds until the bootloader shows its prompt."""
    knock: float = Field(default=0.5, gt=0, le=60)
    """Seconds between two greetings."""
    start: float = Field(default=60.0, gt=0, le=600)
    """Seconds until the bootloader asks for the file."""
    block: float = Field(default=15.0, gt=0, le=600)
    """Seconds until the bootloader answers a block, or the end of the file."""
    verdict: float = Field(default=60.0, gt=0, le=600)
    """Seconds until the bootloader reports whether it took the file."""


class XymodemAddress(Address):
    """The serial bus is the address: one part is on it."""


class XymodemProfile(SerialProfile):
    """How to talk to the bootloader. Patterns are regular expressions (Python's `re`, on bytes) over what the
    bootloader sends."""

    protocol: ClassVar[str]

    loader: str = ""
    """A bootloader whose texts proxyflash knows: `"gecko"` (Silicon Labs' Gecko Bootloader) for XMODEM, `"st-iap"`
    (STM32Cube's in-application programming example) for YMODEM. Its values hold for all keys that this table does not
    give."""
    part: Pattern = ""
    """A pattern that the bootloader's greeting must match. "": any part."""
    entry: XymodemPins = XymodemPins()
    """How the modem lines bring the part into its bootloader."""
    enter: str = ""
    """Text that makes the application start its bootloader. "": nothing is sent."""
    greet: str = "\r"
    """Text that makes the bootloader show its prompt."""
    prompt: Pattern = ""
    """A pattern for the prompt. Let it reach to the end (`$`) of the text. Needed to flash."""
    bootloader: Annotated[Pattern, After(_has_group)] = ""
    """A pattern with a group around the bootloader's version, in its greeting."""
    upload: tuple[Step, ...] = ()
    """Steps after which the bootloader asks for the file."""
    block_size: Literal[128, 1024] = 128
    """Bytes of a block."""
    whole_blocks: bool = False
    """Whether the rest of a file also goes into a block of `block_size`, as ST's SBSFU needs it. If false, the rest
    goes into blocks of 128 bytes where that takes fewer bytes."""
    padding: int = Field(default=0x1A, ge=0, le=255)
    """Byte that fills up the last block."""
    success: Pattern = ""
    """A pattern for the answer when the bootloader has taken the file. Needed to flash, unless a step of `commit`
    expects an answer."""
    failure: Pattern = ""
    """A pattern for the answer when the transfer failed for a reason that may pass."""
    rejection: Pattern = ""
    """A pattern for the answer when the file itself is wrong."""
    commit: tuple[Step, ...] = ()
    """Steps that put the file into place after the transfer, such as copying it into flash. Each step must get the
    answer that it expects; the last answer is the verdict."""
    run: tuple[Step, ...] = ()
    """Steps that start the application."""
    boot: Literal["auto", "run", "reset", "itself", "none"] = "auto"
    """How the application is started: by `"run"`, by `"reset"` (the modem line), by the bootloader `"itself"` after
    it took the file, or not at all (`"none"`). `"auto"`: by `run` if it has steps, else by the reset line if there is
    one, else not at all."""
    slot_size: int = Field(default=0x0100_0000, gt=0)
    """Bytes that the part takes."""
    timings: Timings = Timings()
    """Time limits."""

    @classmethod
    def prepared(cls, table: dict[str, Any]) -> dict[str, Any]:
        """With the values of the bootloader that `loader` names."""
        name = table.get("loader", "")
        if not isinstance(name, str) or not name:
            return _with_tuples(table)
        known = {key: loader for key, loader in loaders().items() if cls.protocol in loader["protocols"]}
        if name not in known:
            there = ", ".join(known) or "none"
            raise ValueError(f"no {cls.protocol} loader is called {name!r}; there are: {there}")
        return _with_tuples({key: value for key, value in known[name].items() if key != "protocols"} | table)

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
