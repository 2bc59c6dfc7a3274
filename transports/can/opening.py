"""Opening a bus of python-can, and telling its many reasons for not opening apart.

python-can hands what it does not know on to its interfaces, and most of them ignore it: `bitrat = 250_000` would open
the bus at the default bit rate. So keys that the interface doesn't know are refused here.
"""

from __future__ import annotations

import difflib
import errno
import fcntl
import importlib
import inspect
import logging
import os
import re
import socket
import sys
import weakref
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import can
import can.interfaces
import can.util

from .. import clock
from ..errors import (
    CanAbsent,
    CanBusy,
    CanDriverMissing,
    CanForbidden,
    CanInterfaceUnknown,
    CanSettings,
    TransportError,
    causes,
)
from ..quoting import shell_line
from ..transport import Listening, Where
from . import host

GENERAL_KEYS = frozenset(
    ("interface", "channel", "bitrate", "fd", "data_bitrate", "can_filters", "receive_own_messages", "timing", "state")
)
"""Keys of python-can itself. An interface may have no use for one: the kernel sets the bit rate of socketcan."""
SOCKETCAN = "socketcan"
NET = Path("/sys/class/net")
OWN_INTERFACES = ("proxyflash", "proxyflash-replay")
"""The interfaces that this project adds to python-can's: their buses are of this process."""
SHARED_INTERFACES = (SOCKETCAN, "udp_multicast", "virtual", "proxyflash")
"""The interfaces whose bus several programs may open at once."""
NO_WIRE = ("vcan", "vxcan")
"""Kinds of the kernel's interfaces on which nothing is acknowledged."""
LISTEN_ONLY: Mapping[str, Mapping[str, Any]] = {
    "cantact": {"monitor": True},
    "kvaser": {"driver_mode": False},
    "nixnet": {"listen_only": True},
    "pcan": {"state": can.BusState.PASSIVE},
    "seeedstudio": {"operation_mode": "silent"},
    "slcan": {"listen_only": True},
    "systec": {"state": can.BusState.PASSIVE},
    "vector": {"listen_only": True},
}
"""By python-can's interface: the keys that have the adapter acknowledge nothing."""
TIMING_KEYS = frozenset(can.typechecking.BitTimingDict.__annotations__) | frozenset(
    can.typechecking.BitTimingFdDict.__annotations__
)
"""Keys that python-can makes a bit timing of."""
LEAST_BITRATE = 1000
"""Bit/s. No CAN bus is as slow."""
CANFD_MTU = 72
"""Linux, include/uapi/linux/can.h."""
SO_RCVBUFFORCE = 33
"""Linux, include/uapi/asm-generic/socket.h."""
SO_MEMINFO, MEMINFO_DROPS = 55, 8
"""Linux, include/uapi/asm-generic/socket.h, and the place of SK_MEMINFO_DROPS in include/uapi/linux/sock_diag.h."""
RECEIVE_BYTES = 4 << 20
"""Of a socket's receive buffer: for about a second of a full bus at 1 Mbit/s. The kernel counts some 750 bytes a frame."""

_LOCKS: weakref.WeakKeyDictionary[can.BusABC, weakref.finalize[..., can.BusABC]] = weakref.WeakKeyDictionary()
"""What ends the lock on the serial adapter of a bus."""

# python-can logs failures that it raises as well; without a handler of the program's own they would go to stderr.
logging.getLogger("can").addHandler(logging.NullHandler())


def open_bus(name: str, settings: Mapping[str, Any]) -> can.BusABC:
    """Opens the bus of these settings, python-can's keys, and of nothing else: not of ~/.canrc or CAN_BITRATE.

    Raises CanAbsent, CanBusy, CanDriverMissing, CanForbidden, CanInterfaceUnknown, CanSettings.
    """
    check(name, settings)
    interface = settings["interface"]
    if interface not in OWN_INTERFACES:
        clock.real(f"bus {name!r}, which python-can opens by its interface {interface},")
    held = _held(name, str(settings.get("channel", "")))
    try:
        if interface == SOCKETCAN and settings.get("fd"):
            _check_mtu(name, settings["channel"])
        config = can.util.load_config(config=dict(settings))
        given = {key: value for key, value in config.items() if key in settings or key == "timing"}
        bus = can.Bus(ignore_config=True, **given)
        if interface == SOCKETCAN:
            _make_room(bus)
        if held is not None:
            _LOCKS[bus] = weakref.finalize(bus, os.close, held)
            held = None
        return bus
    except TransportError:
        raise
    except Exception as error:
        raise opening_error(name, interface, str(settings.get("channel", "")), error) from error
    finally:
        if held is not None:
            os.close(held)


def _held(name: str, channel: str) -> int | None:
    """A lock on the serial adapter of a bus: python-can opens it even while another program uses it, and sends commands.

    None where the channel is not a serial port, or can't be opened: opening it then fails with the reason. Raises CanBusy.
    """
    if not channel.startswith("/"):
        return None
    try:
        number = os.open(channel.partition("@")[0], os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        raise CanBusy(f"bus {name!r}: the adapter {channel} is in use by another program") from None
    return number


def check(name: str, settings: Mapping[str, Any]) -> None:
    """What can be said against the settings before anything is opened.

    Raises CanInterfaceUnknown, CanSettings, CanDriverMissing where the interface's own module can't be imported.
    """
    interface = settings.get("interface", "")
    if not interface or not isinstance(interface, str):
        raise CanSettings(f"bus {name!r} names no interface", remedy='Add one, such as interface = "socketcan".')
    if interface not in can.VALID_INTERFACES:
        known = ", ".join(sorted(can.VALID_INTERFACES))
        raise CanInterfaceUnknown(
            f"bus {name!r}: python-can has no interface {interface!r}", remedy=f"It has: {known}."
        ).about("interface")
    _check_values(name, settings)
    channel = settings.get("channel")
    if interface == SOCKETCAN and not (isinstance(channel, str) and channel):
        # Without one python-can hears all interfaces, and can send on none.
        raise CanSettings(f"bus {name!r} names no channel", remedy='Add one, such as channel = "can0".')
    try:
        _check_keys(name, interface, settings)
    except TransportError:
        raise
    except Exception as error:
        raise opening_error(name, interface, str(settings.get("channel", "")), error) from error


def where(text: str) -> Where | None:
    """The place that a target names: see `CanBus.where`."""
    interface, _, channel = text.partition(":")
    if interface not in can.VALID_INTERFACES or not channel:
        return None
    named = int(channel) if channel.isascii() and channel.isdigit() and len(channel) < 10 else channel
    return Where({"interface": interface, "channel": named}, Path(channel).name or channel)


def keys(interface: str) -> frozenset[str]:
    """What an interface takes beside its name and channel; only what all take, if its library is missing."""
    try:
        own = _keys_of(interface) - TIMING_KEYS
    except Exception:  # The modules of python-can's interfaces end in whatever their drivers raise.
        own = GENERAL_KEYS
    return own


def surprises(settings: Mapping[str, Any]) -> Iterator[str]:
    """What settings come to, in which `check` has found no fault, that is likely not meant."""
    interface, channel = settings["interface"], settings.get("channel", "")
    given = "bitrate" in settings or "timing" in settings or not TIMING_KEYS.isdisjoint(settings)
    if "data_bitrate" in settings and not settings.get("fd"):
        yield "data_bitrate is without effect: without fd = true the bus takes classic CAN frames alone"
    if interface == SOCKETCAN:
        if not (NET / channel).exists():
            yield f"there is no CAN interface {channel} now"
        if given:
            yield "bitrate is without effect: an interface of the kernel keeps the bitrate that it was brought up with"
    elif settings.get("bitrate", LEAST_BITRATE) < LEAST_BITRATE:
        yield f"bitrate = {settings['bitrate']} is in bit/s; for kbit/s write: bitrate = {settings['bitrate']}_000"
    elif interface not in OWN_INTERFACES and not given and "bitrate" in _own_keys(interface):
        yield "no bitrate is given, so the bus has its adapter's or python-can's own; say it: bitrate = 500_000"


def close_bus(bus: can.BusABC) -> None:
    """Never raises: nobody needs an error of an adapter that is gone."""
    try:
        bus.shutdown()
    except Exception as error:  # Each interface of python-can has errors of its own.
        logging.getLogger("can").debug("closing: %s", error)
        # Its slcan says goodbye to the adapter before it closes the port, and leaves it open when that fails.
        port = getattr(bus, "serialPortOrig", None)
        if port is not None:
            port.close()
    if (unlock := _LOCKS.pop(bus, None)) is not None:
        unlock()


def listening(settings: Mapping[str, Any]) -> Listening:
    """How a bus is heard: by an adapter that acknowledges nothing, where its interface has a mode for that."""
    interface = settings["interface"]
    if interface == SOCKETCAN:
        # Others use the interface, so it stays as it was brought up.
        kind, modes = host.link_info(settings["channel"])
        if kind in NO_WIRE:
            return Listening(settings, True)
        silent = "LISTEN-ONLY" in modes
        does = "acknowledges nothing (listen-only)" if silent else "acknowledges the frames of others, as before"
        return Listening(settings, True, silent, f"the interface {does if kind else 'stays as it was brought up'}")
    if interface in SHARED_INTERFACES or interface in OWN_INTERFACES:
        return Listening(settings, interface in SHARED_INTERFACES)
    mode = LISTEN_ONLY.get(interface, {})
    if mode and mode.keys() <= keys(interface):
        return Listening({**settings, **mode}, False, True, "the adapter acknowledges nothing (listen-only)")
    effect = (
        "the adapter acknowledges the frames of others, as each node does: python-can has no listen-only mode for it"
    )
    return Listening(settings, False, False, effect)


def dropped(bus: can.BusABC) -> int:
    """Frames for which a socket's receive buffer had no room; 0 where the kernel does not say."""
    try:
        told = bus.socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * (MEMINFO_DROPS + 1))  # type: ignore[attr-defined]
    except OSError:
        return 0
    return int.from_bytes(told[4 * MEMINFO_DROPS :], sys.byteorder)


def _make_room(bus: can.BusABC) -> None:
    """What comes in while this process has no processor waits in the socket's buffer: by default for 280 frames alone."""
    for option in (SO_RCVBUFFORCE, socket.SO_RCVBUF):
        try:
            bus.socket.setsockopt(socket.SOL_SOCKET, option, RECEIVE_BYTES)  # type: ignore[attr-defined]
        except OSError:
            continue  # Beyond net.core.rmem_max wants CAP_NET_ADMIN; what goes below it is taken by the other.
        return


def _check_values(name: str, settings: Mapping[str, Any]) -> None:
    for key in ("bitrate", "data_bitrate"):
        value = settings.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value <= 0):
            raise CanSettings(
                f"bus {name!r}: {key} = {value!r} is not a number of bit/s", remedy="Write it as 500_000."
            ).about(key)
    if not isinstance(settings.get("fd", False), bool):
        raise CanSettings(
            f"bus {name!r}: fd = {settings['fd']!r} is neither true nor false", remedy="Write fd = true."
        ).about("fd")


def _check_keys(name: str, interface: str, settings: Mapping[str, Any]) -> None:
    if interface == "proxyflash":
        return  # It stands for another adapter, whose keys it is given.
    known = _keys_of(interface)
    for key in settings:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise CanSettings(
                f"bus {name!r}: python-can's interface {interface} has no key {key!r}",
                remedy=f"It has: {', '.join(sorted(known - TIMING_KEYS))}.{meant}",
            ).about(key)


def _check_mtu(name: str, channel: str) -> None:
    """The kernel opens an interface that is set up for classic frames all the same, and then refuses each FD frame."""
    try:
        mtu = int((NET / channel / "mtu").read_text())
    except (OSError, ValueError):
        return  # There is no such interface: opening it fails with the reason.
    if mtu < CANFD_MTU:
        raise CanSettings(
            f"bus {name!r}: {channel} is set up for classic frames, and fd = true wants CAN FD",
            remedy=f"A vcan: {shell_line(['sudo', 'ip', 'link', 'set', 'dev', channel, 'mtu', str(CANFD_MTU)])}. "
            "An adapter: bring it up with dbitrate and fd on.",
        )


def _keys_of(interface: str) -> frozenset[str]:
    """The keys that an interface reads: its constructors' parameters, and what they look up in their keywords."""
    return GENERAL_KEYS | TIMING_KEYS | _own_keys(interface)


@cache
def _own_keys(interface: str) -> frozenset[str]:
    module_name, class_name = can.interfaces.BACKENDS[interface]
    module = importlib.import_module(module_name)
    keys: set[str] = set()
    for base in inspect.getmro(getattr(module, class_name)):
        if base is object or "__init__" not in vars(base):
            continue
        keys.update(inspect.signature(vars(base)["__init__"]).parameters)
        looked_up = re.findall(r"""kwargs(?:\.get\(|\.pop\(|\[)\s*["'](\w+)["']""", inspect.getsource(base))
        keys.update(looked_up)
    return frozenset(keys - {"self", "args", "kwargs"})


def opening_error(name: str, interface: str, channel: str, error: Exception) -> TransportError:
    """The failure of its own that stands for what python-can or one of its drivers raised."""
    said = f"bus {name!r} ({interface} {channel}): {str(error) or type(error).__name__}"
    code = next(_numbers(error), None)
    if code in (errno.EACCES, errno.EPERM):
        return CanForbidden(said)
    if code in (errno.EBUSY, errno.EADDRINUSE):
        return CanBusy(said)
    if code in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT):
        return CanDriverMissing(said, remedy="This kernel has no CAN. Run: proxyflash doctor")
    if code in (errno.ENODEV, errno.ENOENT, errno.ENXIO, errno.ENETDOWN, errno.ECONNREFUSED):
        return CanAbsent(said)
    # Where the vendor's library is missing, kvaser's module ends in a NameError, and pcan's in a bare OSError.
    missing = (can.CanInterfaceNotImplementedError, ImportError, NameError)
    if isinstance(error, missing) or "library not found" in str(error).lower():
        extra = interface.replace("_", "-")
        known = metadata.metadata("python-can").get_all("Provides-Extra") or []
        install = f"Run: pip install {shell_line([f'python-can[{extra}]'])}" if extra in known else None
        return CanDriverMissing(said, remedy=install)
    if isinstance(error, can.CanInitializationError):
        return CanAbsent(said)
    return CanSettings(said)


def _numbers(error: BaseException | None) -> Iterator[int]:
    """The error numbers of an error and of what it was raised for."""
    for cause in causes(error, contexts=True):
        number = cause.errno if isinstance(cause, OSError) else getattr(cause, "error_code", None)
        if isinstance(number, int):
            yield number
