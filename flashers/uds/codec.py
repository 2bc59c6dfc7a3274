"""UDS on the wire: services, negative response codes, and what each of those is here. Bytes in, values out.

After ISO 14229-1:2020 (services: table 2; negative response codes: annex A). The rule: what comes in is the positive
response to the outstanding request, a negative response to it, or not ours, and `decode` says which for any bytes.

Not left to udsoncan, against which the tests check it: its Response looks codes up by reflection, 54 us for each,
which is 1 % of a bus at 128-byte blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from ...transports.errors import ProxyflashError
from ..errors import (
    USUAL_SILENCES,
    Meaning,
    OperationFailed,
    PartError,
    PartRefused,
    PartWrongMode,
    SecurityDenied,
    Step,
    Unsupported,
)


class Service(IntEnum):
    """Service identifiers (ISO 14229-1:2020, table 2)."""

    DIAGNOSTIC_SESSION_CONTROL = 0x10
    ECU_RESET = 0x11
    READ_DATA_BY_IDENTIFIER = 0x22
    READ_MEMORY_BY_ADDRESS = 0x23
    SECURITY_ACCESS = 0x27
    COMMUNICATION_CONTROL = 0x28
    WRITE_DATA_BY_IDENTIFIER = 0x2E
    ROUTINE_CONTROL = 0x31
    REQUEST_DOWNLOAD = 0x34
    REQUEST_UPLOAD = 0x35
    TRANSFER_DATA = 0x36
    REQUEST_TRANSFER_EXIT = 0x37
    TESTER_PRESENT = 0x3E
    CONTROL_DTC_SETTING = 0x85


NEGATIVE_RESPONSE = 0x7F
POSITIVE = 0x40
"""Added to the service identifier in a positive response."""
SUPPRESS_POSITIVE_RESPONSE = 0x80
"""Bit of a sub-function: answer only if the answer is negative."""
TESTER_PRESENT = bytes((Service.TESTER_PRESENT, SUPPRESS_POSITIVE_RESPONSE))


class Nrc(IntEnum):
    """Negative response codes (ISO 14229-1:2020, table A.1)."""

    GENERAL_REJECT = 0x10
    SERVICE_NOT_SUPPORTED = 0x11
    SUB_FUNCTION_NOT_SUPPORTED = 0x12
    INCORRECT_MESSAGE_LENGTH_OR_INVALID_FORMAT = 0x13
    RESPONSE_TOO_LONG = 0x14
    BUSY_REPEAT_REQUEST = 0x21
    CONDITIONS_NOT_CORRECT = 0x22
    REQUEST_SEQUENCE_ERROR = 0x24
    NO_RESPONSE_FROM_SUBNET_COMPONENT = 0x25
    FAILURE_PREVENTS_EXECUTION_OF_REQUESTED_ACTION = 0x26
    REQUEST_OUT_OF_RANGE = 0x31
    SECURITY_ACCESS_DENIED = 0x33
    AUTHENTICATION_REQUIRED = 0x34
    INVALID_KEY = 0x35
    EXCEED_NUMBER_OF_ATTEMPTS = 0x36
    REQUIRED_TIME_DELAY_NOT_EXPIRED = 0x37
    SECURE_DATA_TRANSMISSION_REQUIRED = 0x38
    SECURE_DATA_TRANSMISSION_NOT_ALLOWED = 0x39
    SECURE_DATA_VERIFICATION_FAILED = 0x3A
    CERTIFICATE_VERIFICATION_FAILED_INVALID_TIME_PERIOD = 0x50
    CERTIFICATE_VERIFICATION_FAILED_INVALID_SIGNATURE = 0x51
    CERTIFICATE_VERIFICATION_FAILED_INVALID_CHAIN_OF_TRUST = 0x52
    CERTIFICATE_VERIFICATION_FAILED_INVALID_TYPE = 0x53
    CERTIFICATE_VERIFICATION_FAILED_INVALID_FORMAT = 0x54
    CERTIFICATE_VERIFICATION_FAILED_INVALID_CONTENT = 0x55
    CERTIFICATE_VERIFICATION_FAILED_INVALID_SCOPE = 0x56
    CERTIFICATE_VERIFICATION_FAILED_INVALID_CERTIFICATE = 0x57
    OWNERSHIP_VERIFICATION_FAILED = 0x58
    CHALLENGE_CALCULATION_FAILED = 0x59
    SETTING_ACCESS_RIGHTS_FAILED = 0x5A
    SESSION_KEY_CREATION_DERIVATION_FAILED = 0x5B
    CONFIGURATION_DATA_USAGE_FAILED = 0x5C
    DE_AUTHENTICATION_FAILED = 0x5D
    UPLOAD_DOWNLOAD_NOT_ACCEPTED = 0x70
    TRANSFER_DATA_SUSPENDED = 0x71
    GENERAL_PROGRAMMING_FAILURE = 0x72
    WRONG_BLOCK_SEQUENCE_COUNTER = 0x73
    REQUEST_CORRECTLY_RECEIVED_RESPONSE_PENDING = 0x78
    SUB_FUNCTION_NOT_SUPPORTED_IN_ACTIVE_SESSION = 0x7E
    SERVICE_NOT_SUPPORTED_IN_ACTIVE_SESSION = 0x7F
    RPM_TOO_HIGH = 0x81
    RPM_TOO_LOW = 0x82
    ENGINE_IS_RUNNING = 0x83
    ENGINE_IS_NOT_RUNNING = 0x84
    ENGINE_RUN_TIME_TOO_LOW = 0x85
    TEMPERATURE_TOO_HIGH = 0x86
    TEMPERATURE_TOO_LOW = 0x87
    VEHICLE_SPEED_TOO_HIGH = 0x88
    VEHICLE_SPEED_TOO_LOW = 0x89
    THROTTLE_PEDAL_TOO_HIGH = 0x8A
    THROTTLE_PEDAL_TOO_LOW = 0x8B
    TRANSMISSION_RANGE_NOT_IN_NEUTRAL = 0x8C
    TRANSMISSION_RANGE_NOT_IN_GEAR = 0x8D
    BRAKE_SWITCH_NOT_CLOSED = 0x8F
    SHIFTER_LEVER_NOT_IN_PARK = 0x90
    TORQUE_CONVERTER_CLUTCH_LOCKED = 0x91
    VOLTAGE_TOO_HIGH = 0x92
    VOLTAGE_TOO_LOW = 0x93
    RESOURCE_TEMPORARILY_NOT_AVAILABLE = 0x94


NOT_HERE = frozenset(
    {
        Nrc.SERVICE_NOT_SUPPORTED,
        Nrc.SUB_FUNCTION_NOT_SUPPORTED,
        Nrc.REQUEST_OUT_OF_RANGE,
        Nrc.SUB_FUNCTION_NOT_SUPPORTED_IN_ACTIVE_SESSION,
        Nrc.SERVICE_NOT_SUPPORTED_IN_ACTIVE_SESSION,
    }
)
"""The ECU has no such thing, or not in this session. Functional requests for it are not answered at all (8.7)."""


MEANINGS: dict[int, Meaning] = {
    **dict.fromkeys(NOT_HERE, Meaning.NOT_HERE),
    Nrc.BUSY_REPEAT_REQUEST: Meaning.BUSY,
    Nrc.RESOURCE_TEMPORARILY_NOT_AVAILABLE: Meaning.BUSY,
    Nrc.REQUIRED_TIME_DELAY_NOT_EXPIRED: Meaning.DELAYED,
    Nrc.SECURITY_ACCESS_DENIED: Meaning.LOST,
    Nrc.AUTHENTICATION_REQUIRED: Meaning.LOST,
    Nrc.REQUEST_SEQUENCE_ERROR: Meaning.LOST,
    Nrc.TRANSFER_DATA_SUSPENDED: Meaning.LOST,
    Nrc.WRONG_BLOCK_SEQUENCE_COUNTER: Meaning.LOST,
    Nrc.GENERAL_REJECT: Meaning.FAILED,
    Nrc.NO_RESPONSE_FROM_SUBNET_COMPONENT: Meaning.FAILED,
    Nrc.FAILURE_PREVENTS_EXECUTION_OF_REQUESTED_ACTION: Meaning.FAILED,
    Nrc.GENERAL_PROGRAMMING_FAILURE: Meaning.FAILED,
}
"""What each code means during programming; the others are REFUSED."""
SILENCES: Mapping[Step, Meaning] = {**USUAL_SILENCES, Step.START: Meaning.GONE}

OPEN_TRANSFER = frozenset({Nrc.CONDITIONS_NOT_CORRECT, Nrc.REQUEST_SEQUENCE_ERROR, Nrc.UPLOAD_DOWNLOAD_NOT_ACCEPTED})
"""By these RequestDownload and RequestUpload are refused while a transfer is open (15.2.5: conditionsNotCorrect)."""

_WAIT = (
    "Leave it powered until its waiting time is over (often 10 s to 10 min), then run the same command again, or set "
    "security.wait in its profile to that many seconds."
)
_ANEW = "Run the same command again."
_SUPPLY = "Bring its supply voltage into range, then run the same command again."
_PROGRAMMING = (
    "Is write_alignment of its memory in the profile as the ECU programs it, and erase_unit as it erases it? Is its supply "
    "within range? Then run the same command again."
)
_ORDER = "Does it want a flash driver first, or another order of steps? See driver, order and steps in its profile."
_STATE = "Its maker says under which conditions it may be programmed: supply, speed, temperature, ignition."
_SESSION = "Is its bootloader entered another way? See sessions and stay_in_boot in its profile."

_ERRORS: dict[int, tuple[type[ProxyflashError], str | None]] = {
    Nrc.SERVICE_NOT_SUPPORTED: (Unsupported, "Turn off in its profile what the ECU does not have."),
    Nrc.SUB_FUNCTION_NOT_SUPPORTED: (Unsupported, "Turn off in its profile what the ECU does not have."),
    Nrc.CONDITIONS_NOT_CORRECT: (PartRefused, _STATE),
    Nrc.REQUEST_SEQUENCE_ERROR: (PartRefused, _ORDER),
    Nrc.NO_RESPONSE_FROM_SUBNET_COMPONENT: (OperationFailed, None),
    Nrc.FAILURE_PREVENTS_EXECUTION_OF_REQUESTED_ACTION: (OperationFailed, None),
    Nrc.REQUEST_OUT_OF_RANGE: (PartRefused, "Do the addresses, routines and identifiers of its profile hold?"),
    Nrc.SECURITY_ACCESS_DENIED: (SecurityDenied, "Does its profile name the security level and the key function?"),
    Nrc.AUTHENTICATION_REQUIRED: (SecurityDenied, "It asks for Authentication (0x29), which is not supported."),
    Nrc.INVALID_KEY: (SecurityDenied, None),
    Nrc.EXCEED_NUMBER_OF_ATTEMPTS: (SecurityDenied, _WAIT),
    Nrc.REQUIRED_TIME_DELAY_NOT_EXPIRED: (SecurityDenied, _WAIT),
    Nrc.SECURE_DATA_TRANSMISSION_REQUIRED: (SecurityDenied, "It asks for secured data (0x84), which is not supported."),
    Nrc.UPLOAD_DOWNLOAD_NOT_ACCEPTED: (OperationFailed, None),
    Nrc.TRANSFER_DATA_SUSPENDED: (OperationFailed, None),
    Nrc.GENERAL_PROGRAMMING_FAILURE: (OperationFailed, _PROGRAMMING),
    Nrc.WRONG_BLOCK_SEQUENCE_COUNTER: (OperationFailed, _ANEW),
    Nrc.SUB_FUNCTION_NOT_SUPPORTED_IN_ACTIVE_SESSION: (PartWrongMode, _SESSION),
    Nrc.SERVICE_NOT_SUPPORTED_IN_ACTIVE_SESSION: (PartWrongMode, _SESSION),
    Nrc.VOLTAGE_TOO_HIGH: (PartRefused, _SUPPLY),
    Nrc.VOLTAGE_TOO_LOW: (PartRefused, _SUPPLY),
}
"""What each code is here; the others are PartRefused."""

_ECHO: dict[int, int] = {
    Service.DIAGNOSTIC_SESSION_CONTROL: 1,
    Service.ECU_RESET: 1,
    Service.READ_DATA_BY_IDENTIFIER: 2,
    Service.SECURITY_ACCESS: 1,
    Service.COMMUNICATION_CONTROL: 1,
    Service.WRITE_DATA_BY_IDENTIFIER: 2,
    Service.ROUTINE_CONTROL: 3,
    Service.TRANSFER_DATA: 1,
    Service.TESTER_PRESENT: 1,
    Service.CONTROL_DTC_SETTING: 1,
}
"""How many bytes after its service identifier a positive response repeats of the request."""


_WITH_SUB_FUNCTION = (0x10, 0x11, 0x19, 0x27, 0x28, 0x29, 0x2C, 0x31, 0x3E, 0x83, 0x85, 0x86, 0x87)
"""Services whose first parameter is a sub-function."""


@dataclass(frozen=True, slots=True)
class NegativeResponse:
    """A negative response."""

    request: bytes
    nrc: int

    @property
    def meaning(self) -> Meaning:
        return MEANINGS.get(self.nrc, Meaning.REFUSED)

    def error(self) -> ProxyflashError:
        """The error that this code is, with the code's ISO name and number in the cause."""
        kind, remedy = _ERRORS.get(self.nrc, (PartRefused, None))
        error = kind(
            f"the part refused {describe(self.request)}: {nrc_name(self.nrc)} (NRC 0x{self.nrc:02X})", remedy=remedy
        )
        if isinstance(error, PartError) and self.meaning in (Meaning.REFUSED, Meaning.NOT_HERE):
            error.passes = False
        return error


_SECRET = (Service.SECURITY_ACCESS, 0x29)
"""SecurityAccess and Authentication: behind the sub-function stand seeds, keys, certificates and proofs."""


def nrc_name(nrc: int) -> str:
    """The name in ISO 14229-1, table A.1, such as "conditionsNotCorrect"."""
    try:
        first, *rest = Nrc(nrc).name.lower().split("_")
    except ValueError:
        return "vehicleManufacturerSpecificConditionsNotCorrect" if 0xF0 <= nrc <= 0xFE else "ISOSAEReserved"
    return first + "".join(word.capitalize() for word in rest)


def describe(request: bytes) -> str:
    """The request for a person: the service's name, and the first bytes; of a service with keys and seeds two alone."""
    try:
        words = Service(request[0]).name.split("_")
        name = "".join(word if word in ("ECU", "DTC") else word.capitalize() for word in words)
    except ValueError:
        name = "the request"
    return f"{name} ({quote(request)})"


def quote(message: bytes) -> str:
    """A request's or answer's first bytes in hex, without what is secret in it."""
    head = without_secrets(message)[:12]
    return f"{head.hex(' ').upper()}{' ...' if len(message) > len(head) else ''}"


def wants_no_answer(request: bytes) -> bool:
    """Whether only a refusal of it is answered (suppressPosRspMsgIndicationBit, 8.2.2)."""
    return len(request) > 1 and request[0] in _WITH_SUB_FUNCTION and bool(request[1] & SUPPRESS_POSITIVE_RESPONSE)


def holds_secrets(message: bytes | bytearray) -> bool:
    """Whether a request or answer, or the beginning of one, is of a service with keys, seeds, certificates or proofs."""
    return len(message) > 0 and message[0] & ~POSITIVE in _SECRET


def without_secrets(message: bytes) -> bytes:
    """A request or answer as it may be shown and logged: of a service with secrets the first two bytes alone."""
    return message[:2] if holds_secrets(message) else message


def expected_head(request: bytes) -> bytes:
    """What the positive response to a request begins with."""
    service = request[0]
    echo = bytearray(request[1 : 1 + _ECHO.get(service, 0)])
    if echo and service not in (
        Service.READ_DATA_BY_IDENTIFIER,
        Service.WRITE_DATA_BY_IDENTIFIER,
        Service.TRANSFER_DATA,
    ):
        echo[0] &= ~SUPPRESS_POSITIVE_RESPONSE
    return bytes((service + POSITIVE,)) + echo


def decode(request: bytes, response: bytes) -> bytes | NegativeResponse | None:
    """What a PDU is to the outstanding request: what follows the head of its positive response, a refusal, or None.

    None: not an answer to this request. Never raises, whatever the bytes.
    """
    head = expected_head(request)
    if response.startswith(head):
        return response[len(head) :]
    if len(response) >= 3 and response[0] == NEGATIVE_RESPONSE and response[1] == request[0]:
        return NegativeResponse(bytes(request[:16]), response[2])
    return None
