"""CAN and CAN FD through python-can: any of its interfaces, by its own configuration names.

One reader thread per bus hands frames to channels by arbitration id; nobody else reads from the bus. Whatever ends the
bus (the adapter unplugged, bus-off) reaches every channel that waits, at once; so does, within a second, that nobody
acknowledges.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import can

from .. import clock
from ..deadline import Deadline
from ..errors import BusOff, CanGone, CanOverrun, CanSettings, CanTimeout, NotAcknowledged, TransportError
from ..recording.recorder import Recorder
from ..transport import HostCheck, Listening, Transport, Where
from . import host, opening
from .bits import frame_seconds
from .opening import close_bus, open_bus

LOOK_SECONDS = 0.1
"""How long the adapter may keep a sender before it looks at the bus's state again."""
READ_SECONDS = 0.02
"""How long the reader waits for a frame before it looks whether the bus was closed or waiting threads have to be woken.

Closing a bus takes as long where nothing wakes its `recv`: python-can has no way to do so. A socketcan bus and the
buses of this project are woken, so their reader waits without a limit as long as frames are acknowledged.
"""
CLOSE_SECONDS = 2.0
"""How long closing waits for a driver that doesn't come back from receiving."""
FULL_SECONDS = 0.0005
"""The pause after a driver said at once that its queue is full (ENOBUFS): no descriptor shows when it has room."""
QUEUE_LIMIT = 10_000
"""Frames that a channel keeps unread."""
ERROR_CONTROLLER, ERROR_ACK, ERROR_BUS_OFF = 0x04, 0x20, 0x40
"""Bits of an error frame's id (Linux, include/uapi/linux/can/error.h: CAN_ERR_CRTL, CAN_ERR_ACK, CAN_ERR_BUSOFF)."""
RX_OVERFLOW, TX_WARNING, TX_PASSIVE, ACTIVE = 0x01, 0x08, 0x20, 0x40
"""Bits of data[1] with ERROR_CONTROLLER (the same file, CAN_ERR_CRTL_...)."""
CLASSIC_BITS, FD_BITS = 130, (30, 566)
"""Bits of a frame of 8 bytes with an extended id; of one of 64 bytes, at both bit rates, with a mean of stuff bits."""
STANDARD_MASK, EXTENDED_MASK = 0x7FF, 0x1FFF_FFFF
MOST_FILTERS = 64
"""Ids that the kernel is asked to filter by; it takes up to 512 (Linux, CAN_RAW_FILTER_MAX), one after the other."""
UNACKNOWLEDGED_LIMIT = 8
"""Error frames without a frame that came through between, until a sender gets the error that nobody acknowledges."""
UNACKNOWLEDGED_SECONDS = 0.5
"""How long that must last until waiting channels fail, too: a part that resets is off the bus for a while."""


@dataclass(frozen=True, slots=True)
class CanId:
    """An arbitration id; `extended` for 29 bits."""

    value: int
    extended: bool = False

    def __str__(self) -> str:
        return f"0x{self.value:08X}" if self.extended else f"0x{self.value:03X}"


class CanChannel:
    """Frames with one of the `receive` ids that came in since it was opened, in order, and sending under `transmit`."""

    def __init__(self, bus: CanBus, transmit: CanId, receive: tuple[CanId, ...], fd: bool) -> None:
        self.transmit = transmit
        self.receive = receive
        self.fd = fd
        self._bus = bus
        self._frames: deque[can.Message | TransportError] = deque()
        self._changed = clock.Condition()
        self._waiting = False
        self._interruption: TransportError | None = None
        self._failure: TransportError | None = None

    def send(
        self, data: bytes, deadline: Deadline | float, *, under: CanId | None = None, bit_rate_switch: bool = True
    ) -> None:
        """Sends one frame under `under`, or else `transmit`. Raises CanTimeout, CanGone, BusOff, NotAcknowledged."""
        deadline = Deadline.of(deadline)
        identifier = under or self.transmit
        self._bus.send(
            can.Message(
                arbitration_id=identifier.value,
                is_extended_id=identifier.extended,
                data=data,
                is_fd=self.fd,
                bitrate_switch=self.fd and bit_rate_switch,
            ),
            deadline,
        )

    def recv(self, deadline: Deadline | float) -> can.Message | None:
        """The next frame; None when the deadline passes first.

        Raises CanOverrun once at the place where frames were lost, NotAcknowledged when nobody is on the bus to answer,
        CanGone, BusOff.
        """
        deadline = Deadline.of(deadline)
        with self._changed:
            while not self._frames:
                if self._failure is not None:
                    raise copy_error(self._failure)
                self._waiting = True
                in_time = self._changed.wait(deadline.remaining)
                self._waiting = False
                interruption, self._interruption = self._interruption, None
                if interruption is not None and not self._frames:
                    raise interruption
                if not in_time and not self._frames and self._failure is None:
                    return None
            item = self._frames.popleft()
        if isinstance(item, TransportError):
            raise item
        return item

    def drop(self, unwanted: Callable[[can.Message], bool]) -> None:
        """Forgets those of the unread frames that are unwanted."""
        with self._changed:
            if self._frames:
                kept = (item for item in self._frames if isinstance(item, TransportError) or not unwanted(item))
                self._frames = deque(kept)

    def drain(self) -> int:
        """Forgets what came in and was not read; the number of frames."""
        with self._changed:
            count = len(self._frames)
            self._frames.clear()
            return count

    def close(self) -> None:
        """Takes it off the bus; a waiting thread gets CanGone."""
        self._bus.forget(self)
        self.fail(CanGone(f"the channel {', '.join(map(str, self.receive))} was closed", remedy=""))

    def take(self, message: can.Message) -> None:
        """The reader's: a frame for this channel."""
        with self._changed:
            if len(self._frames) < QUEUE_LIMIT:
                self._frames.append(message)
            elif not isinstance(self._frames[-1], TransportError):
                ids = ", ".join(map(str, self.receive))
                self._frames.append(CanOverrun(f"{QUEUE_LIMIT:,} frames under {ids} came in and were not read"))
            if self._waiting:
                self._changed.notify()

    def lost_frames(self, error: TransportError) -> None:
        """The reader's: between what came in and what will come, frames are missing."""
        with self._changed:
            if not self._frames or not isinstance(self._frames[-1], TransportError):
                self._frames.append(error)
            self._changed.notify()

    def interrupt(self, error: TransportError) -> None:
        """The reader's: what is waited for won't come; a waiting thread gets the error, and may wait again."""
        with self._changed:
            if self._waiting:
                self._interruption = error
                self._changed.notify()

    def fail(self, error: TransportError) -> None:
        """The reader's: nothing more will come."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()


class CanBus(Transport):
    """One CAN adapter, opened once and shared by everything that talks on its bus.

    `failure`: why it ended, None while it works. `frame_seconds`: about what its longest frame takes on the wire, 0.0
    when the bit rate isn't known (the kernel may have set it). `recorder` records its frames. `sent_by_kernel`: ids under
    which the kernel's ISO-TP sends on this bus; its frames come in here like others. `bit_rates`: of arbitration and data,
    in bit/s; None where the settings have none.
    """

    kind: ClassVar[str] = "can"
    settings_schema: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "interface": {"type": "string", "description": 'An interface of python-can, such as `"socketcan"`. Needed.'},
        "channel": {
            "type": ["string", "integer"],
            "description": 'What the interface calls the bus, such as `"can0"`.',
        },
        "bitrate": {
            "type": "integer",
            "description": "Bit rate, in bit/s. Without effect on Linux's own interfaces, which are brought up with one.",
        },
        "fd": {"type": "boolean", "description": "Whether the bus is a CAN FD bus."},
        "data_bitrate": {"type": "integer", "description": "Bit rate of the data phase of CAN FD frames, in bit/s."},
    }
    where_form: ClassVar[str] = "socketcan:CHANNEL"

    def __init__(self, name: str, bus: can.BusABC, interface: str, channel_name: str, fd: bool) -> None:
        self.name = name
        self.interface = interface
        self.channel_name = channel_name
        self.fd = fd
        self.failure: TransportError | None = None
        self.frame_seconds = 0.0
        self.bit_rates: tuple[int, int] | None = None
        self.sent_by_kernel: set[CanId] = set()
        self._echoes = False
        self._recorder: Recorder | None = None
        self._bus = bus
        self._channels: dict[tuple[int, bool], tuple[CanChannel, ...]] = {}
        self._watchers: tuple[Callable[[can.Message], object], ...] = ()
        self._lock = clock.Lock()
        self._sending = clock.Lock()
        self._unacknowledged = 0
        self._passive = False
        self._overruns = 0
        self._refused_since = 0.0
        self._refused_last = 0.0
        self._closing = False
        self._pausing = False
        self._settings: Mapping[str, Any] = {}
        self._ended = clock.Event()
        self._start_reading()

    @classmethod
    def open(cls, name: str, settings: Mapping[str, Any]) -> Self:
        """Opens the bus; `settings` are python-can's keys (interface, channel, bitrate, fd, data_bitrate, ...).

        Raises CanAbsent, CanBusy, CanDriverMissing, CanForbidden, CanInterfaceUnknown, CanSettings.
        """
        bus = open_bus(name, settings)
        channel = str(settings.get("channel", ""))
        opened = cls(name, bus, str(settings["interface"]), channel, bool(settings.get("fd", False)))
        opened._settings = settings
        opened._echoes = bool(settings.get("receive_own_messages", False))
        if bitrate := settings.get("bitrate"):
            fast = settings.get("data_bitrate") or bitrate
            opened.bit_rates = bitrate, fast
            opened.frame_seconds = FD_BITS[0] / bitrate + FD_BITS[1] / fast if opened.fd else CLASSIC_BITS / bitrate
        return opened

    @classmethod
    def where(cls, text: str) -> Where | None:
        """INTERFACE:CHANNEL, an interface of python-can and what it calls a bus; digits are a number."""
        return opening.where(text)

    @classmethod
    def nearly(cls, text: str) -> str:
        """A CAN interface of Linux by its bare name, as candump takes it: can0."""
        return f"{opening.SOCKETCAN}:{text}" if re.fullmatch(r"(?:v|vx|sl)?can[\w.-]*", text) else ""

    @classmethod
    def wheres(cls) -> Iterator[str]:
        yield from (f"{opening.SOCKETCAN}:{link.name}" for link in host.interfaces())

    @classmethod
    def keys(cls, settings: Mapping[str, Any]) -> Iterable[str]:
        return opening.keys(settings["interface"])

    @classmethod
    def check(cls, name: str, settings: Mapping[str, Any]) -> None:
        opening.check(name, settings)

    @classmethod
    def listening(cls, settings: Mapping[str, Any]) -> Listening:
        return opening.listening(settings)

    @property
    def lost(self) -> int:
        """Frames for which the socket's buffer had no room, of socketcan; those that an adapter reports as overruns."""
        return self._overruns + (opening.dropped(self._bus) if self.interface == opening.SOCKETCAN else 0)

    @classmethod
    def surprises(cls, settings: Mapping[str, Any]) -> Iterator[str]:
        return opening.surprises(settings)

    @classmethod
    def host_checks(cls) -> Iterator[HostCheck]:
        return host.checks()

    @property
    def recorder(self) -> Recorder | None:
        return self._recorder

    @recorder.setter
    def recorder(self, recorder: Recorder | None) -> None:
        with self._lock:
            self._recorder = recorder
            self._filter()

    def channel(self, transmit: CanId, receive: CanId | tuple[CanId, ...], *, fd: bool | None = None) -> CanChannel:
        """A channel; `fd` None: as the bus. Raises CanSettings when it wants FD of a bus opened without."""
        if fd and not self.fd:
            raise CanSettings(f"{self.name} is opened without fd", remedy="Set fd = true and data_bitrate for it.")
        wanted = receive if isinstance(receive, tuple) else (receive,)
        channel = CanChannel(self, transmit, wanted, self.fd if fd is None else fd)
        self.listen(channel)
        return channel

    def listen(self, channel: CanChannel) -> None:
        """Puts a channel on the bus, until it is closed."""
        with self._lock:
            if self.failure is not None:
                channel.fail(self.failure)
            for item in channel.receive:
                key = (item.value, item.extended)
                self._channels[key] = (*self._channels.get(key, ()), channel)
            self._filter()

    def forget(self, channel: CanChannel) -> None:
        """Takes a channel off the bus."""
        with self._lock:
            for item in channel.receive:
                key = (item.value, item.extended)
                left = tuple(other for other in self._channels.get(key, ()) if other is not channel)
                if left:
                    self._channels[key] = left
                else:
                    self._channels.pop(key, None)
            self._filter()

    def is_foreign(self, message: can.Message) -> bool:
        """Whether a frame that came in was sent by another program, as far as that is known.

        Of the kernel's ISO-TP only its user knows what it sends.
        """
        if CanId(message.arbitration_id, message.is_extended_id) in self.sent_by_kernel:
            return False
        # An adapter may tell its echoes by is_rx. The kernel has none for who doesn't ask; its is_rx is about this host.
        return not self._echoes and (message.is_rx or self.interface == "socketcan")

    def send(self, message: can.Message, deadline: Deadline | float) -> None:
        """Sends one frame. Raises CanTimeout, CanGone, BusOff, NotAcknowledged."""
        deadline = Deadline.of(deadline)
        if not self._sending.acquire(timeout=max(deadline.remaining, LOOK_SECONDS)):
            raise CanTimeout(f"{self.name}: others kept the adapter busy")
        try:
            if self._recorder is not None:
                self._recorder.can(self.name, True, message)
            for watcher in self._watchers:
                watcher(message)
            while True:
                if self.failure is not None:
                    raise copy_error(self.failure)
                if self._unacknowledged >= UNACKNOWLEDGED_LIMIT:
                    self._acknowledged()
                    raise self._not_acknowledged()
                if self._sent(message, deadline):
                    return
        finally:
            self._sending.release()

    @classmethod
    def no_load(cls, name: str, settings: Mapping[str, Any]) -> str:
        return "" if "bitrate" in settings else f"the bench file gives no bitrate for {name}"

    def change_bit_rate(self, bitrate: int) -> None:
        """Has the adapter use another bit rate, in bit/s. Its channels stay.

        Frames that are not sent yet, and those that come meanwhile, are lost. An adapter of python-can is opened again, by its
        settings. Raises CanSettings where its bit rate is another program's to set, and what `open` does; the bus has ended then.
        """
        if self.failure is not None:
            raise copy_error(self.failure)
        own = getattr(self._bus, "change_bit_rate", None)
        try:
            with self._sending:
                if own is not None:
                    own(bitrate)
                elif self.interface in opening.SHARED_INTERFACES:
                    raise can.CanOperationError("it is the system's")
                else:
                    self._open_again(bitrate)
                self._acknowledged()
        except can.CanOperationError as error:
            raise CanSettings(
                f"the bit rate of {self.name} ({self.interface}) can't be changed: {error}",
                remedy="Set the bit rate that its parts begin with outside of proxyflash, and in the bench file.",
            ) from error

    def _open_again(self, bitrate: int) -> None:
        self._pausing = True
        self._waiting.wake()
        self._reader.join(CLOSE_SECONDS)
        close_bus(self._bus)
        try:
            self._bus = open_bus(self.name, {**self._settings, "bitrate": bitrate})
        except TransportError as error:
            self._end(error)
            raise
        self._pausing = False
        self._start_reading()

    def _start_reading(self) -> None:
        self._waiting = _waiting_of(self._bus, self.interface)
        self._reader = clock.Thread(target=self._read, name=f"can {self.name}")
        self._reader.start()

    def load(self, seconds: float) -> float | None:
        """The share of time, 0.0 to 1.0, that frames take on this bus, measured over `seconds`; None: no bit rates known.

        Raises what ended the bus.
        """
        if self.bit_rates is None:
            return None
        bit_rates = self.bit_rates
        busy = 0.0

        def count(message: can.Message) -> None:
            nonlocal busy
            if not message.is_error_frame:
                busy += frame_seconds(message, *bit_rates)

        with self._lock:
            self._watchers = (*self._watchers, count)
            self._filter()
        begin = clock.monotonic()
        try:
            end = Deadline.after(seconds)
            while not end.expired and self.failure is None:
                self._ended.wait(end.remaining)
        finally:
            passed = clock.monotonic() - begin
            with self._lock:
                self._watchers = tuple(watcher for watcher in self._watchers if watcher is not count)
                self._filter()
        if self.failure is not None:
            raise copy_error(self.failure)
        return min(busy / passed, 1.0)

    def close(self) -> None:
        """Ends it; a thread that waits on one of its channels gets CanGone."""
        if self._closing:
            return
        self._closing = True
        self._end(CanGone(f"{self.name} was closed", remedy=""))
        self._waiting.wake()
        self._reader.join(CLOSE_SECONDS)
        close_bus(self._bus)
        if not self._reader.is_alive():
            self._waiting.close()

    def _filter(self) -> None:
        """Has the kernel keep the frames that no channel is for: a busy bus has more than this process could look at.

        Error frames come all the same. Other interfaces' filters are python-can's own, which come too late to spare work.
        """
        if self.interface != "socketcan" or self.failure is not None:
            return
        wanted: list[can.typechecking.CanFilter] | None = [
            {"can_id": value, "can_mask": EXTENDED_MASK if extended else STANDARD_MASK, "extended": extended}
            for value, extended in self._channels
        ]
        if self._recorder is not None or self._watchers or len(self._channels) > MOST_FILTERS:
            wanted = None
        # The reader reports an interface that is gone.
        with contextlib.suppress(can.CanError, OSError):
            self._bus.set_filters(wanted)

    def _sent(self, message: can.Message, deadline: Deadline) -> bool:
        """Whether the driver took the frame; False when its queue is full and there is time left."""
        try:
            self._bus.send(message, timeout=min(LOOK_SECONDS, max(deadline.remaining, 0.001)))
            return True
        except (can.CanError, OSError) as error:
            if not _is_full(error):
                self._end(self._named(error))
            elif not deadline.expired:
                if not isinstance(error, can.CanTimeoutError):
                    clock.sleep(FULL_SECONDS)
            elif self._unacknowledged:
                self._acknowledged()
                raise self._not_acknowledged() from error
            else:
                raise CanTimeout(f"{self.name}: the adapter took no frame in time; the bus is full") from error
            return False

    def _named(self, error: Exception) -> TransportError:
        """The failure that a driver's error means, where it ends the bus."""
        said = str(getattr(error, "strerror", None) or error) or type(error).__name__
        if re.search(r"bus[-_ ]?off", said, re.IGNORECASE):
            return BusOff(f"the adapter of {self.name} went bus-off")
        return CanGone(f"{self.name}: {said}")

    def _not_acknowledged(self) -> NotAcknowledged:
        return NotAcknowledged(f"no node on {self.name} acknowledges frames")

    def _acknowledged(self) -> None:
        self._unacknowledged = 0
        self._passive = False

    # The reader's thread.

    def _read(self) -> None:
        while not (self._closing or self._pausing):
            try:
                message = self._waiting.recv(READ_SECONDS if self._unacknowledged else None)
            except Exception as error:  # Each interface of python-can has errors of its own.
                self._end(self._named(error))
                return
            if self._recorder is not None and message is not None:
                self._record(self._recorder, message)
            if message is not None:
                for watcher in self._watchers:
                    watcher(message)
            if message is None or message.is_error_frame:
                if message is not None:
                    self._error_frame(message)
                if self._unacknowledged:
                    self._tell_those_who_wait()
                continue
            self._acknowledged()
            if message.is_remote_frame:
                continue
            for channel in self._channels.get((message.arbitration_id, message.is_extended_id), ()):
                channel.take(message)

    def _record(self, recorder: Recorder, message: can.Message) -> None:
        own = self.sent_by_kernel
        recorder.can(self.name, bool(own) and CanId(message.arbitration_id, message.is_extended_id) in own, message)

    def _error_frame(self, message: can.Message) -> None:
        kinds = message.arbitration_id
        detail = message.data[1] if kinds & ERROR_CONTROLLER and len(message.data) > 1 else 0
        if kinds & ERROR_BUS_OFF:
            self._end(BusOff(f"the adapter of {self.name} went bus-off"))
            return
        if detail & RX_OVERFLOW:
            self._overruns += 1
            for channel in self._open_channels():
                channel.lost_frames(CanOverrun(f"the adapter of {self.name} lost frames: they were not read in time"))
        if kinds & ERROR_ACK or detail & TX_PASSIVE:
            now = clock.monotonic()
            if not self._passive and now - self._refused_last > UNACKNOWLEDGED_SECONDS / 2:
                self._unacknowledged = 0
            self._refused_last = now
            if not self._unacknowledged:
                self._refused_since = now
            # Unacknowledged frames alone never take a controller beyond error passive; many drivers tell only that.
            self._passive = self._passive or bool(detail & TX_PASSIVE)
            self._unacknowledged = UNACKNOWLEDGED_LIMIT if self._passive else self._unacknowledged + 1
        elif detail & (TX_WARNING | ACTIVE):
            self._acknowledged()

    def _tell_those_who_wait(self) -> None:
        now = clock.monotonic()
        lasts = self._passive or now - self._refused_last < UNACKNOWLEDGED_SECONDS / 2
        if lasts and now - self._refused_since >= UNACKNOWLEDGED_SECONDS:
            self._refused_since = now
            for channel in self._open_channels():
                channel.interrupt(self._not_acknowledged())

    def _open_channels(self) -> list[CanChannel]:
        """Each once, in the same order whenever the same is done: a set's order is that of addresses."""
        with self._lock:
            return list(dict.fromkeys(channel for listed in self._channels.values() for channel in listed))

    def _end(self, error: TransportError) -> None:
        with self._lock:
            if self.failure is None:
                self.failure = error
                if self._recorder is not None:
                    self._recorder.note(self.name, f"{error.code} {error.cause}")
        self._ended.set()
        for channel in self._open_channels():
            channel.fail(self.failure)


class _Waiting:
    """How the reader waits for a frame of a bus that nothing wakes. `recv`: None when none came."""

    def __init__(self, bus: can.BusABC) -> None:
        self._bus = bus

    def recv(self, seconds: float | None) -> can.Message | None:
        """Waits at most `seconds`; None: until a frame comes, or as long as it can't be woken."""
        return self._bus.recv(READ_SECONDS)

    def wake(self) -> None:
        """Has `recv` return soon."""

    def close(self) -> None:
        """After the reader has ended."""


class _WaitingForOwn(_Waiting):
    """Of a bus of this project: its `recv` returns None when it is woken."""

    def recv(self, seconds: float | None) -> can.Message | None:
        return self._bus.recv(seconds)

    def wake(self) -> None:
        self._bus.wake()  # type: ignore[attr-defined]


class _WaitingForSocket(_Waiting):
    """Of a bus that is one socket: a pipe beside it wakes."""

    def __init__(self, bus: can.BusABC) -> None:
        super().__init__(bus)
        self._woken, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._readable = select.poll()
        self._readable.register(bus.fileno(), select.POLLIN)
        self._readable.register(self._woken, select.POLLIN)

    def recv(self, seconds: float | None) -> can.Message | None:
        if not self._readable.poll(None if seconds is None else seconds * 1000):
            return None
        return self._bus.recv(0)

    def wake(self) -> None:
        os.write(self._waker, b"\0")

    def close(self) -> None:
        os.close(self._woken)
        os.close(self._waker)


def _waiting_of(bus: can.BusABC, interface: str) -> _Waiting:
    if hasattr(bus, "wake"):
        return _WaitingForOwn(bus)
    return _WaitingForSocket(bus) if interface == "socketcan" and hasattr(bus, "socket") else _Waiting(bus)


def copy_error(error: TransportError) -> TransportError:
    """The same failure for one more who meets it: each names a component of its own in it."""
    return type(error)(error.cause, remedy=error.remedy)


def _is_full(error: Exception) -> bool:
    """Whether an error of sending means only that the adapter's queue is full."""
    if getattr(error, "error_code", getattr(error, "errno", None)) in (errno.ENOBUFS, errno.EAGAIN, errno.ETIMEDOUT):
        return True
    text = str(error).lower()
    return isinstance(error, can.CanTimeoutError) or any(word in text for word in ("timeout", "time out", "full"))
