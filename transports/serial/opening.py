"""Opening a serial port: the settings' checks, what pyserial is asked for, and why it failed.

The rule: pyserial says that opening failed, the operating system's error number says why. The number is looked up in
one table; the words are made here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import serial

from .. import clock
from ..errors import SerialAbsent, SerialBusy, SerialForbidden, SerialSettings, TransportError
from ..plain import meant
from ..transport import Where
from . import MOST_RATE, host
from .host import permission_remedy
from .usb_tty import has_bit_rate, listed, ports

KEYS: Mapping[str, type | tuple[type, ...]] = {
    "url": str,
    "baudrate": int,
    "bytesize": int,
    "parity": str,
    "stopbits": (int, float),
    "xonxoff": bool,
    "rtscts": bool,
    "dsrdtr": bool,
    "exclusive": bool,
    "dtr": bool,
    "rts": bool,
    "hupcl": bool,
}
SCHEMA: Mapping[str, Mapping[str, Any]] = {
    "url": {
        "type": "string",
        "description": "The port: a device, better under /dev/serial/by-id than /dev/ttyUSB0, or any URL that pyserial opens: "
        "`socket://host:port`, `rfc2217://host:port`, or `hwgrep://SER=85430353531351B0E1E2` (the port of the USB device with "
        "this serial number). Needed.",
    },
    "baudrate": {"type": "integer", "minimum": 1, "description": "Bit rate, in bit/s."},
    "bytesize": {"enum": [5, 6, 7, 8], "description": "Data bits."},
    "parity": {"enum": ["N", "E", "O", "M", "S"], "description": "Parity: none, even, odd, mark, space."},
    "stopbits": {"enum": [1, 1.5, 2], "description": "Stop bits."},
    "xonxoff": {"type": "boolean", "description": "Whether there is software flow control."},
    "rtscts": {"type": "boolean", "description": "Whether there is flow control by RTS and CTS."},
    "dsrdtr": {"type": "boolean", "description": "Whether there is flow control by DSR and DTR."},
    "exclusive": {"type": "boolean", "description": "Whether other programs can't open the port. Default: true."},
    "dtr": {
        "type": "boolean",
        "description": "State of DTR from opening on. Without this key Linux asserts DTR when the port is opened.",
    },
    "rts": {
        "type": "boolean",
        "description": "State of RTS from opening on. Without this key Linux asserts RTS when the port is opened.",
    },
    "hupcl": {"type": "boolean", "description": "Whether DTR and RTS are released when the port is closed."},
}
"""What an editor shows of the keys."""
LEAST_RATE = 300
"""Bit/s. No bootloader is as slow."""
_NOT_PYSERIALS = ("url", "dtr", "rts", "hupcl")

_UNIX98_PTY_MAJORS = range(136, 144)
"""Device numbers of pseudo-terminals (Linux, Documentation/admin-guide/devices.txt)."""

_CAUSES: Mapping[int, type[TransportError]] = {
    errno.EACCES: SerialForbidden,
    errno.EPERM: SerialForbidden,
    errno.EBUSY: SerialBusy,
    errno.EAGAIN: SerialBusy,
    errno.EINVAL: SerialSettings,
    errno.ENOTTY: SerialSettings,
    errno.EISDIR: SerialSettings,
}
"""EAGAIN is the lock that `exclusive` takes. Every number that is not here means that nothing is there."""


def checked(settings: Mapping[str, Any]) -> None:
    """Raises SerialSettings for a key that there isn't, or a value of the wrong kind."""
    for key, value in settings.items():
        kind = KEYS.get(key)
        if kind is None:
            raise SerialSettings(
                f"a serial bus has no key {key!r}{meant(key, KEYS)}; there are: {', '.join(KEYS)}"
            ).about(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise SerialSettings(f"{key} = {value!r} is of the wrong type").about(key)
    if not settings.get("url"):
        raise SerialSettings("a serial bus needs a url", remedy='Give it one, such as url = "/dev/ttyUSB0".')
    if settings.get("baudrate", 1) < 1:
        raise SerialSettings(f"baudrate = {settings['baudrate']} is not a bit rate").about("baudrate")
    if settings.get("baudrate", 1) > MOST_RATE:
        raise SerialSettings(f"baudrate is greater than {MOST_RATE:,} bit/s").about("baudrate")


def check(settings: Mapping[str, Any]) -> None:
    """The same, and what pyserial has against the values. Opens nothing. Raises SerialSettings."""
    checked(settings)
    outer = sys.exception()
    try:
        serial.serial_for_url(settings["url"], do_not_open=True, **_pyserials(settings))
    except (ValueError, TypeError, OverflowError) as error:
        raise _failure(settings["url"], list(_chain(error, outer))) from error


def where(text: str) -> Where | None:
    """The place that a target names: see `SerialPort.where`. A relative path is taken from the current folder on."""
    if re.match(r"[a-z0-9]+://.", text):
        return Where({"url": text}, text.partition("://")[2])
    if text.startswith(("/", "./", "../")) and not text.endswith("/"):
        path = Path(text)
        # A link under /dev/serial is the lasting name, so only a relative path is followed.
        url = text if path.is_absolute() else str(path.parent.resolve() / path.name)
        return Where({"url": url}, path.name, known_as={"url": host.lasting_name(url)})
    return None


def misplaced(text: str) -> tuple[str, str] | None:
    found = re.fullmatch(r"([./][^:,@]*)[:,@]([1-9][0-9_]{2,8})(?:,.*)?", text)
    return None if found is None or Path(text).exists() else (found[1], f"baudrate={found[2].replace('_', '')}")


def surprises(settings: Mapping[str, Any]) -> Iterator[str]:
    """What these settings come to that is likely not meant."""
    url = settings["url"]
    if said := default_rate(settings)[0]:
        yield f"{said}; give the part's, such as: baudrate = 115_200"
    if settings.get("baudrate", LEAST_RATE) < LEAST_RATE:
        yield f"baudrate = {settings['baudrate']} is in bit/s; is another rate meant, such as 115_200?"
    if url.startswith("/") and not Path(url).exists():
        yield f"there is no port {url} now"


def default_rate(settings: Mapping[str, Any]) -> tuple[str, str]:
    """See `SerialPort.default_rate`. A socket has no bit rate, nor has a part's own USB port."""
    url = str(settings.get("url", ""))
    if "baudrate" in settings or url.startswith("socket:") or not has_bit_rate(url):
        return "", ""
    return "no baudrate is given: 9,600 bit/s is the serial library's default", "baudrate=115200"


def _pyserials(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"exclusive": True} | {key: value for key, value in settings.items() if key not in _NOT_PYSERIALS}


def open_port(settings: Mapping[str, Any]) -> serial.SerialBase:
    """The opened port, locked and with low latency where it is a device. The settings have passed `checked`.

    Raises SerialAbsent, SerialAmbiguous, SerialBusy, SerialForbidden, SerialSettings.
    """
    url = settings["url"]
    outer = sys.exception()
    port = None
    host.refuse_ambiguous(url)
    try:
        port = serial.serial_for_url(url, do_not_open=True, **_pyserials(settings))
        if not getattr(port, "follows_clock", False):
            clock.real(f"the serial port {url}")
        if is_pty(port):
            # The kernel forces 8 bits and no parity, and newer C libraries then say EINVAL to anything else.
            port.parity, port.bytesize = "N", 8
        if not isinstance(port, serial.Serial):
            for line in ("dtr", "rts"):
                if line in settings:
                    setattr(port, line, settings[line])
        port.open()
        _prepare(port, settings)
    except (OSError, ValueError, TypeError, LookupError, OverflowError, NotImplementedError, termios.error) as error:
        failure = _failure(url, list(_chain(error, outer)))
        if port is not None:
            with suppress(OSError):
                port.close()
        raise failure from error
    return port


def is_pty(port: serial.SerialBase) -> bool:
    """Whether the port is the slave side of a pseudo-terminal."""
    if not isinstance(port, serial.Serial) or port.port is None:
        return False
    try:
        return os.major(Path(port.port).stat().st_rdev) in _UNIX98_PTY_MAJORS
    except OSError:
        return False


def _prepare(port: serial.SerialBase, settings: Mapping[str, Any]) -> None:
    if isinstance(port, serial.Serial):
        _set_named_lines(port, settings)
        if settings.get("exclusive", True) and not is_pty(port):
            # pyserial's lock holds off those who ask for it; this, all who are not root.
            fcntl.ioctl(port.fileno(), termios.TIOCEXCL)
        with suppress(ValueError, NotImplementedError):
            port.set_low_latency_mode(True)
        if "hupcl" in settings:
            attributes = termios.tcgetattr(port.fileno())
            attributes[2] = attributes[2] | termios.HUPCL if settings["hupcl"] else attributes[2] & ~termios.HUPCL
            termios.tcsetattr(port.fileno(), termios.TCSANOW, attributes)
    elif settings["url"].startswith("socket:"):
        import socket

        # A protocol unit is small and its answer is waited for: it must not wait for a full packet.
        with socket.socket(fileno=os.dup(port.fileno())) as copy:
            copy.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _set_named_lines(port: serial.Serial, settings: Mapping[str, Any]) -> None:
    """In one step: between two, a board could leave its reset with BOOT0 as it is not meant."""
    lines = {"dtr": termios.TIOCM_DTR, "rts": termios.TIOCM_RTS}
    wanted = {bit: settings[line] for line, bit in lines.items() if line in settings}
    try:
        if wanted:
            set_modem_bits(port.fileno(), wanted)
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EINVAL):
            raise


def set_modem_bits(descriptor: int, lines: Mapping[int, bool | None]) -> None:
    """Modem lines of a device by their bits (TIOCM_*), in one call; None: as it is. Raises OSError."""
    (state,) = struct.unpack("I", fcntl.ioctl(descriptor, termios.TIOCMGET, struct.pack("I", 0)))
    for line, asserted in lines.items():
        if asserted is not None:
            state = state | line if asserted else state & ~line
    fcntl.ioctl(descriptor, termios.TIOCMSET, struct.pack("I", state))


def let_others_open(port: serial.SerialBase) -> None:
    """Ends the exclusive use: the device would keep it as long as any program has it open."""
    if isinstance(port, serial.Serial) and port.is_open and not is_pty(port):
        with suppress(OSError):
            fcntl.ioctl(port.fileno(), termios.TIOCNXCL)


def _chain(error: BaseException | None, outer: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it came from; pyserial wraps the operating system's without keeping its number."""
    while error is not None and error is not outer:
        yield error
        error = error.__context__


def _failure(url: str, chain: list[BaseException]) -> TransportError:
    number = next(filter(None, map(_number, chain)), None)
    if number is None and any(not isinstance(error, OSError) for error in chain):
        return SerialSettings(f"the port {url} can't be opened so: {_words(chain[-1])}")
    kind = SerialAbsent if number is None else _CAUSES.get(number, SerialAbsent)
    if kind is SerialBusy:
        holders = ", ".join(_holders(url)) or "another program"
        return SerialBusy(f"the port {url} is held by {holders}")
    if kind is SerialForbidden:
        return SerialForbidden(f"this user may not open {url}", remedy=permission_remedy(url) or None)
    if kind is SerialSettings:
        return SerialSettings(f"the port {url} refuses its settings: {_words(chain[-1])}")
    if number == errno.ENOENT:
        folder = Path(url).parent
        missing = "" if "://" in url or folder.is_dir() else f", nor its folder {folder}"
        return SerialAbsent(f"there is no port {url}{missing}{_usb_ports()}", remedy=_where_to_look())
    if url.startswith("hwgrep://"):
        return SerialAbsent(f"no port is as {url} says{_usb_ports()}")
    remedy = "Does its server run, and are its host and port right?" if "://" in url else None
    return SerialAbsent(f"nothing answers at the port {url}: {_words(chain[-1])}", remedy=remedy)


def _where_to_look() -> str | None:
    """The remedy of a host without a folder to list, which udev makes with its first USB port; None: the usual one."""
    if host.BY_ID.is_dir():
        return None
    if ports():
        return "Name one of these ports."
    return "This host has no USB serial port now. Is the adapter plugged in? Its messages: sudo dmesg | tail"


def _usb_ports() -> str:
    """Which there are instead: a device that came back elsewhere is among them."""
    found = ports()
    return f"; USB serial ports that are there: {listed(found)}" if found else ""


def _number(error: BaseException) -> int | None:
    if isinstance(error, termios.error):
        return int(error.args[0])
    return error.errno if isinstance(error, OSError) else None


def _words(error: BaseException) -> str:
    number = _number(error)
    text = os.strerror(number) if number is not None and number > 0 else str(error)
    return text.rstrip(".")


def _holders(path: str) -> Iterator[str]:
    """Name and process id of each process that has the device open, as far as this user may see."""
    device = os.path.realpath(path)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(_leads_to(link, device) for link in (process / "fd").iterdir()):
                yield f"{(process / 'comm').read_text().strip()} (pid {process.name})"


def _leads_to(link: Path, device: str) -> bool:
    try:
        return str(link.readlink()) == device
    except OSError:
        # A descriptor that was closed meanwhile says nothing of the next one.
        return False
