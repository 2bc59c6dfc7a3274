"""An emulated ECU: a bootloader that speaks UDS (ISO 14229-1:2020) over ISO-TP, and the application that it boots.

Written from the standard, clause by clause (each service says which), sharing nothing with the flasher. Which
of the two stages runs is decided at reset: the application if its descriptor's CRC is right and the last programming
was declared complete (dependencies), else the bootloader. Programming services exist in the bootloader only;
the application goes there by DiagnosticSessionControl, programmingSession. In the bootloader the application's
identifiers (F188, F189, F194, F195) are refused by requestOutOfRange, and the active session (F186) is the programming
one.
"""

from __future__ import annotations

import json
import secrets
import tomllib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Self

from . import application
from .board import Board, ResetPulled
from .can_wire import CanWire
from .device import BadDevice, DeviceSpec, EmulatedDevice, factory_content
from .flash import FlashRefused, NorFlash
from .isotp_node import EcuAddress, IsoTpNode, Request
from .supply import Supply

S3_SECONDS = 5.0
"""Without a request for so long a session ends (ISO 14229-2, S3server)."""
POSITIVE = 0x40


class Nrc(IntEnum):
    """Negative response codes (annex A.1)."""

    SERVICE_NOT_SUPPORTED = 0x11
    SUB_FUNCTION_NOT_SUPPORTED = 0x12
    INCORRECT_LENGTH = 0x13
    CONDITIONS_NOT_CORRECT = 0x22
    REQUEST_SEQUENCE_ERROR = 0x24
    REQUEST_OUT_OF_RANGE = 0x31
    SECURITY_ACCESS_DENIED = 0x33
    INVALID_KEY = 0x35
    EXCEEDED_ATTEMPTS = 0x36
    TIME_DELAY_NOT_EXPIRED = 0x37
    UPLOAD_DOWNLOAD_NOT_ACCEPTED = 0x70
    TRANSFER_SUSPENDED = 0x71
    PROGRAMMING_FAILURE = 0x72
    WRONG_BLOCK_COUNTER = 0x73
    RESPONSE_PENDING = 0x78
    SUB_FUNCTION_NOT_IN_SESSION = 0x7E
    SERVICE_NOT_IN_SESSION = 0x7F


SILENT_WHEN_FUNCTIONAL = (0x11, 0x12, 0x31, 0x7E, 0x7F)
"""Refusals that a functional request gets no answer for (7.5.3.3, table 5)."""


class Refusal(Exception):
    """A negative response."""

    def __init__(self, nrc: int) -> None:
        super().__init__(f"NRC 0x{nrc:02X}")
        self.nrc = nrc


@dataclass(frozen=True, slots=True)
class Variation:
    """What a maker does otherwise: keys of the `emulated` table.

    `security_level`: the odd sub-function of requestSeed, 0 for none; `secret`: hex, the key is the seed with the
    secret's bits turned. `routine_*`: identifiers. `refuse`: an NRC for every programmingSession, 0 for none. `locked`:
    RequestDownload is refused by securityAccessDenied whatever the key. `mute`: nothing is ever answered. `fail_check`:
    the memory check finds fault with everything. `block_size`, `st_min`: of its flow control.
    """

    security_level: int = 1
    secret: str = "5a5a5a5a"
    routine_erase: int = 0xFF00
    routine_check: int = 0x0202
    routine_dependencies: int = 0xFF01
    routine_preconditions: int = 0x0203
    refuse: int = 0
    locked: bool = False
    mute: bool = False
    fail_check: bool = False
    block_size: int = 0
    st_min: int = 0


@cache
def _parts() -> dict[str, dict[str, Any]]:
    return tomllib.loads((files(__package__) / "parts" / "uds.toml").read_text(encoding="utf-8"))


class UdsDevice(EmulatedDevice):
    """Keys of the `emulated` table: `part` (of parts/uds.toml), `serial`, `firmware`, and those of Variation."""

    bus_kind: ClassVar[str] = "can"

    def __init__(self, spec: DeviceSpec, wire: CanWire) -> None:
        settings = dict(spec.settings)
        part = _part(settings.pop("part", "acme-r77"))
        serial = str(settings.pop("serial", "0001"))
        settings.pop("firmware", None)
        variation = _variation(settings)
        self.name = spec.name
        self.supply = Supply()
        path = spec.folder / f"{spec.name}.flash" if spec.folder else None
        fresh = path is None or not path.exists()
        self.flash = NorFlash(
            part["base"],
            [(sector["count"], sector["size"]) for sector in part["sectors"]],
            self.supply,
            program_unit=part["program_unit"],
            program_seconds=part["program_seconds"],
            erase_seconds=lambda size: float(part["erase_seconds"]),
            path=path,
        )
        factory_content(spec, self.flash, fresh=fresh)
        marker = Marker(spec.folder / f"{spec.name}.json" if spec.folder else None)
        if fresh:
            marker.complete = application.find(self.flash, self.flash.base) is not None
        self._ecu = Ecu(spec, part, serial, variation, self.supply, self.flash, marker, wire)
        self._ecu.start()

    @classmethod
    def attach(cls, spec: DeviceSpec, wire: CanWire) -> Self:
        return cls(spec, wire)

    @property
    def board(self) -> Board:
        return self._ecu

    @property
    def application_version(self) -> str | None:
        running = self._ecu.running
        return None if running is None else running.version

    def close(self) -> None:
        self._ecu.close()
        self._ecu.link.node.detach()
        self.flash.close()


def _part(name: object) -> dict[str, Any]:
    parts = _parts()
    if name not in parts:
        raise BadDevice("part", f"{name!r} is none of {', '.join(parts)}")
    return parts[str(name)]


def _variation(settings: Mapping[str, Any]) -> Variation:
    known = {name: type(getattr(Variation(), name)) for name in Variation.__slots__}
    for key, value in settings.items():
        if key not in known:
            raise BadDevice(key, f"no key of an emulated ECU; there are: part, serial, firmware, {', '.join(known)}")
        if not isinstance(value, known[key]):
            raise BadDevice(key, f"{value!r} is no {known[key].__name__}")
    return Variation(**settings)


def _address(spec: DeviceSpec) -> EcuAddress:
    """The bench file's address, seen from the ECU."""
    address = spec.address
    kind = address.get("addressing", "normal")
    target, source = address.get("target"), address.get("source")
    if kind == "normal-fixed":
        if target is None or source is None:
            raise BadDevice("address", "normal-fixed needs target and source")
        base = 0x18DA0000
        return EcuAddress(base | target << 8 | source, 0x18DB3300 | source, base | source << 8 | target, True)
    if "request" not in address or "response" not in address:
        raise BadDevice("address", "request and response are missing")
    extended_ids = bool(address.get("extended_ids", address["request"] > 0x7FF))
    functional = int(address.get("functional") or 0x7DF)
    prefixed = kind == "extended"
    return EcuAddress(
        address["request"], functional, address["response"], extended_ids,
        target if prefixed else None, source if prefixed else None,
    )  # fmt: skip


class Marker:
    """Whether the last programming was declared complete: kept where a cut does not reach it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._complete = bool(path and path.exists() and json.loads(path.read_text()).get("complete"))

    @property
    def complete(self) -> bool:
        return self._complete

    @complete.setter
    def complete(self, value: bool) -> None:
        self._complete = value
        if self._path is not None:
            self._path.write_text(json.dumps({"complete": value}))


class Ecu(Board):
    """The processor: at reset it chooses its stage, then serves requests for ever."""

    def __init__(
        self,
        spec: DeviceSpec,
        part: Mapping[str, Any],
        serial: str,
        variation: Variation,
        supply: Supply,
        flash: NorFlash,
        marker: Marker,
        wire: CanWire,
    ) -> None:
        super().__init__(spec.name, supply, pace=spec.pace)
        self._part = part
        self._serial = serial
        self._variation = variation
        self._flash = flash
        self._marker = marker
        self.running: application.Application | None = None
        self._to_bootloader = False
        self._fingerprint = b""
        self.link = IsoTpNode(
            self, wire, _address(spec), fd=wire.data_bitrate is not None, block_size=variation.block_size,
            st_min=variation.st_min, max_length=part["block_length"],
        )  # fmt: skip
        flash.busy = self._work
        supply.listen(self.link.node.power)
        self._pending: Callable[[], None] | None = None
        self._worked = 0.0
        self._start_session()

    def firmware(self) -> None:
        self.link.forget()
        self._start_session()
        found = application.find(self._flash, self._flash.base) if self._marker.complete else None
        self.running = None if self._to_bootloader else found
        if self._to_bootloader:
            self._session = 2
            self._answer_session()
        self._to_bootloader = False
        while True:
            request = self.link.receive(S3_SECONDS if self._session != 1 else None)
            if request is None:
                self._start_session()
            elif request.data and not self._variation.mute:
                self._serve(request)

    def _start_session(self) -> None:
        self._session = 1
        self._unlocked = self._variation.security_level == 0
        self._seed = b""
        self._attempts = 0
        self._next_address = 0
        self._end_address = 0
        self._counter: int | None = None
        self._uploading = False
        self._downloaded: list[tuple[int, int]] = []

    def _serve(self, request: Request) -> None:
        service = request.data[0]
        self._worked = 0.0
        self._pending = lambda: self.link.send(bytes([0x7F, service, Nrc.RESPONSE_PENDING]))
        try:
            answer = self._dispatch(request.data)
        except Refusal as refusal:
            if not (request.functional and refusal.nrc in SILENT_WHEN_FUNCTIONAL):
                self.link.send(bytes([0x7F, service, refusal.nrc]))
            return
        except FlashRefused:
            self.link.send(bytes([0x7F, service, Nrc.PROGRAMMING_FAILURE]))
            return
        if answer is not None:
            self.link.send(bytes([service + POSITIVE]) + answer)

    def _dispatch(self, data: bytes) -> bytes | None:
        """The answer behind the service id; None: none is sent. Raises Refusal."""
        always: dict[int, Callable[[bytes], bytes | None]] = {
            0x10: self._session_control,
            0x11: self._ecu_reset,
            0x22: self._read_data,
            0x3E: self._tester_present,
            0x28: self._communication_control,
            0x85: self._dtc_setting,
            0x31: self._routine_control,
            0x27: self._security_access,
        }
        in_bootloader: dict[int, Callable[[bytes], bytes | None]] = {
            0x2E: self._write_data,
            0x34: self._request_download,
            0x35: self._request_upload,
            0x36: self._transfer_data,
            0x37: self._transfer_exit,
        }
        service = data[0]
        if service in always:
            return always[service](data[1:])
        if service not in in_bootloader:
            raise Refusal(Nrc.SERVICE_NOT_SUPPORTED)
        if self.running is not None or self._session != 2:
            raise Refusal(Nrc.SERVICE_NOT_IN_SESSION)
        return in_bootloader[service](data[1:])

    # Diagnostic and communication management (clause 10).

    def _session_control(self, data: bytes) -> bytes | None:
        kind, quiet = _sub_function(data, 1)
        if kind not in (1, 2, 3):
            raise Refusal(Nrc.SUB_FUNCTION_NOT_SUPPORTED)
        if kind == 2 and self._variation.refuse:
            raise Refusal(self._variation.refuse)
        if kind == 2 and self.running is not None:
            # The application hands over to the bootloader, which answers once it is up.
            self._pending_now()
            self._to_bootloader = True
            self._restart()
        self._start_session()
        self._session = kind
        return None if quiet else bytes([kind]) + self._times()

    def _times(self) -> bytes:
        p2, p2_star = int(self._part["p2"] * 1000), int(self._part["p2_star"] * 100)
        return p2.to_bytes(2, "big") + p2_star.to_bytes(2, "big")

    def _answer_session(self) -> None:
        self.link.send(bytes([0x50, 2]) + self._times())

    def _ecu_reset(self, data: bytes) -> bytes | None:
        kind, quiet = _sub_function(data, 1)
        if kind not in (1, 3):
            raise Refusal(Nrc.SUB_FUNCTION_NOT_SUPPORTED)
        if not quiet:
            self.link.send(bytes([0x51, kind]))
        self._restart()
        return None

    def _restart(self) -> None:
        self.busy(self._part["reset_seconds"])
        raise ResetPulled

    def _security_access(self, data: bytes) -> bytes | None:
        level = self._variation.security_level
        if not data:
            raise Refusal(Nrc.INCORRECT_LENGTH)
        kind = data[0] & 0x7F
        if self._session == 1:
            raise Refusal(Nrc.SERVICE_NOT_IN_SESSION)
        if kind not in (level, level + 1) or level == 0:
            raise Refusal(Nrc.SUB_FUNCTION_NOT_SUPPORTED)
        secret = bytes.fromhex(self._variation.secret)
        if kind == level:
            self._seed = bytes(len(secret)) if self._unlocked else secrets.token_bytes(len(secret) - 1) + b"\x01"
            return bytes([kind]) + self._seed
        if not self._seed:
            raise Refusal(Nrc.REQUEST_SEQUENCE_ERROR)
        if self._attempts >= 3:
            raise Refusal(Nrc.TIME_DELAY_NOT_EXPIRED)
        key = bytes(a ^ b for a, b in zip(self._seed, secret, strict=True))
        self._seed = b""
        if data[1:] != key:
            self._attempts += 1
            raise Refusal(Nrc.EXCEEDED_ATTEMPTS if self._attempts >= 3 else Nrc.INVALID_KEY)
        self._unlocked = True
        return bytes([kind])

    def _communication_control(self, data: bytes) -> bytes | None:
        kind, quiet = _sub_function(data, 2)
        if self._session == 1:
            raise Refusal(Nrc.SERVICE_NOT_IN_SESSION)
        if kind > 3:
            raise Refusal(Nrc.SUB_FUNCTION_NOT_SUPPORTED)
        return None if quiet else bytes([kind])

    def _dtc_setting(self, data: bytes) -> bytes | None:
        if not data:
            raise Refusal(Nrc.INCORRECT_LENGTH)
        kind, quiet = data[0] & 0x7F, bool(data[0] & 0x80)
        if self._session == 1:
            raise Refusal(Nrc.SERVICE_NOT_IN_SESSION)
        if kind not in (1, 2):
            raise Refusal(Nrc.SUB_FUNCTION_NOT_SUPPORTED)
        return None if quiet else bytes([kind])

    def _tester_present(self, data: bytes) -> bytes | None:
        kind, quiet = _sub_function(data, 1)
        if kind != 0:
            raise Refusal(Nrc.SUB_FUNCTION_NOT_SUPPORTED)
        return None if quiet else b"\x00"

    # Data transmission (clause 11).

    def _read_data(self, data: bytes) -> bytes | None:
        if not data or len(data) % 2:
            raise Refusal(Nrc.INCORRECT_LENGTH)
        known = self._identifiers()
        answer = b""
        for offset in range(0, len(data), 2):
            value = known.get(int.from_bytes(data[offset : offset + 2], "big"))
            if value is not None:
                answer += data[offset : offset + 2] + value
        if not answer:
            raise Refusal(Nrc.REQUEST_OUT_OF_RANGE)
        return answer

    def _identifiers(self) -> dict[int, bytes]:
        part, running = self._part, self.running
        found = {
            0xF180: b"\x01" + part["bootloader"].encode(),
            0xF186: bytes([self._session if running is not None else 2]),
            0xF18A: part["supplier"].encode(),
            0xF18C: self._serial.encode(),
            0xF191: part["hardware"].encode(),
            0xF197: part["system"].encode(),
        }
        if self._fingerprint:
            found[0xF15B] = self._fingerprint
        if running is not None:
            version = running.version.encode()
            found |= {0xF188: running.product.encode(), 0xF189: version, 0xF194: running.product.encode()}
            found |= {0xF195: version}
        return found

    def _write_data(self, data: bytes) -> bytes | None:
        if len(data) < 3:
            raise Refusal(Nrc.INCORRECT_LENGTH)
        if int.from_bytes(data[:2], "big") not in (0xF15A, 0xF184, 0xF199):
            raise Refusal(Nrc.REQUEST_OUT_OF_RANGE)
        self._need_key()
        self._fingerprint = data[2:]
        return data[:2]

    # Routines (clause 14).

    def _routine_control(self, data: bytes) -> bytes | None:
        if len(data) < 3:
            raise Refusal(Nrc.INCORRECT_LENGTH)
        kind, routine, argument = data[0] & 0x7F, int.from_bytes(data[1:3], "big"), data[3:]
        if kind != 1:
            raise Refusal(Nrc.SUB_FUNCTION_NOT_SUPPORTED)
        variation = self._variation
        if routine == variation.routine_preconditions:
            return data[:3] + b"\x00"
        if self.running is not None or self._session != 2:
            raise Refusal(Nrc.SUB_FUNCTION_NOT_IN_SESSION if self.running is None else Nrc.SERVICE_NOT_IN_SESSION)
        self._need_key()
        if routine == variation.routine_erase:
            self._erase(argument)
            return data[:3] + b"\x00"
        if routine == variation.routine_check:
            return data[:3] + (b"\x00" if self._check(argument) else b"\x01")
        if routine == variation.routine_dependencies:
            whole = application.find(self._flash, self._flash.base) is not None
            self._marker.complete = whole
            return data[:3] + (b"\x00" if whole else b"\x01")
        raise Refusal(Nrc.REQUEST_OUT_OF_RANGE)

    def _erase(self, argument: bytes) -> None:
        start, size, rest = _location(argument)
        if rest:
            raise Refusal(Nrc.INCORRECT_LENGTH)
        self._inside(start, size)
        first, _ = self._flash.unit_of(start)
        end = start + size
        self._marker.complete = False
        while first < end:
            self._flash.erase(first)
            first += self._flash.unit_of(first)[1]
        self._downloaded = []

    def _check(self, argument: bytes) -> bool:
        """The CRC-32 of all that was downloaded since the erase; or of a range, with its address and size ahead."""
        if self._variation.fail_check:
            return False
        if len(argument) == 4:
            crc = 0
            for start, size in self._downloaded:
                crc = zlib.crc32(self._flash.read(start, size), crc)
            return crc == int.from_bytes(argument, "big")
        start, size, rest = _location(argument)
        self._inside(start, size)
        if len(rest) != 4:
            raise Refusal(Nrc.INCORRECT_LENGTH)
        return zlib.crc32(self._flash.read(start, size)) == int.from_bytes(rest, "big")

    # Upload and download (clause 15).

    def _request_download(self, data: bytes) -> bytes | None:
        return self._request_transfer(data, uploading=False)

    def _request_upload(self, data: bytes) -> bytes | None:
        if not self._part["upload"]:
            raise Refusal(Nrc.SERVICE_NOT_SUPPORTED)
        return self._request_transfer(data, uploading=True)

    def _request_transfer(self, data: bytes, *, uploading: bool) -> bytes:
        if len(data) < 2:
            raise Refusal(Nrc.INCORRECT_LENGTH)
        start, size, rest = _location(data[1:])
        if rest:
            raise Refusal(Nrc.INCORRECT_LENGTH)
        self._need_key()
        if data[0] != 0:
            raise Refusal(Nrc.REQUEST_OUT_OF_RANGE)
        self._inside(start, size)
        if self._variation.locked:
            raise Refusal(Nrc.UPLOAD_DOWNLOAD_NOT_ACCEPTED)
        self._next_address, self._end_address, self._counter = start, start + size, 0
        self._uploading = uploading
        if not uploading:
            self._downloaded.append((start, size))
        length: int = self._part["block_length"]
        return b"\x20" + length.to_bytes(2, "big")

    def _transfer_data(self, data: bytes) -> bytes | None:
        if not data:
            raise Refusal(Nrc.INCORRECT_LENGTH)
        if self._counter is None:
            raise Refusal(Nrc.REQUEST_SEQUENCE_ERROR)
        counter, block = data[0], data[1:]
        if counter == self._counter and self._next_address and not self._uploading and self._written:
            return bytes([counter])  # A repetition: its answer got lost. It is in the flash already.
        if counter != (self._counter + 1) & 0xFF:
            raise Refusal(Nrc.WRONG_BLOCK_COUNTER)
        if self._uploading:
            return self._upload_block(counter)
        if not block or self._next_address + len(block) > self._end_address:
            raise Refusal(Nrc.REQUEST_OUT_OF_RANGE if block else Nrc.INCORRECT_LENGTH)
        unit = self._flash.program_unit
        padded = block + b"\xff" * (-len(block) % unit)
        self._flash.program(self._next_address, padded)
        self._next_address += len(block)
        self._counter = counter
        return bytes([counter])

    @property
    def _written(self) -> bool:
        return bool(self._downloaded) and self._next_address > self._downloaded[-1][0]

    def _upload_block(self, counter: int) -> bytes:
        count = min(self._part["block_length"] - 2, self._end_address - self._next_address)
        if not count:
            raise Refusal(Nrc.REQUEST_SEQUENCE_ERROR)
        data = self._flash.read(self._next_address, count)
        self._next_address += count
        self._counter = counter
        return bytes([counter]) + data

    def _transfer_exit(self, data: bytes) -> bytes | None:
        if self._counter is None or self._next_address != self._end_address:
            raise Refusal(Nrc.REQUEST_SEQUENCE_ERROR)
        self._counter = None
        return b""

    # What the services share.

    def _need_key(self) -> None:
        if not self._unlocked:
            raise Refusal(Nrc.SECURITY_ACCESS_DENIED)

    def _inside(self, start: int, size: int) -> None:
        if size == 0 or start < self._flash.base or start + size > self._flash.end:
            raise Refusal(Nrc.REQUEST_OUT_OF_RANGE)

    def _pending_now(self) -> None:
        if self._pending is not None:
            self._pending()

    def _work(self, seconds: float) -> None:
        """Flash operations take their time; a tester that waits is told so ahead of P2, and again ahead of P2*."""
        self._worked += seconds * self.pace
        if self._worked > self._part["p2"] * 0.8:
            self._pending_now()
            self._worked = 0.0
        self.busy(seconds)


def _sub_function(data: bytes, length: int) -> tuple[int, bool]:
    """The sub-function, and whether the positive response is suppressed (8.2.2). Raises Refusal."""
    if len(data) != length:
        raise Refusal(Nrc.INCORRECT_LENGTH)
    return data[0] & 0x7F, bool(data[0] & 0x80)


def _location(data: bytes) -> tuple[int, int, bytes]:
    """Address and size behind an addressAndLengthFormatIdentifier (annex H), and what follows. Raises Refusal."""
    if not data:
        raise Refusal(Nrc.INCORRECT_LENGTH)
    sizes, addresses = data[0] >> 4, data[0] & 0x0F
    if not 1 <= sizes <= 4 or not 1 <= addresses <= 5:
        raise Refusal(Nrc.REQUEST_OUT_OF_RANGE)
    if len(data) < 1 + addresses + sizes:
        raise Refusal(Nrc.INCORRECT_LENGTH)
    start = int.from_bytes(data[1 : 1 + addresses], "big")
    size = int.from_bytes(data[1 + addresses : 1 + addresses + sizes], "big")
    return start, size, data[1 + addresses + sizes :]
