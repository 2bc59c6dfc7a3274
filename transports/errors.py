"""Every failure of a wire, and the root of all of the project's errors.

An error says what happened, on which component, why and what to do; it has a stable code and the exit status of the
command line that it leads to. Who raises what:

| class | code | raised when |
|---|---|---|
| `AdapterAbsent`    | E-CAN-ABSENT, E-SERIAL-ABSENT, E-USB-ABSENT, E-UDP-ABSENT | opening: no such adapter, port or device |
| `AdapterAbsent`    | E-CAN-DRIVER                                         | opening: the driver is not installed |
| `AdapterBusy`      | E-CAN-BUSY, E-SERIAL-BUSY, E-USB-BUSY                | opening: another program holds it |
| `AdapterForbidden` | E-CAN-FORBIDDEN, E-SERIAL-FORBIDDEN, E-USB-FORBIDDEN | opening: this user may not |
| `BadSettings`      | E-CAN-SETTINGS, E-SERIAL-SETTINGS, E-USB-SETTINGS, E-UDP-SETTINGS | opening: a setting that it refuses |
| `BadSettings`      | E-CAN-INTERFACE, E-ISOTP-SETTINGS                    | opening: no such interface, address or option |
| `AdapterGone`      | E-CAN-GONE, E-SERIAL-GONE, E-USB-GONE, E-UDP-GONE | any time: unplugged, interface down |
| `BusOff`           | E-CAN-BUSOFF                                         | any time: the controller left the bus |
| `CanOverrun`       | E-CAN-OVERRUN                                        | receiving: frames came faster than they were read |
| `NotAcknowledged`  | E-CAN-NOACK                                          | sending: no node acknowledges frames |
| `WireTimeout`      | E-CAN-TIMEOUT, E-ISOTP-TIMEOUT, E-SERIAL-TIMEOUT, E-USB-TIMEOUT | a deadline passed |
| `Framing`          | E-ISOTP-FRAMING, E-SERIAL-FRAMING                    | what came in breaks the wire's own rules |
| `Framing`          | E-ISOTP-CONTESTED                                    | a PDU was lost, another tester sends under our id |
| `UsbStall`         | E-USB-STALL                                          | the device refused a USB request |
| `UsbFault`         | E-USB-FAULT                                          | a transfer failed in another way |
| `ClockError`       | E-CLOCK-MIXED                                        | real and simulated time meet in one bench |
| `ClockError`       | E-CLOCK-THREAD                                       | a thread of its own calls a simulated clock |

Code catches the classes of the left column; they are never raised themselves. Each code is one class below one of them.
`StateFolder` (E-STATE) and `StateUnsafe` (E-STATE-UNSAFE) are about no wire: emulators keep files in the state folder as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import ClassVar, Self

from .plain import CAUSE, plain, word

LONGEST_TEXT = 400
"""Characters that are kept of the text of an unforeseen exception."""


class ExitStatus(IntEnum):
    """The command line's exit statuses."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    ABSENT = 4
    AMBIGUOUS = 5
    BUSY = 6
    PERMISSION = 7
    VERIFY = 8
    POLICY = 9
    RESUMABLE = 10
    NOT_BACK = 11
    BAD_FILE = 12
    GUEST = 125
    INTERRUPTED = 130


class NextAction(StrEnum):
    """A command that a remedy names, whose arguments follow. The command line adds the options of its call, such as `--bench`."""

    RESUME = "resume"
    ROLLBACK = "rollback"
    ABANDON = "apply --abandon MANIFEST"
    SCAN = "scan"
    FLASH = "flash"
    HISTORY = "history"


@dataclass(frozen=True, slots=True)
class Left:
    """How a failure left its component. `phase`: in which it was. `boots`: whether an application starts; None: not known.

    `touched`: whether anything was changed, or may have been. The bytes are those that the part has acknowledged, in all
    `attempts` together. `before`: whether an earlier run of the same update has changed it. `verified`: whether the part
    holds the whole image, as its verification showed.
    """

    phase: str
    touched: bool
    erased_bytes: int
    written_bytes: int
    boots: bool | None
    before: bool = False
    verified: bool = False
    attempts: int = 1

    @property
    def text(self) -> str:
        """For a person, to be read behind what failed."""
        if not self.touched:
            more = "nothing more was erased or written, but an earlier run has changed it"
            found = "; it holds the image whole" if self.verified and not self.before else ""
            return f"in {self.phase}: {more if self.before else 'nothing was erased or written'}{found}"
        how = {"erase": "it was being erased", "write": "it was being written", "boot": "it was being started"}
        verified = "verified" if self.verified else "not verified"
        amid = self.phase in ("erase", "write")
        boots = {
            True: "its old application still boots" if amid else "it boots",
            False: "it does not boot until its image is whole" if amid else "it does not boot",
            None: "whether it boots is not known",
        }
        counts = f"{self.erased_bytes:,} bytes erased, {self.written_bytes:,} written"
        counts += in_attempts(self.attempts)
        counts += f", the image is {verified}" if self.phase == "boot" else ""
        return f"{how.get(self.phase, f'it was written whole and is {verified}')}: {counts}; {boots[self.boots]}"


def in_attempts(attempts: int) -> str:
    """Said behind bytes that were counted in all attempts together; "": there was one."""
    return f" in {attempts} attempts" if attempts > 1 else ""


Remedy = str | tuple[str | NextAction, ...]
"""What to do: a text, or its pieces where a command is among them."""


class ProxyflashError(Exception):
    """Root of all errors. `cause` is one sentence without a full stop at its end; `remedy` one or two with.

    `advice` is the remedy in pieces. `component` is the name of the component that it happened on, filled in by the layer
    that knows it, as is `left`. As text an error is one plain line, whatever a part or a file put into its cause. A longer
    cause than `CAUSE` ends there.
    """

    code: ClassVar[str] = "E-FAILED"
    exit_status: ExitStatus = ExitStatus.FAILED
    default_remedy: ClassVar[Remedy] = ""
    left: Left | None = None
    """How the component was left, where it was worked on."""
    details: Mapping[str, object] = MappingProxyType({})
    """What a program gets to read of it beside all that; values of JSON."""
    shows_code = False
    """Whether its text begins with its code, as where pytest prints it."""
    is_of_a_part: ClassVar[bool] = True
    """Whether it can tell of a part, as what a replay meets can't."""

    def __init__(self, cause: str, *, remedy: Remedy | None = None, component: str | None = None) -> None:
        self.cause = _short(cause)
        super().__init__(self.cause)
        self.advice = _pieces(self.default_remedy if remedy is None else remedy)
        self.component = component

    @property
    def remedy(self) -> str:
        return "".join(f"proxyflash {piece}" if isinstance(piece, NextAction) else piece for piece in self.advice)

    def named(self, component: str | None) -> Self:
        """Itself, with the component's name unless it has one."""
        self.component = self.component or component
        return self

    def placed(self, place: str) -> Self:
        """A copy whose cause begins with a place, such as a file and a line."""
        return self._copy(cause=_short(f"{place}: {self.cause}"))

    def advised(self, remedy: Remedy) -> Self:
        """A copy with another remedy."""
        return self._copy(advice=_pieces(remedy))

    def worded(self, command: Callable[[NextAction], str]) -> Self:
        """A copy whose remedy has the commands as they can be typed; itself, if the remedy names none."""
        if not any(isinstance(piece, NextAction) for piece in self.advice):
            return self
        return self.advised(tuple(command(piece) if isinstance(piece, NextAction) else piece for piece in self.advice))

    def _copy(self, **changed: object) -> Self:
        found = type(self).__new__(type(self), *self.args)
        found.__dict__.update(self.__dict__ | changed)
        found.__cause__, found.__suppress_context__ = self.__cause__, self.__suppress_context__
        return found

    def __str__(self) -> str:
        code = f"{self.code} " if self.shows_code else ""
        where = f"{word(self.component)}: " if self.component else ""
        advice = f" {plain(self.remedy)}" if self.remedy else ""
        left = f" ({self.left.text})" if self.left else ""
        return f"{code}{where}{plain(self.cause, CAUSE)}{left}.{advice}"


def causes(error: BaseException | None, *, contexts: bool = False) -> Iterator[BaseException]:
    """An error and those that it was raised from, each once: a program can raise an error from itself.

    `contexts`: where it was raised from none, on to the error that was being handled.
    """
    seen: list[BaseException] = []
    while error is not None and not any(error is other for other in seen):
        seen.append(error)
        yield error
        error = error.__cause__ or (error.__context__ if contexts else None)


def _short(cause: str) -> str:
    """A document in JSON, a journal and a recording hold a cause as it is."""
    return cause if len(cause) <= CAUSE else f"{cause[:CAUSE]}…"


def _pieces(remedy: Remedy) -> tuple[str | NextAction, ...]:
    return (remedy,) if isinstance(remedy, str) else remedy


@contextmanager
def naming(component: str | None) -> Iterator[None]:
    """Names the component in an error of the block that names none."""
    try:
        yield
    except ProxyflashError as error:
        error.named(component)
        raise


class StateFolder(ProxyflashError):
    """The state folder can't be written."""

    code = "E-STATE"
    default_remedy = "Name another folder: --state FOLDER, or PROXYFLASH_STATE."


class StateUnsafe(ProxyflashError):
    """Another user owns a part of the state folder or of the folders above, can write to it, or has put a link in its
    place."""

    code = "E-STATE-UNSAFE"
    exit_status = ExitStatus.PERMISSION
    default_remedy = "Name another state folder: --state FOLDER, or PROXYFLASH_STATE."


class Unexpected(ProxyflashError):
    """An exception that the program does not foresee: a fault of proxyflash."""

    code = "E-UNEXPECTED"
    default_remedy = "This is a fault of proxyflash: run it again with -vv, and report what that prints."

    @classmethod
    def of(cls, error: Exception) -> Self:
        """For an exception of any class. Its text is cut where it is too long for a message."""
        try:
            said = str(error)
        except Exception:
            said = "its text can't be made"
        return cls(f"{type(error).__name__}: {said[:LONGEST_TEXT]}")


def known(error: Exception) -> ProxyflashError:
    """The error itself, or an `Unexpected` for an exception that nobody foresaw."""
    return error if isinstance(error, ProxyflashError) else Unexpected.of(error)


class TransportError(ProxyflashError):
    """A wire failed."""

    code = "E-TRANSPORT"


# The clock.


class ClockError(ProxyflashError):
    """Real and simulated time are mixed. Not a failure of a wire: trying again doesn't help."""

    exit_status = ExitStatus.USAGE


class MixedClocks(ClockError):
    """A serial port, an adapter, a socket, a program or a thing of another clock is used under a simulated clock."""

    code = "E-CLOCK-MIXED"
    default_remedy = (
        "Simulated time is for benches whose buses are all emulated in this process: open the bench inside the block"
        " that uses the clock, or use real time."
    )


class UnknownThread(ClockError):
    """A thread that the simulated clock does not run uses the clock. The message names the thread."""

    code = "E-CLOCK-THREAD"
    default_remedy = (
        "Start the thread with proxyflash.transports.clock.Thread under the simulated clock, or use real time."
    )


# What code catches.


class AdapterAbsent(TransportError):
    exit_status = ExitStatus.ABSENT


class AdapterBusy(TransportError):
    exit_status = ExitStatus.BUSY


class AdapterForbidden(TransportError):
    exit_status = ExitStatus.PERMISSION


class BadSettings(TransportError):
    """`setting`: the key of the bus that is wrong, "" where it is not one of them alone."""

    exit_status = ExitStatus.BAD_FILE
    setting = ""

    def about(self, setting: str) -> Self:
        """Itself, with the key that is wrong."""
        self.setting = setting
        return self


class AdapterGone(TransportError):
    """The adapter, port or device vanished while in use."""


class WireTimeout(TransportError):
    """A deadline passed. Not a fault yet: a flasher may try again."""


class Framing(TransportError):
    """What came in breaks the rules of the wire's own protocol."""


# CAN.


class CanAbsent(AdapterAbsent):
    """There is no such interface or adapter, or it is down."""

    code = "E-CAN-ABSENT"
    default_remedy = "Is the adapter plugged in and the interface up? Run: proxyflash doctor"


class CanDriverMissing(AdapterAbsent):
    """Something that the interface of python-can needs is missing: the kernel's CAN, a vendor's library, a Python
    package."""

    code = "E-CAN-DRIVER"
    default_remedy = "Install the driver that this interface of python-can wants."


class CanInterfaceUnknown(BadSettings):
    """python-can has no interface of that name. The message lists its interfaces."""

    code = "E-CAN-INTERFACE"
    default_remedy = "Name a listed interface, or install the package that has the wanted one: proxyflash doctor"


class CanBusy(AdapterBusy):
    """Another program holds the adapter."""

    code = "E-CAN-BUSY"
    default_remedy = "Close the program that uses the adapter."


class CanForbidden(AdapterForbidden):
    """This user may not open the adapter."""

    code = "E-CAN-FORBIDDEN"
    default_remedy = "Run: proxyflash doctor, which prints the udev line."


class CanSettings(BadSettings):
    """python-can refuses a setting of the bus."""

    code = "E-CAN-SETTINGS"
    default_remedy = "The keys of a CAN bus are those of python-can's interface of that name."


class CanGone(AdapterGone):
    """The adapter vanished while in use: it was unplugged, or the interface was taken down."""

    code = "E-CAN-GONE"
    default_remedy = "Was the adapter unplugged, or the interface taken down?"


class CanTimeout(WireTimeout):
    """The bus did not take a frame in time, or no frame came in time."""

    code = "E-CAN-TIMEOUT"
    default_remedy = "Is the bus overloaded? Run the same command again."


class BusOff(TransportError):
    """The controller left the bus after too many errors."""

    code = "E-CAN-BUSOFF"
    default_remedy = "Is the bus terminated, and the bit rate right? Run: proxyflash doctor"


class NotAcknowledged(TransportError):
    """No node acknowledges frames."""

    code = "E-CAN-NOACK"
    default_remedy = "Is a powered node on this bus, with the same bit rate?"


class CanOverrun(TransportError):
    """Frames came faster than they were read."""

    code = "E-CAN-OVERRUN"
    default_remedy = "Is this host overloaded? Run it alone, or stop what floods the bus."


class IsoTpTimeout(WireTimeout):
    """A part did not send its next frame or its flow control in time (ISO 15765-2)."""

    code = "E-ISOTP-TIMEOUT"
    default_remedy = "Is the part powered, and are its identifiers right? Run the same command again."


class IsoTpFraming(Framing):
    """A frame breaks ISO 15765-2: a wrong sequence number, an overflow, a reserved value."""

    code = "E-ISOTP-FRAMING"
    default_remedy = "Does another tester use the same identifiers?"


class IsoTpContested(Framing):
    """A message was lost while another tester sent under the same identifier."""

    code = "E-ISOTP-CONTESTED"
    default_remedy = "End the other program, then run the same command again: a part serves one tester at a time."


class IsoTpSettings(BadSettings):
    """An ISO-TP setting is wrong. The message names the setting and its range."""

    code = "E-ISOTP-SETTINGS"
    default_remedy = "Correct the setting in the component's address or profile."


# Serial lines.


class SerialAbsent(AdapterAbsent):
    """There is no such port."""

    code = "E-SERIAL-ABSENT"
    default_remedy = "List what is there: ls -l /dev/serial/by-id"


class SerialBusy(AdapterBusy):
    """Another program holds the port. The message names the program where that is known."""

    code = "E-SERIAL-BUSY"
    default_remedy = "Close the program that holds the port."


class SerialAmbiguous(TransportError):
    """The name under /dev/serial/by-id or the `hwgrep://` pattern fits several adapters."""

    code = "E-SERIAL-AMBIGUOUS"
    exit_status = ExitStatus.AMBIGUOUS
    default_remedy = "Name the port by its place: ls -l /dev/serial/by-path"


class SerialForbidden(AdapterForbidden):
    """This user may not open the port."""

    code = "E-SERIAL-FORBIDDEN"
    default_remedy = "Add yourself to the port's group: sudo usermod -aG dialout $USER, then log in again."


class SerialSettings(BadSettings):
    """pyserial or the driver refuses a setting of the bus."""

    code = "E-SERIAL-SETTINGS"
    default_remedy = "The keys of a serial bus are those of pyserial's Serial."


class SerialGone(AdapterGone):
    """The port vanished while in use."""

    code = "E-SERIAL-GONE"
    default_remedy = "Was the adapter unplugged?"


class SerialTimeout(WireTimeout):
    """Bytes did not come, or could not be sent, in time.

    `received`: the bytes that came before the deadline; they are not read again.
    """

    code = "E-SERIAL-TIMEOUT"
    default_remedy = "Is the part powered, and are RX and TX crossed? Run the same command again."

    def __init__(
        self, cause: str, *, received: bytes = b"", remedy: str | None = None, component: str | None = None
    ) -> None:
        super().__init__(cause, remedy=remedy, component=component)
        self.received = received


class SerialFraming(Framing):
    """The received bytes have framing or parity errors."""

    code = "E-SERIAL-FRAMING"
    default_remedy = "Do both ends have the same bit rate and parity?"


# USB.


class UsbAbsent(AdapterAbsent):
    """There is no such device, or libusb is not installed."""

    code = "E-USB-ABSENT"
    default_remedy = "Is it plugged in and powered? List what is there: lsusb"


class UsbAmbiguous(TransportError):
    """Several devices fit the component's address. The message lists the devices."""

    code = "E-USB-AMBIGUOUS"
    exit_status = ExitStatus.AMBIGUOUS
    default_remedy = "Tell them apart with serial or port in the component's address."


class UsbBusy(AdapterBusy):
    """Another program or a kernel driver holds the interface."""

    code = "E-USB-BUSY"
    default_remedy = "Close the program that uses the device, or unbind its kernel driver."


class UsbForbidden(AdapterForbidden):
    """This user may not open the device."""

    code = "E-USB-FORBIDDEN"
    default_remedy = "Run: proxyflash doctor, which prints the udev line."


class UsbSettings(BadSettings):
    """A setting of the bus is wrong. The message names the setting."""

    code = "E-USB-SETTINGS"
    default_remedy = "Correct the setting of the bus in the bench file."


class UsbGone(AdapterGone):
    """The device vanished while in use."""

    code = "E-USB-GONE"
    default_remedy = "Was the device unplugged, or did it lose its supply?"


class UsbTimeout(WireTimeout):
    """The device did not answer a request, or did not come back, in time."""

    code = "E-USB-TIMEOUT"
    default_remedy = "Run the same command again; if it fails again, try another USB port."


class UsbStall(TransportError):
    """The device refused a control request: it answered with STALL."""

    code = "E-USB-STALL"
    default_remedy = (
        "Are the device, the interface and the alternate setting those that you mean? Run the same command again."
    )


class UsbFault(TransportError):
    """libusb reports an error that is neither a stall, a time-out nor a lost device: an overflow, for example."""

    code = "E-USB-FAULT"
    default_remedy = "Is the cable or a hub at fault? Plug the device straight into the host and try again."


# Datagrams.


class UdpAbsent(AdapterAbsent):
    """The host's name is not known, or there is no route to the host."""

    code = "E-UDP-ABSENT"
    default_remedy = "Is the host's name or address right, and this host on its network?"


class UdpSettings(BadSettings):
    """A UDP bus has an unknown key or a wrong value."""

    code = "E-UDP-SETTINGS"
    default_remedy = "The keys of a UDP bus are host and port."


class UdpGone(AdapterGone):
    """The network went away while in use."""

    code = "E-UDP-GONE"
    default_remedy = "Is this host still on the part's network?"


# Plugins.


class PluginUnknown(ProxyflashError):
    """No installed package has this protocol."""

    code = "E-PLUGIN-UNKNOWN"
    exit_status = ExitStatus.BAD_FILE
    default_remedy = "List what is installed: proxyflash plugins"


class PluginBroken(ProxyflashError):
    """A plugin is installed but can't be loaded."""

    code = "E-PLUGIN-BROKEN"
    default_remedy = "Run: proxyflash plugins, which says why; then reinstall or remove the package."
