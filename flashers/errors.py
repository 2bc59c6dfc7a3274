"""Every failure of an image, of a part, and of programming it.

| class | code | exit | raised when |
|---|---|---|---|
| `ImageMissing`      | E-IMAGE-MISSING      | 12 | the file isn't there or can't be read |
| `ImageFormat`       | E-IMAGE-FORMAT       | 12 | no firmware file, or a broken one: checksum, cut record, syntax |
| `ImageOverlap`      | E-IMAGE-OVERLAP      | 12 | two parts of the file claim one address |
| `ImageEmpty`        | E-IMAGE-EMPTY        | 12 | the file holds no bytes to write |
| `ImageNotWritten`   | E-IMAGE-WRITE        | 1  | it can't be saved: a full disk, an address its format can't hold |
| `ImageTooLarge`     | E-IMAGE-TOO-LARGE    | 12 | it does not fit the part |
| `ImageMisplaced`    | E-IMAGE-MISPLACED    | 12 | it has bytes where the part has no memory to write |
| `ImageWrongPart`    | E-IMAGE-WRONG-PART   | 12 | it is made for another part |
| `NoResponse`        | E-PART-MUTE          | 4  | nothing answers at the component's address |
| `WrongPart`         | E-PART-FAMILY        | 12 | another part than the bench file names answers |
| `PartWrongMode`     | E-PART-MODE          | 1  | it answers, but can't be brought into its bootloader |
| `PartProtected`     | E-PART-PROTECTED     | 7  | read or write protection forbids it |
| `SecurityDenied`    | E-PART-SECURITY      | 7  | the part did not accept the key |
| `PartRefused`       | E-PART-REFUSED       | 1  | the part refused a command |
| `ProtocolError`     | E-PART-PROTOCOL      | 1  | the part answered what its protocol does not allow |
| `OperationFailed`   | E-PART-FAILED        | 1  | the part says that erasing or programming failed |
| `WrongLayout`       | E-PART-LAYOUT        | 12 | an erase took more than was planned, or less |
| `VerifyMismatch`    | E-VERIFY-MISMATCH    | 8  | what the part holds is not the image |
| `VersionMismatch`   | E-VERSION-MISMATCH   | 8  | the application reports another version than wanted |
| `RebootFailed`      | E-PART-NOT-BACK      | 11 | after the boot the application does not answer |
| `Unsupported`       | E-UNSUPPORTED        | 2  | this protocol or part can't do what was asked |
| `Cancelled`         | E-CANCELLED          | 10, 130 | asked to stop; 130 if nothing had been erased |
| `ProfileWrong`      | E-PROFILE            | 12 | a protocol's settings in the bench file do not hold |
| `KeyLibraryFailed`  | E-KEY-LIBRARY        | 1  | the maker's library that makes keys crashed, hung, or gave none |
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Self

from ..transports.errors import (
    AdapterAbsent,
    AdapterBusy,
    AdapterForbidden,
    AdapterGone,
    BusOff,
    ExitStatus,
    NextAction,
    NotAcknowledged,
    ProxyflashError,
    Remedy,
)


class ImageError(ProxyflashError):
    """Something is wrong with a firmware file. `cause` names the file, and the line or the offset in it."""

    code = "E-IMAGE"
    exit_status = ExitStatus.BAD_FILE


class ImageMissing(ImageError):
    """The file isn't there or can't be read."""

    code = "E-IMAGE-MISSING"
    default_remedy = "Correct the path of the file."


class ImageFormat(ImageError):
    """The file is not a firmware file, or it is broken: a checksum, a record that was cut off, syntax."""

    code = "E-IMAGE-FORMAT"
    default_remedy = "Take the file as the build made it, or build it again."


NOT_WHOLE = "Was the file copied whole? Copy or build it again."
"""The remedy where a file ends too early, or where its own checksum says that a byte of it is another one."""


class ImageOverlap(ImageError):
    """Two parts of the file claim one address.

    `address`: the first address that is given twice, where known.
    """

    code = "E-IMAGE-OVERLAP"
    default_remedy = "Build the file again: two of its parts claim one address."

    def __init__(
        self,
        cause: str,
        *,
        remedy: str | None = None,
        component: str | None = None,
        address: int | None = None,
    ) -> None:
        super().__init__(cause, remedy=remedy, component=component)
        self.address = address


class ImageEmpty(ImageError):
    """The file holds no bytes to write."""

    code = "E-IMAGE-EMPTY"
    default_remedy = "Is it the right file? Look at it: proxyflash image FILE"


class ImageNotWritten(ImageError):
    """An image can't be saved: a file is there already, the disk is full, or the format can't hold an address."""

    code = "E-IMAGE-WRITE"
    exit_status = ExitStatus.FAILED
    default_remedy = "Name another file or another format."


class ImageTooLarge(ImageError):
    """The image does not fit the part."""

    code = "E-IMAGE-TOO-LARGE"
    default_remedy = "Is it built for this part? See what it holds: proxyflash image FILE"


class ImageMisplaced(ImageError):
    """The image has bytes where the part has no memory to write, or an impossible start address."""

    code = "E-IMAGE-MISPLACED"
    default_remedy = "Is the file linked for this part? See what it holds: proxyflash image FILE"


class ImageWrongPart(ImageError):
    """The file says that it is made for another part."""

    code = "E-IMAGE-WRONG-PART"
    default_remedy = "Is it the right file for this component?"


class Meaning(Enum):
    """The meaning of an answer other than success, or of a silence.

    Each family has a table of its codes, MEANINGS, and a table of its silences, SILENCES.
    """

    BUSY = auto()
    """The part has no time or room now: the same request is sent again for a while."""
    DELAYED = auto()
    """The part wants to be left alone for a time that its profile says, and is asked again then."""
    NOT_HERE = auto()
    """The part has no such thing, or not in its present session: if that is not the programming session, it was lost, and
    the engine begins again."""
    LOST = auto()
    """Session, unlock, step or transfer was lost, or never was: the part is asked which, or the engine begins again."""
    FAILED = auto()
    """What was asked went wrong; another attempt may go well."""
    REFUSED = auto()
    """For good: waiting doesn't help, and nothing more is erased."""
    ABSENT = auto()
    """Of a silence: nobody is there, or the part is asked in a way that it does not hear."""
    DONE = auto()
    """Of a silence: the part does what it was asked for, and answers no more."""
    GONE = auto()
    """Of a silence: the part does not come back."""


class Step(Enum):
    """When a part is silent. A value is a heading of the table in docs/protocols.md."""

    CONNECT = "before its first answer"
    QUESTION = "to a question"
    ERASE = "to an erase"
    WRITE = "to a block"
    END = "after the last block"
    START = "to the start of the application"


USUAL_SILENCES: Mapping[Step, Meaning] = {
    Step.CONNECT: Meaning.ABSENT,
    Step.QUESTION: Meaning.LOST,
    Step.ERASE: Meaning.BUSY,
    Step.WRITE: Meaning.LOST,
    Step.END: Meaning.LOST,
    Step.START: Meaning.LOST,
}
"""BUSY: the part is waited for as long as its work may take, and then the answer is LOST. START: the engine does not start a part
a second time, so the table decides nothing there unless a family reads it."""


class PartError(ProxyflashError):
    """A part at the other end of the wire did not do what was asked."""

    code = "E-PART"
    passes: bool | None = None
    """Whether connecting again and going on may help, where the protocol can tell; None: the class says."""

    def passing(self, passes: bool | None) -> Self:
        """Itself, with what `passes` says."""
        self.passes = passes
        return self


class NoResponse(PartError):
    """Nothing answers at the component's address. The exit status is 1 if the part has answered before in the same run."""

    code = "E-PART-MUTE"
    exit_status = ExitStatus.ABSENT
    default_remedy = ("Is it powered and wired, and its address right? Run: ", NextAction.SCAN)


FELL_SILENT: Remedy = (
    "The part has answered before. Is a contact loose, its supply weak, the bus too busy? Run the same command again."
)


def silence(meaning: Meaning, cause: str, remedy: Remedy | None = None) -> PartError:
    """The error that a silence of this meaning is. `remedy`: of a part that has not answered yet."""
    if meaning is Meaning.GONE:
        return RebootFailed(cause, remedy=remedy)
    if meaning is Meaning.ABSENT:
        return NoResponse(cause, remedy=remedy)
    return fell_silent(NoResponse(cause)).passing(True)


def fell_silent(error: NoResponse) -> NoResponse:
    """A copy for a part that has answered before: it is not absent, and no setting is wrong."""
    found = error.advised(FELL_SILENT)
    if found.exit_status is ExitStatus.ABSENT:
        found.exit_status = ExitStatus.FAILED
    return found


NOT_THERE = (AdapterAbsent, AdapterBusy, AdapterForbidden, AdapterGone, BusOff, NotAcknowledged, NoResponse)
"""What is raised for a bus or a part that isn't there, or can't be used. Later it may be."""


class WrongPart(PartError):
    """Another part answers than the bench file names."""

    code = "E-PART-FAMILY"
    exit_status = ExitStatus.BAD_FILE
    default_remedy = "Is it the right component? If so, correct part in its profile."


def check_part(wanted: str | int, described: str, name: str, number: str) -> None:
    """Raises WrongPart unless the profile's `part`, `wanted`, is a piece of the name, or the number ("0x1E950F")."""
    asked = f"0x{wanted:0{len(number) - 2}X}" if isinstance(wanted, int) else wanted
    fits = asked == number if isinstance(wanted, int) else asked.lower() in name.lower()
    if not fits:
        raise WrongPart(f"the part is {described} ({number}), the profile wants {asked}")


class PartWrongMode(PartError):
    """The part answers, but can't be brought into its bootloader."""

    code = "E-PART-MODE"
    default_remedy = (
        "Is the part powered and its boot pin or button as its bootloader wants it? Run the same command again."
    )


class PartProtected(PartError):
    """Read or write protection forbids the access. The message says which, and whether it can be lifted."""

    code = "E-PART-PROTECTED"
    exit_status = ExitStatus.PERMISSION
    default_remedy = "Lift the protection by the tool of the part's maker, if that is meant: it may erase the part."


class SecurityDenied(PartError):
    """The part did not accept the key, or locked further attempts for a while."""

    code = "E-PART-SECURITY"
    exit_status = ExitStatus.PERMISSION
    default_remedy = "Is the key function of the profile the one for this part?"


class PartRefused(PartError):
    """The part refused a command. The message has the part's own code."""

    code = "E-PART-REFUSED"
    default_remedy = "Look up the part's own code in its manual. Run the same command again."


class ProtocolError(PartError):
    """The part's answer is not allowed by its protocol."""

    code = "E-PART-PROTOCOL"
    default_remedy = "Does something else talk on this wire, or is the protocol another one?"


class OperationFailed(PartError):
    """The part reports that erasing or programming failed."""

    code = "E-PART-FAILED"
    default_remedy = "Is its supply within range? Run the same command again."


class WrongLayout(PartError):
    """An erase took more or less than planned: the erase units of the profile or of the table are wrong. Erasing
    stopped then."""

    code = "E-PART-LAYOUT"
    exit_status = ExitStatus.BAD_FILE
    default_remedy = (
        "Give the part's erase units in the component's profile (memory; for Katapult page_size), by its manual (proxyflash "
        "help bench-file), and run the same command again. Then flash again whatever else was in the erased memory."
    )


class VerifyMismatch(PartError):
    """The part's memory differs from the image."""

    code = "E-VERIFY-MISMATCH"
    exit_status = ExitStatus.VERIFY
    default_remedy = "Run the same command again."


class VersionMismatch(PartError):
    """The application reports another version than the wanted one."""

    code = "E-VERSION-MISMATCH"
    exit_status = ExitStatus.VERIFY
    default_remedy = "Is it the right file? If flashing was interrupted, run the same command again."


class RebootFailed(PartError):
    """The application does not answer after the boot."""

    code = "E-PART-NOT-BACK"
    exit_status = ExitStatus.NOT_BACK
    default_remedy = ("See what state it is in: ", NextAction.SCAN, ". Then run the same command again.")
    boots: bool | None = None
    """False: the part answers, but not from its application. None: it does not answer, which its supply may be the reason for."""

    def answers(self) -> Self:
        """Itself, of a part that answers from its bootloader."""
        self.boots = False
        return self


WHOLE_AND_SILENT: Remedy = (
    "The part holds the image whole. Is its supply on, and its cable plugged in? See: ",
    NextAction.SCAN,
    ". If it stays silent, cut its supply, restore it, and run the same command again.",
)
"""The remedy where a verified image was started, and nothing answers."""


class Unsupported(ProxyflashError):
    """This protocol or part can't do what was asked. The message names what it can do."""

    code = "E-UNSUPPORTED"
    exit_status = ExitStatus.USAGE
    default_remedy = "What each protocol can do: proxyflash help protocols"


class ProfileWrong(ProxyflashError):
    """A protocol's settings contradict the part, or name a key function, a library or a file that is missing or doesn't
    fit."""

    code = "E-PROFILE"
    exit_status = ExitStatus.BAD_FILE
    default_remedy = "Correct the component's profile in the bench file."


class KeyLibraryFailed(ProxyflashError):
    """The maker's library that makes keys crashed, hung, ended its process, or gave no key. The ECU got no key."""

    code = "E-KEY-LIBRARY"
    default_remedy = "Ask the library's maker, or try it alone: does it take this seed, level and variant?"


class Cancelled(ProxyflashError):
    """The command was stopped on request: 10 when something had been erased or written, 130 when nothing had.

    Raised at a safe point. `touched`: whether anything had been erased or written.
    """

    code = "E-CANCELLED"

    def __init__(
        self, cause: str, *, touched: bool, remedy: Remedy | None = None, component: str | None = None
    ) -> None:
        super().__init__(cause, remedy=remedy, component=component)
        self.touched = touched
        self.exit_status = ExitStatus.RESUMABLE if touched else ExitStatus.INTERRUPTED
