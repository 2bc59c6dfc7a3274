"""`canopen`: program download after CiA 302-3. A device is only read until a program is to be loaded: stop, clear, download, the
device's word on it, start. Either of stop and start may restart the device, with an answer or without.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

from ...transports import clock
from ...transports.can.bus import CanBus, CanId
from ...transports.deadline import Deadline
from ...transports.errors import TransportError
from ..errors import (
    ImageWrongPart,
    Meaning,
    OperationFailed,
    PartError,
    PartRefused,
    RebootFailed,
    Step,
    Unsupported,
    VerifyMismatch,
    WrongPart,
    silence,
)
from ..flasher import Capability, Identity, ProbeResult, Slot, SlotBootloader, State, Target
from . import codec, lss
from .codec import ABSENT, MISSING, SILENCES, STATUS_MEANINGS, Abort, Control, Nmt, Object, Status, status_words
from .profile import CanopenAddress, CanopenProfile
from .sdo import LOST, Aborted, Sdo

if TYPE_CHECKING:
    from ..describing import Describer

POLL_SECONDS = 0.1
"""Between two looks at a device that restarts or works."""
NOT_STARTED_REMEDY = (
    "Is the file a program for this device: with the header and the signature that its bootloader wants?"
)
HEARTBEAT_SECONDS = 3.0
"""How long a heartbeat is waited for, at most."""
PRE_OPERATIONAL_SECONDS = 1.0
"""How long a device may take to become pre-operational."""
SEND_SECONDS = 1.0
MCUBOOT_MAGIC = b"\x3d\xb8\xf3\x96"
"""An image's first bytes; its size stands at offset 12 (MCUboot's design.md, "Image format")."""
NO_STATUS = "the device's acknowledgement of all bytes: it has no 0x1F57"


@contextmanager
def _judged() -> Iterator[None]:
    """An abort becomes an error that the engine knows."""
    try:
        yield
    except Aborted as aborted:
        raise aborted.error from None


class CanopenFlasher(SlotBootloader):
    """One node."""

    protocol = "canopen"
    other_names = ("canopennode", "cia302")
    bus_kind = "can"
    probes_application = True
    silences = SILENCES
    Address = CanopenAddress
    Profile = CanopenProfile

    def __init__(self, bus: CanBus, address: CanopenAddress, profile: CanopenProfile) -> None:
        self._bus = bus
        self._address = address
        self._profile = profile
        self._node = address.node
        self._sdo = Sdo(bus, address.node, profile.answer)
        self._nmt = bus.channel(CanId(codec.NMT), CanId(codec.HEARTBEAT + address.node), fd=False)
        self._serial: int | None = None
        self._block = profile.block
        self._is_assigned = self._is_stopped = self._was_operational = self._has_answered = False
        self._has_program = True
        self._present = b""
        """The image that the device holds already, by its identification."""
        self._uploaded = b""
        self._word = ""
        """What the device said of what was uploaded."""

    @classmethod
    def attach(cls, bus: CanBus, address: CanopenAddress, profile: CanopenProfile) -> Self:
        return cls(bus, address, profile)

    @property
    def unreadable(self) -> str:
        return self.readback_unavailable_reason(self._profile)

    @classmethod
    def readback_unavailable_reason(cls, profile: object) -> str:
        return "program data, object 1F50, is written and never read (CiA 302-3)"

    @classmethod
    def probe(
        cls, bus: CanBus, address: CanopenAddress, profile: CanopenProfile, *, active: bool, deadline: Deadline
    ) -> ProbeResult | None:
        node = cls(bus, address, profile)
        try:
            if not node._is_awake(deadline.sooner(2 * profile.answer)):
                return None
            with _judged():
                control = node._control()
                state = State.RUNNING if control in (None, Control.START, Control.ON_TRIAL) else State.BOOTLOADER
                return ProbeResult(state, node._identity(control))
        finally:
            node.close()

    def look(self) -> Identity:
        """Reads alone: the device feels nothing of it."""
        return self.connect()

    def connect(self) -> Identity:
        if not self._is_awake(Deadline.after(3 * self._profile.answer)):
            raise silence(
                SILENCES[Step.QUESTION if self._has_answered else Step.CONNECT],
                f"node {self._node} does not answer on {self._bus.name}",
                "Is it powered, its node id right, and the bus's bit rate that of the device? A device may be deaf "
                "while it erases. In the state stopped a node answers nothing but NMT: reset it then.",
            )
        self._has_answered = True
        with _judged():
            identity = self._identity(self._control())
        self._check(identity)
        self.capabilities = Capability.CHECK | Capability.BOOT
        return identity

    def slot(self, target: Target | None = None) -> Slot:
        if not self._has_program:
            raise Unsupported(
                f"node {self._node} has no program {self._profile.program}: it has no 0x1F51:{self._profile.program}",
                remedy="Is program of its profile right, by the device's manual? Its maker may have another way to update it.",
            )
        return Slot(f"program {self._profile.program}", self._profile.slot_size)

    def prepare(self, image: bytes) -> Iterator[str]:
        profile, program = self._profile, self._profile.program
        self._uploaded = self._present = b""
        self._identification(image)
        with _judged():
            control = self._control()
            self._await_heartbeat()
            if profile.identification == "crc32" and control not in (None, Control.CLEAR) and self._holds(image):
                self._present = image
                return
            if control == Control.ON_TRIAL and profile.confirm:
                yield f"confirms program {program}, which runs on trial"
                self._command(Control.ON_TRIAL, "the confirmation of the program")
            if control != Control.STOP:
                yield f"stops program {program}"
                self._is_stopped = True
                self._command(profile.stop, "the stop of the program", silent=True)
                self._await_stopped()
            yield f"erases program {program}"
            self._is_stopped = True
            self._command(Control.CLEAR, "the erase of the program", seconds=profile.work)

    def upload(self, image: bytes) -> Iterator[int]:
        if self._present == image:
            yield len(image)
            return
        with _judged():
            for done in self._downloaded(image):
                if 0 < done < len(image):
                    yield done
            self._word = self._judgement()
            if self._profile.validation is not None:
                self._command(self._profile.validation, "the validation of the program", seconds=self._profile.work)
        self._uploaded = image
        yield len(image)

    def verdict(self, image: bytes) -> str:
        wanted = self._identification(image)
        if wanted is None:
            return self._word if self._uploaded == image else ""
        value, proof = wanted
        with _judged():
            found = self._program_id()
        if found != value:
            raise VerifyMismatch(
                f"0x1F56:{self._profile.program} of the device is "
                f"{'absent' if found is None else f'0x{found:08X}'}, by the file it is 0x{value:08X}"
            )
        return "; ".join(filter(None, (proof, self._word if self._uploaded == image else "")))

    def activate(self, image: bytes) -> None:
        self._start(image)

    def start_application(self) -> None:
        self._start(b"")

    def leave(self) -> None:
        if self._is_stopped:
            self.start_application()

    def close(self) -> None:
        ident = self._address.ident
        if self._is_assigned and ident is not None:
            self._is_assigned = False
            with suppress(TransportError, PartError), lss.master(self._bus) as master:
                master.give_back(ident, self._node)
        self._sdo.close()
        self._nmt.close()

    @classmethod
    def describer(cls, name: str, address: CanopenAddress, profile: object) -> Describer:
        from .describe import CanopenDescriber

        return CanopenDescriber(name, address.node)

    # Who it is.

    def _is_awake(self, deadline: Deadline) -> bool:
        """Whether the device answers until then; a node without a node id gets its own.

        It is asked often, for it may be restarting, and given more and more time, for it may be slow.
        """
        patience = POLL_SECONDS
        while True:
            began = Deadline.after(POLL_SECONDS)
            if self._sdo.is_there(min(patience, self._profile.answer)):
                return True
            if deadline.expired:
                return False
            ident = self._address.ident
            if self._address.lss and ident is not None:
                self._nmt.drain()
                with lss.master(self._bus) as master:
                    self._is_assigned |= master.assign(ident, self._node)
                # It boots up under its node id.
                self._nmt.recv(POLL_SECONDS)
            patience *= 2
            clock.sleep(min(began.remaining, deadline.remaining))

    def _identity(self, control: int | None) -> Identity:
        numbers = {
            name: self._number(Object.IDENTITY, sub)
            for sub, name in enumerate(("vendor", "product", "revision", "serial"), 1)
        }
        self._serial = numbers["serial"]
        version = self._text(Object.SOFTWARE_VERSION)
        runs = control in (None, Control.START, Control.ON_TRIAL)
        details = {
            "device type": self._number(Object.DEVICE_TYPE),
            **{name: value for name, value in numbers.items() if name != "serial"},
        }
        return Identity(
            part=self._text(Object.DEVICE_NAME),
            serial="" if self._serial is None else f"{self._serial:08X}",
            version=version if runs else "",
            bootloader="" if runs else version,
            details={
                **{name: f"0x{value:08X}" for name, value in details.items() if value is not None},
                "hardware version": self._text(Object.HARDWARE_VERSION),
            },
        )

    def _check(self, identity: Identity) -> None:
        """Raises WrongPart."""
        address = self._address
        if self._profile.part not in identity.part:
            raise WrongPart(f"node {self._node} is {identity.part!r}, the profile's part is {self._profile.part!r}")
        if address.serial is not None and self._serial not in (None, address.serial):
            raise WrongPart(f"node {self._node} has the serial number {identity.serial}, not {address.serial_number}")
        vendor = identity.details.get("vendor")
        if address.vendor is not None and vendor not in (None, f"0x{address.vendor:08X}"):
            raise WrongPart(f"node {self._node} is of vendor {vendor}, not 0x{address.vendor:08X}")

    def _number(self, index: int, sub: int = 0, seconds: float = 0.0) -> int | None:
        data = self._sdo.find(index, sub, seconds=seconds)
        return None if data is None else int.from_bytes(data[:4], "little")

    def _text(self, index: int) -> str:
        return (self._sdo.find(index) or b"").partition(b"\0")[0].decode("utf-8", "replace")

    # Program control.

    def _control(self) -> int | None:
        """What 1F51 reads; None: it can only be written, or the device has no such program."""
        try:
            return int.from_bytes(self._sdo.read(Object.PROGRAM_CONTROL, self._profile.program)[:1], "little")
        except Aborted as aborted:
            if aborted.code not in ABSENT:
                raise
            self._has_program = aborted.code not in MISSING
            return None

    def _command(self, value: int, what: str, *, seconds: float = 0.0, silent: bool = False) -> None:
        """Writes 1F51. `silent`: no answer is as good as one. A device that is not yet pre-operational is asked again."""
        until = Deadline.after(PRE_OPERATIONAL_SECONDS)
        while True:
            if self._profile.preoperational:
                self._nmt.send(codec.nmt(Nmt.PRE_OPERATIONAL, self._node), SEND_SECONDS)
            try:
                self._sdo.write(
                    Object.PROGRAM_CONTROL,
                    self._profile.program,
                    bytes((value,)),
                    what,
                    seconds=seconds,
                    tries=1 if silent else 3,
                )
                return
            except LOST:
                if not silent:
                    raise
                return
            except Aborted as aborted:
                if aborted.code != Abort.STATE or until.expired:
                    raise
            clock.sleep(POLL_SECONDS)

    def _await_heartbeat(self) -> None:
        """Whether the device is operational, so that it becomes so again."""
        milliseconds = self._number(Object.HEARTBEAT_TIME) or 0
        deadline = Deadline.after(min(1.5 * milliseconds / 1000, HEARTBEAT_SECONDS))
        while milliseconds and (frame := self._nmt.recv(deadline)) is not None:
            if (state := codec.heartbeat(bytes(frame.data))) is not None:
                self._was_operational |= state == codec.OPERATIONAL
            if state is not None or deadline.expired:
                return

    def _await_stopped(self) -> None:
        """Raises RebootFailed, WrongPart, and an error that passes where the program runs on."""
        serial = self._serial

        def is_stopped() -> bool:
            return self._control() not in (Control.START, Control.ON_TRIAL)

        if not self._await(is_stopped, "it was to stop its program"):
            raise OperationFailed(f"node {self._node} was asked to stop program {self._profile.program}, and runs on")
        found = self._number(Object.IDENTITY, 4)
        if serial is not None and found is not None and found != serial:
            raise WrongPart(f"after the stop node {self._node} has the serial number {found:08X}, not {serial:08X}")

    def _await(self, done: Callable[[], bool], what: str) -> bool:
        """Whether it is done until `start` is over. Raises RebootFailed where the device is silent then."""
        deadline, awake = Deadline.after(self._profile.start), False
        while True:
            with suppress(*LOST):
                if (awake := self._is_awake(deadline)) and done():
                    return True
            if deadline.expired:
                break
            clock.sleep(POLL_SECONDS)
        if not awake:
            raise silence(
                Meaning.GONE, f"node {self._node} did not answer within {self._profile.start:g} s after {what}"
            )
        return False

    def _downloaded(self, image: bytes) -> Iterator[int]:
        """Bytes acknowledged. A server that aborts a block transfer gets segments."""
        program, work = self._profile.program, self._profile.work
        if self._block:
            accepted = False
            try:
                for done in self._sdo.download(Object.PROGRAM_DATA, program, image, work, block=True):
                    accepted = True
                    yield done
                return
            except Aborted as aborted:
                self._block = False
                if accepted:
                    raise aborted.error.passing(True) from None
        yield from self._sdo.download(Object.PROGRAM_DATA, program, image, work, block=False)

    def _judgement(self) -> str:
        """What 1F57 says once the device is done with the program. Raises OperationFailed, PartRefused."""
        deadline = Deadline.after(self._profile.work)
        while True:
            status = self._number(Object.FLASH_STATUS, self._profile.program)
            if status is None:
                return NO_STATUS
            if not status & 1 or deadline.expired:
                break
            clock.sleep(POLL_SECONDS)
        code = status >> 1 & 0x7F
        if status & 1:
            raise OperationFailed(f"node {self._node} still works on the program after {self._profile.work:g} s")
        if code == Status.OK:
            return f"flash status 0x1F57 of the device: {status_words(status)}"
        text = f"node {self._node} did not take the program: flash status 0x{status:08X}, {status_words(status)}"
        if STATUS_MEANINGS.get(code) is Meaning.REFUSED:
            raise PartRefused(text).passing(False)
        raise OperationFailed(text)

    def _program_id(self) -> int | None:
        return self._number(Object.PROGRAM_ID, self._profile.program, seconds=self._profile.work)

    def _holds(self, image: bytes) -> bool:
        wanted = self._identification(image)
        return wanted is not None and self._program_id() == wanted[0]

    def _identification(self, image: bytes) -> tuple[int, str] | None:
        """What 1F56 is of this image, and what that proves. Raises ImageWrongPart."""
        where, offset = f"0x1F56:{self._profile.program} by the device", self._profile.identification_offset
        match self._profile.identification:
            case "crc32":
                return zlib.crc32(image), f"CRC-32 of the program, {where}"
            case "mcuboot":
                size = int.from_bytes(image[12:16], "little")
                if image[:4] != MCUBOOT_MAGIC or not 0 < size <= len(image):
                    raise ImageWrongPart("the profile's identification is that of MCUboot images, and the file is none")
                return zlib.crc32(image[:size]), f"CRC-32 of the first {size:,} of {len(image):,} bytes, {where}"
            case "stored":
                if offset + 4 > len(image):
                    raise ImageWrongPart(f"the file has no bytes at identification_offset, 0x{offset:X}")
                value = int.from_bytes(image[offset : offset + 4], "little")
                return value, f"identification {where}, which says which program it is, not that it is whole"
        return None

    def _start(self, image: bytes) -> None:
        program = self._profile.program
        with _judged():
            if self._control() not in (Control.START, Control.ON_TRIAL):
                try:
                    self._command(Control.START, "the start of the program", silent=True)
                except Aborted as aborted:
                    raise RebootFailed(str(aborted.error.cause), remedy=NOT_STARTED_REMEDY).answers() from None

            def runs() -> bool:
                return self._control() in (None, Control.START, Control.ON_TRIAL)

            if not self._await(runs, f"program {program} was to start"):
                raise RebootFailed(
                    f"node {self._node} answers, and does not run program {program}: 0x1F51 reads {self._control()}"
                ).answers()
            self._is_stopped = False
            if self._control() == Control.ON_TRIAL and self._profile.confirm:
                if image:
                    self.verdict(image)
                self._command(Control.ON_TRIAL, "the confirmation of the program")
            if self._was_operational:
                self._nmt.send(codec.nmt(Nmt.START, self._node), SEND_SECONDS)
