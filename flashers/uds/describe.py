"""UDS in words, after ISO 14229-1:2020: services (table 2), sub-functions, identifiers (annexes C and F), response codes (A.1).

`describe` is for one message. `UdsDescriber` hears the ISO-TP of one ECU, `ListeningDescriber` that of each ECU at the ids
which ISO 15765-4 gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ...transports.can.bus import CanId
from ...transports.isotp.frames import Pci, pci_of
from ...transports.isotp.reassembly import Begun, Broken, Flow, Heard, Message, Reassembly
from ...transports.plain import counted
from ...transports.recording.records import CanFrame, Record
from ..describing import ERROR, EXTENDED, REMOTE, Describer, Line, Said, name_in, shown
from .codec import (
    NEGATIVE_RESPONSE,
    POSITIVE,
    SUPPRESS_POSITIVE_RESPONSE,
    Nrc,
    holds_secrets,
    nrc_name,
    without_secrets,
)

SERVICES = {
    0x10: "DiagnosticSessionControl",
    0x11: "ECUReset",
    0x14: "ClearDiagnosticInformation",
    0x19: "ReadDTCInformation",
    0x22: "ReadDataByIdentifier",
    0x23: "ReadMemoryByAddress",
    0x24: "ReadScalingDataByIdentifier",
    0x27: "SecurityAccess",
    0x28: "CommunicationControl",
    0x29: "Authentication",
    0x2A: "ReadDataByPeriodicIdentifier",
    0x2C: "DynamicallyDefineDataIdentifier",
    0x2E: "WriteDataByIdentifier",
    0x2F: "InputOutputControlByIdentifier",
    0x31: "RoutineControl",
    0x34: "RequestDownload",
    0x35: "RequestUpload",
    0x36: "TransferData",
    0x37: "RequestTransferExit",
    0x38: "RequestFileTransfer",
    0x3D: "WriteMemoryByAddress",
    0x3E: "TesterPresent",
    0x83: "AccessTimingParameter",
    0x84: "SecuredDataTransmission",
    0x85: "ControlDTCSetting",
    0x86: "ResponseOnEvent",
    0x87: "LinkControl",
}
"""Table 2; AccessTimingParameter: ISO 14229-1:2013."""
OBD_SERVICES = range(0x01, 0x0B)
"""Service identifiers of ISO 15031-5, which share these ids."""
SUB_FUNCTIONS: dict[int, dict[int, str]] = {
    0x10: {
        1: "defaultSession",
        2: "programmingSession",
        3: "extendedDiagnosticSession",
        4: "safetySystemDiagnosticSession",
    },
    0x11: {
        1: "hardReset",
        2: "keyOffOnReset",
        3: "softReset",
        4: "enableRapidPowerShutDown",
        5: "disableRapidPowerShutDown",
    },
    0x19: {
        0x01: "reportNumberOfDTCByStatusMask",
        0x02: "reportDTCByStatusMask",
        0x03: "reportDTCSnapshotIdentification",
        0x04: "reportDTCSnapshotRecordByDTCNumber",
        0x05: "reportDTCStoredDataByRecordNumber",
        0x06: "reportDTCExtDataRecordByDTCNumber",
        0x07: "reportNumberOfDTCBySeverityMaskRecord",
        0x08: "reportDTCBySeverityMaskRecord",
        0x09: "reportSeverityInformationOfDTC",
        0x0A: "reportSupportedDTC",
        0x0B: "reportFirstTestFailedDTC",
        0x0C: "reportFirstConfirmedDTC",
        0x0D: "reportMostRecentTestFailedDTC",
        0x0E: "reportMostRecentConfirmedDTC",
        0x14: "reportDTCFaultDetectionCounter",
        0x15: "reportDTCWithPermanentStatus",
        0x16: "reportDTCExtDataRecordByRecordNumber",
        0x17: "reportUserDefMemoryDTCByStatusMask",
        0x18: "reportUserDefMemoryDTCSnapshotRecordByDTCNumber",
        0x19: "reportUserDefMemoryDTCExtDataRecordByDTCNumber",
        0x1A: "reportDTCExtendedDataRecordIdentification",
        0x42: "reportWWHOBDDTCByMaskRecord",
        0x55: "reportWWHOBDDTCWithPermanentStatus",
        0x56: "reportDTCInformationByDTCReadinessGroupIdentifier",
    },
    0x28: {
        0: "enableRxAndTx",
        1: "enableRxAndDisableTx",
        2: "disableRxAndEnableTx",
        3: "disableRxAndTx",
        4: "enableRxAndDisableTxWithEnhancedAddressInformation",
        5: "enableRxAndTxWithEnhancedAddressInformation",
    },
    0x29: {
        0: "deAuthenticate",
        1: "verifyCertificateUnidirectional",
        2: "verifyCertificateBidirectional",
        3: "proofOfOwnership",
        4: "transmitCertificate",
        5: "requestChallengeForAuthentication",
        6: "verifyProofOfOwnershipUnidirectional",
        7: "verifyProofOfOwnershipBidirectional",
        8: "authenticationConfiguration",
    },
    0x2C: {1: "defineByIdentifier", 2: "defineByMemoryAddress", 3: "clearDynamicallyDefinedDataIdentifier"},
    0x31: {1: "startRoutine", 2: "stopRoutine", 3: "requestRoutineResults"},
    0x3E: {0: "zeroSubFunction"},
    0x83: {
        1: "readExtendedTimingParameterSet",
        2: "setTimingParametersToDefaultValues",
        3: "readCurrentlyActiveTimingParameters",
        4: "setTimingParametersToGivenValues",
    },
    0x85: {1: "on", 2: "off"},
    0x86: {
        0x00: "stopResponseOnEvent",
        0x01: "onDTCStatusChange",
        0x03: "onChangeOfDataIdentifier",
        0x04: "reportActivatedEvents",
        0x05: "startResponseOnEvent",
        0x06: "clearResponseOnEvent",
        0x07: "onComparisonOfValues",
        0x08: "reportMostRecentDtcOnStatusChange",
        0x09: "reportDTCRecordInformationOnDtcStatusChange",
    },
    0x87: {
        1: "verifyModeTransitionWithFixedParameter",
        2: "verifyModeTransitionWithSpecificParameter",
        3: "transitionMode",
    },
}
"""Sub-functions by their service, without the bit that suppresses the positive response."""
STORE_EVENT = 0x40
"""Bit of an event's sub-function of ResponseOnEvent: the event is kept over a reset (table 139)."""
PERIODIC_MODES = {1: "sendAtSlowRate", 2: "sendAtMediumRate", 3: "sendAtFastRate", 4: "stopSending"}
"""transmissionMode of ReadDataByPeriodicIdentifier (annex C)."""
FILE_MODES = {1: "AddFile", 2: "DeleteFile", 3: "ReplaceFile", 4: "ReadFile", 5: "ReadDir", 6: "ResumeFile"}
"""modeOfOperation of RequestFileTransfer (annex G)."""
IO_PARAMETERS = {0: "returnControlToECU", 1: "resetToDefault", 2: "freezeCurrentState", 3: "shortTermAdjustment"}
"""inputOutputControlParameter (annex E)."""
IDENTIFIERS = {
    0xF180: "bootSoftwareIdentification",
    0xF181: "applicationSoftwareIdentification",
    0xF182: "applicationDataIdentification",
    0xF183: "bootSoftwareFingerprint",
    0xF184: "applicationSoftwareFingerprint",
    0xF185: "applicationDataFingerprint",
    0xF186: "activeDiagnosticSession",
    0xF187: "vehicleManufacturerSparePartNumber",
    0xF188: "vehicleManufacturerECUSoftwareNumber",
    0xF189: "vehicleManufacturerECUSoftwareVersionNumber",
    0xF18A: "systemSupplierIdentifier",
    0xF18B: "ECUManufacturingDate",
    0xF18C: "ECUSerialNumber",
    0xF18D: "supportedFunctionalUnits",
    0xF18E: "vehicleManufacturerKitAssemblyPartNumber",
    0xF190: "VIN",
    0xF191: "vehicleManufacturerECUHardwareNumber",
    0xF192: "systemSupplierECUHardwareNumber",
    0xF193: "systemSupplierECUHardwareVersionNumber",
    0xF194: "systemSupplierECUSoftwareNumber",
    0xF195: "systemSupplierECUSoftwareVersionNumber",
    0xF196: "exhaustRegulationOrTypeApprovalNumber",
    0xF197: "systemNameOrEngineType",
    0xF198: "repairShopCodeOrTesterSerialNumber",
    0xF199: "programmingDate",
    0xF19A: "calibrationRepairShopCodeOrCalibrationEquipmentSerialNumber",
    0xF19B: "calibrationDate",
    0xF19C: "calibrationEquipmentSoftwareNumber",
    0xF19D: "ECUInstallationDate",
    0xF19E: "ODXFile",
    0xF19F: "entity",
    0xFF00: "UDSVersion",
}
"""Data identifiers (table C.1)."""
ROUTINES = {0xFF00: "eraseMemory", 0xFF01: "checkProgrammingDependencies", 0xFF02: "eraseMirrorMemoryDTCs"}
"""Routine identifiers (table F.1)."""
NOT_FAILED = frozenset({Nrc.BUSY_REPEAT_REQUEST, Nrc.REQUEST_CORRECTLY_RECEIVED_RESPONSE_PENDING})
"""Response codes after which the request may still be carried out."""
NO_ANSWER = "no positive response wanted"
"""What the bit of a sub-function says that suppresses the positive response (suppressPosRspMsgIndicationBit)."""
MOST_IDENTIFIERS = 8
"""Of one request that words name."""
MOST_ECUS = 64
"""ECUs that are followed at once at ids that nobody gave; of more the oldest is forgotten."""


def describe(message: bytes, size: int | None = None) -> Said:
    """One message of UDS, request or response. `size`: of the whole message, where `message` is its beginning."""
    size = len(message) if size is None else size
    if not message:
        return Said("an empty message")
    first = message[0]
    if first == NEGATIVE_RESPONSE:
        if len(message) < 3:
            return Said(f"negative response, cut short: {shown(message)}", True)
        service, nrc = message[1], message[2]
        words = f"negative response to {_service(service)}: NRC 0x{nrc:02X} {nrc_name(nrc)}"
        return Said(words, nrc not in NOT_FAILED)
    service = first & ~POSITIVE
    if service not in SERVICES and service not in OBD_SERVICES:
        return Said(f"unknown service 0x{first:02X}: {shown(message)}")
    details = ", ".join(text for text in _details(service, message, bool(first & POSITIVE), size) if text)
    between = ", " if details.startswith(NO_ANSWER) else " "
    return Said(f"{_name(first)}{between}{details}" if details else _name(first))


def _name(first: int) -> str:
    """What a message with this first byte is."""
    if first == NEGATIVE_RESPONSE:
        return "negative response"
    return f"{'positive response: ' if first & POSITIVE else ''}{_service(first & ~POSITIVE)}"


def _service(number: int) -> str:
    if number in OBD_SERVICES:
        return f"OBD service 0x{number:02X}"
    return name_in(SERVICES, number)


def _details(service: int, message: bytes, response: bool, size: int) -> Iterator[str]:
    """What follows the service's name. A message that is too short for its service has its bytes shown."""
    rest = message[1:]
    if service in SUB_FUNCTIONS and rest:
        yield from _with_sub_function(service, rest, response, size)
        return
    match service:
        case 0x27 if rest:
            level = rest[0] & ~SUPPRESS_POSITIVE_RESPONSE
            if level % 2:
                yield f"requestSeed 0x{level:02X}"
                value = _size(size - 2)
                yield f"seed of {value}" if response and value else value
                # 10.4: the seed of a level that is unlocked already.
                yield "all zero: unlocked" if response and size == len(message) > 2 and not any(rest[1:]) else ""
            else:
                yield f"sendKey 0x{level:02X}"
                yield "" if response else _size(size - 2)
            yield _suppressed(rest[0], response)
        case 0x14 if len(rest) >= 3 and not response:
            yield f"group of DTC 0x{rest[:3].hex().upper()}"
        case 0x22 if len(rest) >= 2 and not response:
            numbers = [int.from_bytes(rest[at : at + 2], "big") for at in range(0, len(rest) - 1, 2)]
            yield from map(_identifier, numbers[:MOST_IDENTIFIERS])
            yield "..." if len(numbers) > MOST_IDENTIFIERS else ""
        case 0x22 | 0x24 | 0x2E if len(rest) >= 2:
            # Of several identifiers that are answered at once only the ECU's maker knows where the second one begins.
            number = int.from_bytes(rest[:2], "big")
            value = _value(rest[2:], size - 3)
            yield f"{_identifier(number)} = {value}" if value else _identifier(number)
        case 0x2F if len(rest) >= 3:
            yield f"{_identifier(int.from_bytes(rest[:2], 'big'))} {name_in(IO_PARAMETERS, rest[2])}"
            yield _value(rest[3:], size - 4)
        case 0x2A if rest and not response:
            yield name_in(PERIODIC_MODES, rest[0])
            yield _value(rest[1:])
        case 0x23 | 0x34 | 0x35 | 0x3D if not response:
            yield from _memory(service, rest, size)
        case 0x34 | 0x35 if rest and len(rest) > rest[0] >> 4:
            yield f"maxNumberOfBlockLength {int.from_bytes(rest[1 : 1 + (rest[0] >> 4)], 'big'):,}"
        case 0x36 if rest:
            yield f"0x{rest[0]:02X}"
            yield counted(size - 2, "byte") if size > 2 else ""
        case 0x38 if rest:
            yield name_in(FILE_MODES, rest[0])
            end = 3 + int.from_bytes(rest[1:3], "big")
            yield shown(rest[3:end], 64) if len(rest) >= 3 and not response else _value(rest[1:], size - 2)
        case _:
            yield _value(rest, size - 1)


def _with_sub_function(service: int, rest: bytes, response: bool, size: int) -> Iterator[str]:
    number = rest[0] & ~SUPPRESS_POSITIVE_RESPONSE
    stored = service == 0x86 and number & STORE_EVENT
    name = name_in(SUB_FUNCTIONS[service], number & ~STORE_EVENT if stored else number)
    name = f"{name}, storeEvent" if stored else name
    data = rest[1:]
    match service:
        case 0x31 if len(data) >= 2:
            routine = int.from_bytes(data[:2], "big")
            named = ROUTINES.get(routine)
            yield f"{name} 0x{routine:04X}{f' {named}' if named else ''}"
            data = data[2:]
        case 0x10 if response and len(data) >= 4:
            p2, p2_star = int.from_bytes(data[:2], "big"), 10 * int.from_bytes(data[2:4], "big")
            yield name
            yield f"P2 {p2:,} ms"
            yield f"P2* {p2_star:,} ms"
            data = data[4:]
        case 0x11 if response and number == 4 and data:
            yield name
            yield "powerDownTime not known" if data[0] == 0xFF else f"powerDownTime {data[0]} s"
            data = data[1:]
        case 0x3E if number == 0:
            pass
        case 0x29:
            yield name
            yield _size(size - 2) if data else ""
            data = b""
        case _:
            yield name
    yield _value(data)
    yield _suppressed(rest[0], response)


def _memory(service: int, rest: bytes, size: int) -> Iterator[str]:
    """addressAndLengthFormatIdentifier and what it announces (H.1); ahead of it a dataFormatIdentifier in 0x34 and 0x35."""
    start = 1 if service in (0x34, 0x35) else 0
    if len(rest) <= start:
        yield _value(rest)
        return
    address_size, length_size = rest[start] & 0x0F, rest[start] >> 4
    end = start + 1 + address_size + length_size
    if len(rest) < end or not address_size or not length_size:
        yield f"cut short: {shown(rest)}"
        return
    address = rest[start + 1 : start + 1 + address_size]
    yield f"0x{address.hex().upper()}"
    yield counted(int.from_bytes(rest[start + 1 + address_size : end], "big"), "byte")
    if start and rest[0]:
        yield f"dataFormatIdentifier 0x{rest[0]:02X}"
    if service == 0x3D:
        yield _value(rest[end:], size - 1 - end)


def _size(size: int) -> str:
    """How long a secret is, in the place of its bytes: words go into logs and onto pages."""
    return counted(size, "byte") if size > 0 else ""


def _identifier(number: int) -> str:
    name = IDENTIFIERS.get(number)
    return f"0x{number:04X} {name}" if name else f"0x{number:04X}"


def _suppressed(sub_function: int, response: bool) -> str:
    return "" if response or not sub_function & SUPPRESS_POSITIVE_RESPONSE else NO_ANSWER


def _value(data: bytes, size: int | None = None) -> str:
    """`size`: of the whole value, where `data` is its beginning."""
    if size is not None and size > len(data) > 0:
        return f"{data[:16].hex(' ').upper()} ... ({size:,} bytes)"
    return shown(data) if data else ""


class UdsDescriber(Describer):
    """One ECU at known ids. `functional`: the id that all ECUs listen to.

    `boot`: the ids of its bootloader's requests and responses, where they are others.
    `targets`: with extended addressing, the address byte of requests and the one of responses; ids may be shared then.
    """

    addressed = True

    def __init__(
        self,
        part: str,
        request: CanId,
        response: CanId,
        functional: CanId | None = None,
        targets: tuple[int, int] | None = None,
        boot: Sequence[tuple[CanId, CanId]] = (),
    ) -> None:
        super().__init__(part)
        requests = (request, functional, *(ids[0] for ids in boot))
        self._to_part = {(item.value, item.extended) for item in requests if item is not None}
        self._functional = None if functional is None else (functional.value, functional.extended)
        self._targets = targets
        responses = {(item.value, item.extended) for item in (response, *(ids[1] for ids in boot))}
        self._sides = {key: Reassembly(1 if targets else 0) for key in (*self._to_part, *responses)}
        self._last: dict[tuple[int, bool], CanFrame] = {}

    def take(self, record: Record) -> Iterable[Line] | None:
        if not isinstance(record, CanFrame) or record.flags & (ERROR | REMOTE):
            return None
        key = (record.can_id, bool(record.flags & EXTENDED))
        side = self._sides.get(key)
        if side is None:
            return None
        sent = key in self._to_part
        if self._targets is not None and record.data[:1] != bytes([self._targets[not sent]]):
            return None
        self._last[key] = record
        heard = list(side.feed(record.data))
        told = [one.data for one in heard if not isinstance(one, Flow)]
        self.secret = holds_secrets(side.head) or any(without_secrets(data) != data for data in told)
        if heard or side.is_open:
            return [self._told(record, key, one) for one in heard]
        words = _part_of_message(record.data, 0 if self._targets is None else 1)
        if not words:
            return None
        # Its message may be one with a secret.
        self.secret = True
        return [self.line(record, sent, Said(words))]

    def end(self) -> Iterator[Line]:
        for key, side in self._sides.items():
            for broken in side.break_off("nothing more came"):
                yield self._told(self._last[key], key, broken)

    def _told(self, record: CanFrame, key: tuple[int, bool], heard: Heard) -> Line:
        to_all = "to all: " if key == self._functional else ""
        said = said_of(heard)
        data = record.data if isinstance(heard, Flow) else without_secrets(heard.data)
        return self.line(record, key in self._to_part, Said(to_all + said.words, said.failed), data)


def _part_of_message(frame: bytes, prefix: int) -> str:
    """A frame that is of a message which can't be put together, in words; "": it is not a frame of ISO-TP with data."""
    number = frame[prefix] & 0x0F if len(frame) > prefix else 0
    match pci_of(frame, prefix):
        case Pci.CONSECUTIVE_FRAME:
            return f"consecutive frame {number} of a message whose beginning was not heard"
        case Pci.FIRST_FRAME:
            return "first frame that begins no message"
        case Pci.SINGLE_FRAME if number > len(frame) - prefix - 1:
            return f"single frame of {counted(number, 'byte')}, cut short"
        case Pci.SINGLE_FRAME if not number and len(frame) > 8 and frame[prefix + 1] > len(frame) - prefix - 2:
            return f"single frame of {counted(frame[prefix + 1], 'byte')}, cut short"
    return ""


class ListeningDescriber(Describer):
    """Each ECU at the ids that ISO 15765-4 (tables 8 and 9) and ISO 15765-2 (normal fixed addressing) give them."""

    def __init__(self) -> None:
        super().__init__()
        self._ecus: dict[tuple[int, bool], UdsDescriber] = {}

    def take(self, record: Record) -> Iterable[Line] | None:
        if not isinstance(record, CanFrame):
            return None
        key = (record.can_id, bool(record.flags & EXTENDED))
        ecu = self._ecus.get(key)
        if ecu is None:
            ids = usual_ids(*key)
            if ids is None:
                return None
            ecu = UdsDescriber("", *ids)
            for item in ids:
                if item is not None:
                    self._ecus[item.value, item.extended] = ecu
            while len(self._ecus) > 2 * MOST_ECUS:
                del self._ecus[next(iter(self._ecus))]
        found = ecu.take(record)
        self.secret = ecu.secret
        return found

    def end(self) -> Iterator[Line]:
        for ecu in dict.fromkeys(self._ecus.values()):
            yield from ecu.end()


def usual_ids(value: int, extended: bool) -> tuple[CanId, CanId, CanId | None] | None:
    """The request and response ids, and the functional id, that this id belongs to; None: to none that the standards name."""
    if not extended:
        if value == 0x7DF:
            return CanId(value), CanId(value), CanId(value)
        if 0x7E0 <= value <= 0x7EF:
            return CanId(value & ~8), CanId(value | 8), None
        return None
    kind, low, high = value >> 16, value >> 8 & 0xFF, value & 0xFF
    if kind == 0x18DB:
        return CanId(value, True), CanId(value, True), CanId(value, True)
    if kind != 0x18DA:
        return None
    # A tester's addresses are 0xF0 to 0xFD (ISO 15765-4 has 0xF1); without one, the smaller address is taken for the ECU's.
    target, source = (low, high) if (high >= 0xF0, -low) >= (low >= 0xF0, -high) else (high, low)
    return CanId(0x18DA0000 | target << 8 | source, True), CanId(0x18DA0000 | source << 8 | target, True), None


def said_of(heard: Heard) -> Said:
    """What a listener hears of ISO-TP, in words."""
    match heard:
        case Message():
            return describe(heard.data, heard.size)
        case Begun():
            return Said(f"first frame of {counted(heard.size, 'byte')}, {_name(heard.data[0])}")
        case Broken():
            return Said(f"broken off after {heard.got:,} of {counted(heard.size, 'byte')}: {heard.why}", True)
        case Flow():
            return Said(heard.words, heard.overflow)
