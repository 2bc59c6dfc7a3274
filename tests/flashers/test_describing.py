"""Describers say what the documents' own examples say, however their bytes were read, and never raise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers.avr.describe import Avr109Describer, Stk500v1Describer, Stk500v2Describer
from proxyflash.flashers.canopen.describe import CanopenDescriber
from proxyflash.flashers.describing import LONGEST_MESSAGE, Describer, Line, Said, described
from proxyflash.flashers.dfu import describe as dfu
from proxyflash.flashers.dfu.describe import DfuDescriber
from proxyflash.flashers.katapult.describe import KatapultCanDescriber, KatapultUartDescriber
from proxyflash.flashers.mboot.describe import MbootCanDescriber, MbootUartDescriber
from proxyflash.flashers.smp import describe as smp
from proxyflash.flashers.smp.describe import ConsoleDescriber, DatagramDescriber, RawDescriber
from proxyflash.flashers.stm32.describe import Stm32Describer
from proxyflash.flashers.stm32.describe_can import Stm32CanDescriber
from proxyflash.flashers.uds.describe import ListeningDescriber, UdsDescriber, describe
from proxyflash.flashers.xcp.describe import XcpCanDescriber, XcpUartDescriber
from proxyflash.flashers.xymodem.describe import XymodemDescriber
from proxyflash.transports.can.bus import CanId
from proxyflash.transports.isotp.reassembly import KEPT
from proxyflash.transports.outside import key_question
from proxyflash.transports.plain import plain
from proxyflash.transports.recording.records import (
    Answer,
    CanFrame,
    Record,
    SerialBytes,
    UsbControl,
    UsbDevices,
    UsbSeen,
)

OUT, IN = True, False


def lines_of(describer: Describer, records: Sequence[Record]) -> list[Line]:
    return list(described(records, {"line": [describer]}))


def serial(*turns: tuple[bool, str], step: int = 0) -> list[Record]:
    """`turns`: direction and hexadecimal bytes. `step`: bytes of each read and write; 0: as they are."""
    records: list[Record] = []
    for outgoing, text in turns:
        data = bytes.fromhex(text)
        size = step or max(len(data), 1)
        records += [
            SerialBytes(float(len(records)), "line", outgoing, data[at : at + size]) for at in range(0, len(data), size)
        ]
    return records


def frame(can_id: int, text: str, *, extended: bool = False) -> CanFrame:
    return CanFrame(0.0, "line", False, can_id, int(extended), bytes.fromhex(text))


# ISO 14229-1:2020, the tables of the message flow examples; NRC: annex A.
UDS = [
    ("10 02", "DiagnosticSessionControl programmingSession", False),
    (
        "50 02 00 32 01 F4",
        "positive response: DiagnosticSessionControl programmingSession, P2 50 ms, P2* 5,000 ms",
        False,
    ),
    ("11 01", "ECUReset hardReset", False),
    ("27 01", "SecurityAccess requestSeed 0x01", False),
    ("67 01 36 57", "positive response: SecurityAccess requestSeed 0x01, seed of 2 bytes", False),
    ("67 01 00 00", "positive response: SecurityAccess requestSeed 0x01, seed of 2 bytes, all zero: unlocked", False),
    ("27 01 36 57", "SecurityAccess requestSeed 0x01, 2 bytes", False),
    ("27 02 C9 A9", "SecurityAccess sendKey 0x02, 2 bytes", False),
    ("29 01 00 00 02 30 82 00 00", "Authentication verifyCertificateUnidirectional, 7 bytes", False),
    ("28 01 01", "CommunicationControl enableRxAndDisableTx, 01", False),
    ("3E 80", "TesterPresent, no positive response wanted", False),
    ("85 02", "ControlDTCSetting off", False),
    ("22 F1 90", "ReadDataByIdentifier 0xF190 VIN", False),
    (
        "62 F1 90 57 30 4C 30 30 30 30 34 33 4D 42 35 34 31 33 32 36",
        'positive response: ReadDataByIdentifier 0xF190 VIN = "W0L000043MB54132" ... (17 bytes)',
        False,
    ),
    ("23 24 20 48 13 92 01 03", "ReadMemoryByAddress 0x20481392, 259 bytes", False),
    ("14 FF FF 33", "ClearDiagnosticInformation group of DTC 0xFFFF33", False),
    ("19 02 84", "ReadDTCInformation reportDTCByStatusMask, 84", False),
    ("31 01 FF 00", "RoutineControl startRoutine 0xFF00 eraseMemory", False),
    ("34 11 33 60 20 00 00 FF FF", "RequestDownload 0x602000, 65,535 bytes, dataFormatIdentifier 0x11", False),
    ("74 20 00 81", "positive response: RequestDownload maxNumberOfBlockLength 129", False),
    ("36 01" + " 00" * 127, "TransferData 0x01, 127 bytes", False),
    ("76 01", "positive response: TransferData 0x01", False),
    ("37", "RequestTransferExit", False),
    ("38 01 00 05 2F 61 2E 62 63", 'RequestFileTransfer AddFile, "/a.bc"', False),
    ("3D 24 20 48 13 92 00 03 00 01 8C", "WriteMemoryByAddress 0x20481392, 3 bytes, 00 01 8C", False),
    ("87 01 05", "LinkControl verifyModeTransitionWithFixedParameter, 05", False),
    ("86 45 02", "ResponseOnEvent startResponseOnEvent, storeEvent, 02", False),
    ("7F 31 78", "negative response to RoutineControl: NRC 0x78 requestCorrectlyReceivedResponsePending", False),
    ("7F 36 72", "negative response to TransferData: NRC 0x72 generalProgrammingFailure", True),
    ("7F 29 57", "negative response to Authentication: NRC 0x57 certificateVerificationFailedInvalidCertificate", True),
]


@pytest.mark.parametrize(("message", "words", "failed"), UDS)
def test_uds_by_the_names_of_iso_14229(message: str, words: str, failed: bool) -> None:
    assert describe(bytes.fromhex(message)) == Said(words, failed)


@pytest.mark.parametrize("listening", [False, True])
def test_no_line_has_a_byte_of_a_seed_a_key_or_a_certificate(listening: bool) -> None:
    """In one frame or in several, broken off, begun before, or cut short: the words and the bytes of a line go into files."""
    describer = ListeningDescriber() if listening else UdsDescriber("radar", CanId(0x7E0), CanId(0x7E8))
    frames = [
        (0x7E0, "02 27 01"),
        (0x7E8, "06 67 01 AB AB AB AB"),
        (0x7E0, "10 0A 27 02 AB AB AB AB"),
        (0x7E8, "30 00 00"),
        (0x7E0, "21 AB AB AB AB"),
        (0x7E0, "10 0A 27 02 AB AB AB AB"),
        (0x7E0, "22 AB AB AB AB"),  # Broken off: frame 1 was due.
        (0x7E0, "21 AB AB AB AB"),
        (0x7E0, "07 27 02 AB AB"),
        (0x7E0, "10 06 27 02 AB AB AB AB"),  # A single frame would hold it.
        (0x7E0, "00 32 27 02 AB AB AB AB AB AB AB AB"),  # CAN FD.
        (0x7E0, "10 0A 29 01 AB AB AB AB"),
    ]
    for can_id, text in frames:
        for line in describer.take(frame(can_id, text)) or [pytest.fail(text)]:
            assert "AB" not in line.words
            assert b"\xab" not in line.data
        assert describer.secret == ("AB" in text), text
    assert all(b"\xab" not in line.data for line in describer.end())


def test_the_key_that_a_program_made_is_not_shown() -> None:
    answer = Answer(0.0, "", key_question(1, b"\xab\xcd"), "abcd")
    assert [line.words for line in described([answer], {})] == ["UDS key of level 1: 2 bytes"]


def test_isotp_is_put_together() -> None:
    """ISO 15765-2, 9.6: a first frame, a flow control, consecutive frames."""
    records = [
        frame(0x7E0, "03 22 F1 90 CC CC CC CC"),
        frame(0x7E8, "10 14 62 F1 90 57 30 4C"),
        frame(0x7E0, "30 08 0A CC CC CC CC CC"),
        frame(0x7E8, "21 30 30 30 30 34 33 4D"),
        frame(0x7E8, "22 42 35 34 31 33 32 36"),
    ]
    lines = lines_of(UdsDescriber("radar", CanId(0x7E0), CanId(0x7E8)), records)
    assert [(line.sent, line.words) for line in lines] == [
        (True, "ReadDataByIdentifier 0xF190 VIN"),
        (False, "first frame of 20 bytes, positive response: ReadDataByIdentifier"),
        (True, "flow control ContinueToSend, block size 8, STmin 10 ms"),
        (False, 'positive response: ReadDataByIdentifier 0xF190 VIN = "W0L000043MB54132" ... (17 bytes)'),
    ]
    assert {line.part for line in lines} == {"radar"}


def test_isotp_that_breaks_off() -> None:
    records = [
        frame(0x7E8, "10 14 62 F1 90 57 30 4C"),
        frame(0x7E8, "23 30 30 30 30 34 33 4D"),
        frame(0x7E0, "32 00 00"),
    ]
    lines = lines_of(UdsDescriber("", CanId(0x7E0), CanId(0x7E8)), records)
    assert [(line.words, line.failed) for line in lines[1:]] == [
        ("broken off after 6 of 20 bytes: consecutive frame 1 was due and 3 came", True),
        ("flow control Overflow", True),
    ]
    (_, ended) = lines_of(UdsDescriber("", CanId(0x7E0), CanId(0x7E8)), records[:1])
    assert ended.words == "broken off after 6 of 20 bytes: nothing more came"


def test_a_message_that_announces_4_gib_is_not_kept() -> None:
    describer = UdsDescriber("", CanId(0x7E0), CanId(0x7E8))
    describer.take(frame(0x7E8, "10 00 FF FF FF FF 62 F1"))
    for number in range(1, 1000):
        describer.take(frame(0x7E8, f"{0x20 | number & 0x0F:02X}" + " 00" * 7))
    (line,) = describer.end()
    assert len(line.data) == KEPT
    assert line.words.startswith("broken off after 6,995 of 4,294,967,295 bytes")


@pytest.mark.parametrize(
    ("can_id", "extended", "sent"),
    [
        (0x7E3, False, True),
        (0x7EB, False, False),
        (0x7DF, False, True),
        (0x18DA10F1, True, True),
        (0x18DAF110, True, False),
    ],
)
def test_usual_ids_of_diagnostics_need_no_bench_file(can_id: int, extended: bool, sent: bool) -> None:
    """ISO 15765-4:2021, tables 8 and 9; ISO 15765-2, 10.3.4."""
    (line,) = lines_of(ListeningDescriber(), [frame(can_id, "02 3E 00", extended=extended)])
    assert (line.sent, line.words.removeprefix("to all: ")) == (sent, "TesterPresent")


def test_other_ids_stay_frames() -> None:
    (line,) = lines_of(ListeningDescriber(), [frame(0x123, "02 3E 00")])
    assert line.words == "123 [3] 02 3E 00"


def test_extended_addresses_tell_ecus_apart() -> None:
    first, second = (UdsDescriber(str(n), CanId(0x6F1), CanId(0x600 | n), None, (n, 0xF1)) for n in (0x12, 0x40))
    lines = list(described([frame(0x6F1, "40 02 10 01"), frame(0x6F1, "12 01 37")], {"line": [first, second]}))
    assert [(line.part, line.words) for line in lines] == [
        (str(0x40), "DiagnosticSessionControl defaultSession"),
        (str(0x12), "RequestTransferExit"),
    ]


STM32 = (
    # AN3155, 3.2 to 3.8: Get ID of an STM32F40x, Write Memory and Extended Erase of three pages.
    [
        (OUT, "7F"), (IN, "79"),
        (OUT, "02 FD"), (IN, "79 01 04 13 79"),
        (OUT, "31 CE"), (IN, "79"), (OUT, "08 00 00 00 08"), (IN, "79"), (OUT, "03 01 02 04 08 0C"), (IN, "79"),
        (OUT, "44 BB"), (IN, "79"), (OUT, "00 02 00 00 00 01 00 02 01"), (IN, "1F"),
        (OUT, "11 EE"), (IN, "79"), (OUT, "08 00 00 00 08"), (IN, "79"), (OUT, "01 FE"), (IN, "79 1F 79"),
    ],
    [
        "synchronisation 0x7F", "ACK", "Get ID", "ACK", "Get ID 0x0413", "ACK",
        "Write Memory", "ACK", "Write Memory 0x08000000", "ACK", "Write Memory 4 bytes", "ACK",
        "Extended Erase", "ACK", "Extended Erase 3 pages (0, 1, 2)", "NACK",
        "Read Memory", "ACK", "Read Memory 0x08000000", "ACK", "Read Memory 2 bytes", "ACK", "Read Memory data, 2 bytes",
    ],
)  # fmt: skip
STK500V1 = (
    # AVR061: the requests of avrdude to Optiboot.
    [
        (OUT, "30 20"), (IN, "14 10"), (OUT, "41 81 20"), (IN, "14 04 10"), (OUT, "55 00 01 20"), (IN, "14 10"),
        (OUT, "64 00 02 46 AA BB 20"), (IN, "14 10"), (OUT, "74 00 02 46 20"), (IN, "14 AA BB 10"),
        (OUT, "75 20"), (IN, "14 1E 95 0F 10"), (OUT, "51 20"), (IN, "15"),
    ],
    [
        "GET_SYNC", "GET_SYNC: OK", "GET_PARAMETER SOFTWARE_MAJOR", "GET_PARAMETER: OK 04", "LOAD_ADDRESS word 0x0100",
        "LOAD_ADDRESS: OK", "PROG_PAGE 2 bytes of flash", "PROG_PAGE: OK", "READ_PAGE 2 bytes of flash",
        "READ_PAGE: OK 2 bytes", "READ_SIGN", "READ_SIGN: OK 1E 95 0F", "LEAVE_PROGMODE", "NOSYNC",
    ],
)  # fmt: skip
STK500V2 = (
    # AVR068, 3.1 and 4.1.1: sign on, and the answer with the programmer's name; then a command that fails.
    [
        (OUT, "1B 01 00 01 0E 01 14"), (IN, "1B 01 00 0B 0E 01 00 08 53 54 4B 35 30 30 5F 32 02"),
        (OUT, "1B 02 00 05 0E 06 80 00 40 00 D4"), (IN, "1B 02 00 02 0E 06 C0 D3"),
    ],
    ["SIGN_ON", "SIGN_ON: CMD_OK 08 53 54 4B 35 30 30 5F 32", "LOAD_ADDRESS 0x004000, extended", "LOAD_ADDRESS: CMD_FAILED"],
)  # fmt: skip
AVR109 = (
    # AVR109, table 2, and what Caterina answers.
    [
        (OUT, "53"), (IN, "43 41 54 45 52 49 4E"), (OUT, "62"), (IN, "59 00 80"), (OUT, "41 00 40"), (IN, "0D"),
        (OUT, "42 00 02 46 AA BB"), (IN, "0D"), (OUT, "67 00 02 45"), (IN, "AA BB"), (OUT, "73"), (IN, "87 95 1E"),
        (OUT, "76"), (IN, "3F"), (OUT, "45"), (IN, "0D"),
    ],
    [
        "Return software identifier", 'Return software identifier: "CATERIN"', "Check block support",
        "Check block support: yes, 128 bytes", "Set address 0x0040", "Set address: done",
        "Start block load 2 bytes of flash", "Start block load: done", "Start block read 2 bytes of EEPROM",
        "Start block read: 2 bytes", "Read signature bytes", "Read signature bytes: 87 95 1E",
        "Return hardware version", "Return hardware version: unknown command", "Exit bootloader", "Exit bootloader: done",
    ],
)  # fmt: skip
YMODEM = (
    # X/YMODEM Protocol Reference, figure 3; a block of zeros has the CRC 0.
    [
        (IN, "43"), (OUT, "01 00 FF" + b"fw.bin\x00128\x00".ljust(128, b"\0").hex() + "7D 37"), (IN, "06 43"),
        (OUT, "01 01 FE" + "00" * 128 + "00 00"), (IN, "15"), (OUT, "04"), (IN, "06"),
        (OUT, "01 00 FF" + "00" * 128 + "00 00"), (IN, "18 18"),
    ],
    [
        "C: send with CRC", 'block 0, file "fw.bin", 128 bytes', "ACK", "C: send with CRC", "block 1, 128 bytes", "NAK", "EOT",
        "ACK", "block 0, no more files", "2 CAN",
    ],
)  # fmt: skip


def test_a_transfer_after_a_cancelled_one_begins_anew() -> None:
    """X/YMODEM Protocol Reference, 4.1 and 7.4: CAN CAN from the receiver; then a receiver that asks for checksums."""
    block = "01 01 FE" + "00" * 128
    turns = [
        (IN, "43"),
        (OUT, block + "00 00"),
        (IN, "18 18"),
        (IN, "15"),
        (OUT, block + "00"),
        (IN, "06"),
        (OUT, "04"),
    ]
    words = [line.words for line in lines_of(XymodemDescriber(), serial(*turns))]
    assert words == [
        "C: send with CRC",
        "block 1, 128 bytes",
        "2 CAN",
        "NAK: send with checksum, or again",
        "block 1, 128 bytes",
        "ACK",
        "EOT",
    ]


# Frames of other people's implementations (blhost of spsdk 3.12, pyblhost 1.8).
MBOOT = (
    [
        (OUT, "5A A6"),
        (IN, "5A A7 00 02 01 50 00 00 AA EA"),
        (OUT, "5A A4 0C 00 37 A2 07 00 00 02 0B 00 00 00 00 00 00 00"),
        (IN, "5A A1 5A A4 0C 00 D7 87 A7 00 00 02 00 00 00 00 20 00 00 00"),
        (OUT, "5A A1"),
        (OUT, "5A A4 10 00 9B EF 04 01 00 03 00 A0 00 00 28 00 00 00 00 00 00 00"),
        (IN, "5A A2"),
        (IN, "5A A3 5A A4 0C 00 92 A6 A0 00 00 02 69 00 00 00 04 00 00 00"),
        (IN, "5A A4 0C 00 92 A7 A0 00 00 02 69 00 00 00 04 00 00 00"),
    ],
    [
        "ping",
        "ping response: protocol P1.2.0",
        "GET PROPERTY MAX PACKET SIZE",
        "ACK",
        "response: SUCCESS 0x20",
        "ACK",
        "WRITE MEMORY 0x0000A000, 40 bytes",
        "NAK",
        "ACK ABORT",
        "response to WRITE MEMORY: FLASH COMMAND FAILURE",
        "response to WRITE MEMORY: FLASH COMMAND FAILURE, CRC wrong",
    ],
)


def test_mboot_on_can() -> None:
    """A stream of bytes in frames of up to 8."""

    def frame(can_id: int, text: str) -> CanFrame:
        return CanFrame(0.0, "line", can_id == 0x321, can_id, 0, bytes.fromhex(text))

    frames = [
        frame(0x321, "5A A6"),
        frame(0x123, "5A A7 00 02 01 50 00 00"),
        frame(0x123, "AA EA"),
        frame(0x321, "5A A4 10 00 9B EF 04 01"),
        frame(0x321, "00 03 00 A0 00 00 28 00"),
        frame(0x321, "00 00 00 00 00 00"),
        frame(0x322, "5A A6"),
    ]
    lines = lines_of(MbootCanDescriber("fan", 0x321, 0x123), frames)
    assert [(line.part, line.sent, line.words) for line in lines] == [
        ("fan", True, "ping"),
        ("fan", False, "ping response: protocol P1.2.0"),
        ("fan", True, "WRITE MEMORY 0x0000A000, 40 bytes"),
        ("", False, "322 [2] 5A A6"),
    ]


# Katapult's protocol.md: messages without payload as it has them, CONNECT's as seen on a bus; CRC-16/MCRF4XX.
KATAPULT = (
    [
        (OUT, "01 88 11 00 F1 7C 99 03"),
        (IN, "01 88 F1 00 68 95 99 03"),
        (OUT, "01 88 14 01 00 20 00 08 5B DE 99 03"),
        (IN, "01 88 F2 00 00 BF 99 03"),
        (OUT, "01 88 11 00 F1 7D 99 03"),
    ],
    ["CONNECT", "NACK", "REQUEST BLOCK 0x08002000", "command error", "CONNECT, CRC wrong"],
)


def test_katapult_on_can() -> None:
    """Each line is one message: what a node that the file lists gets and sends, and what all nodes get."""
    uuid = bytes.fromhex("0e0d81e4210c")

    def sent(can_id: int, text: str, outgoing: bool = True) -> CanFrame:
        return CanFrame(0.0, "line", outgoing, can_id, 0, bytes.fromhex(text))

    frames = [
        sent(0x3F0, "00"),
        sent(0x3F1, "20 0e0d81e4210c 11", False),
        sent(0x202, "01 88 11 00 F1 7C 99 03"),
        sent(0x3F0, "11 0e0d81e4210c 81"),
        sent(0x202, "01 88 14 01 00 20 00 08"),
        sent(0x202, "5B DE 99 03"),
        sent(0x203, "01 88 F2 00 00 BF 99 03", False),
        sent(0x3F0, "02 0e0d81e4210c"),
        sent(0x3F0, "11 000000000000 81"),
    ]
    lines = lines_of(KatapultCanDescriber("head", uuid), frames)
    assert [(line.part, line.words, line.failed) for line in lines if line.data[:1] != b"\x11"] == [
        ("", "query nodes without a node id", False),
        ("head", "needs a node id, UUID 0e0d81e4210c, bootloader", False),
        ("", "202 [8] 01 88 11 00 F1 7C 99 03", False),
        ("head", "REQUEST BLOCK 0x08002000", False),
        ("head", "command error", True),
        ("head", "request bootloader, UUID 0e0d81e4210c", False),
    ]
    # Without a file a node is known once it has said who it is; before that these ids may be anything's.
    words = [line.words for line in lines_of(KatapultCanDescriber(), frames)]
    assert words[:2] == ["3F0 [1] 00", "needs a node id, UUID 0e0d81e4210c, bootloader"]
    assert "REQUEST BLOCK 0x08002000" in words
    assert lines_of(KatapultCanDescriber(), frames[3:4])[0].words == "3F0 [8] 11 0E 0D 81 E4 21 0C 81"


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from((0x3F0, 0x3F1, 0x202, 0x203)), st.binary(max_size=8)), max_size=12))
def test_any_frames_of_katapult_are_told(frames: list[tuple[int, bytes]]) -> None:
    known = [(0x3F1, bytes.fromhex("200e0d81e4210c11")), (0x3F0, bytes.fromhex("110e0d81e4210c81")), *frames]
    for line in lines_of(KatapultCanDescriber(), [CanFrame(0.0, "line", True, i, 0, data) for i, data in known]):
        assert line.words == plain(line.words)


def test_canopen() -> None:
    """Frames of other people's implementations, and CiA 305's. Of a block the acknowledgement is shown."""

    def frame(can_id: int, text: str) -> CanFrame:
        return CanFrame(0.0, "line", can_id & 0x780 != 0x580, can_id, 0, bytes.fromhex(text))

    frames = [
        frame(0x000, "8005"),
        frame(0x705, "7F"),
        frame(0x605, "40511F0100000000"),
        frame(0x585, "4F511F0101000000"),
        frame(0x605, "C6501F018B130000"),
        frame(0x585, "A4501F017F000000"),
        frame(0x605, "0131323334353637"),
        frame(0x585, "A27F7F0000000000"),
        frame(0x605, "C924330000000000"),
        frame(0x585, "A100000000000000"),
        frame(0x585, "80501F0104000405"),
        frame(0x7E5, "4340E2010000000000"[:16]),
        frame(0x606, "4000100000000000"),
    ]
    lines = lines_of(CanopenDescriber("encoder", 5), frames)
    assert [(line.part, line.words, line.failed) for line in lines] == [
        ("encoder", "NMT pre-operational", False),
        ("encoder", "heartbeat: pre-operational", False),
        ("encoder", "read 0x1F51:1 (program control)", False),
        ("encoder", "0x1F51:1 (program control) is 01", False),
        ("encoder", "begin block download to 0x1F50:1 (program data), 5,003 bytes", False),
        ("encoder", "block download to 0x1F50:1 (program data) accepted, 127 segments each", False),
        ("encoder", "127 segments acknowledged, 127 are next", False),
        ("encoder", "block download complete", False),
        ("encoder", "abort 0x1F50:1 (program data): 0x05040004, CRC error", True),
        ("", "LSS select serial number 0x0001E240", False),
        ("", "606 [8] 40 00 10 00 00 00 00 00", False),
    ]
    words = [line.words for line in lines_of(CanopenDescriber(), frames)]
    assert words[0] == "000 [2] 80 05"
    assert "node 5: read 0x1F51:1 (program control)" in words
    assert "node 6: read 0x1000:0" in words


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from((0, 0x585, 0x605, 0x705, 0x7E4, 0x7E5)), st.binary(max_size=8)), max_size=12))
def test_any_frames_of_canopen_are_told(frames: list[tuple[int, bytes]]) -> None:
    for describer in (CanopenDescriber("encoder", 5), CanopenDescriber()):
        known = [(0x705, b"\x05"), *frames]
        for line in lines_of(describer, [CanFrame(0.0, "line", True, i, 0, data) for i, data in known]):
            assert line.words == plain(line.words)


STM32_CAN = [
    (OUT, 0x079, "ff ff ff ff ff ff ff ff", "initialise 0x79"),
    (IN, 0x079, "1f", "NACK initialise"),
    (OUT, 0x000, "", "Get"),
    (IN, 0x000, "79", "ACK"),
    (IN, 0x000, "02", None),
    (IN, 0x000, "20", None),
    (IN, 0x000, "00", None),
    (IN, 0x000, "11", "Get version 2.0: Get, Read Memory"),
    (IN, 0x000, "79", "ACK"),
    (OUT, 0x002, "", "Get ID"),
    (IN, 0x002, "79", "ACK"),
    (IN, 0x002, "04 18", "Get ID 0x0418"),
    (IN, 0x002, "79", "ACK"),
    (OUT, 0x011, "08 00 00 00 08", "Read Memory 0x08000000, 9 bytes"),
    (IN, 0x011, "79", "ACK"),
    (IN, 0x011, "00 01 02 03 04 05 06 07", None),
    (IN, 0x011, "08", "Read Memory data, 9 bytes"),
    (IN, 0x011, "79", "ACK"),
    (OUT, 0x043, "01", "Erase of 2 pages"),
    (IN, 0x043, "79", "ACK"),
    (OUT, 0x043, "05 07", "Erase 2 pages (5, 7)"),
    (IN, 0x043, "79", "ACK"),
    (OUT, 0x043, "ff", "Erase global"),
    (OUT, 0x031, "08 00 00 00 0b", "Write Memory 0x08000000, 12 bytes"),
    (IN, 0x031, "79", "ACK"),
    (OUT, 0x004, "00 01 02 03 04 05 06 07", None),
    (IN, 0x031, "79", None),
    (OUT, 0x004, "08 09 0a 0b", "Write Memory 12 bytes"),
    (IN, 0x031, "79", "ACK"),
    (OUT, 0x003, "03", "Speed 500,000 bit/s"),
    (OUT, 0x021, "08 00 00 00", "Go 0x08000000"),
    (OUT, 0x111, "5a", "opener 0x111"),
    (OUT, 0x044, "ff ff", "Extended Erase global mass erase"),
    (OUT, 0x044, "00 02", "Extended Erase of 2 pages"),
    (OUT, 0x044, "00 05 00 07 00 07", "Extended Erase 2 pages (5, 7)"),
]
"""AN2662 (ST), 3, and openbl_fdcan_cmd.c."""


def test_stm32_on_can() -> None:
    records = [CanFrame(0.0, "line", out, number, 0, bytes.fromhex(text)) for out, number, text, _ in STM32_CAN]
    lines = lines_of(Stm32CanDescriber("motor"), records)
    assert [line.words for line in lines] == [words for *_, words in STM32_CAN if words is not None]
    assert [line.sent for line in lines] == [out for out, *_, words in STM32_CAN if words is not None]
    # Of another host's traffic all frames come in.
    heard = [CanFrame(0.0, "line", False, *record) for record in [(0x000, 0, b""), (0x000, 0, b"\x79")]]
    assert [(line.sent, line.words) for line in lines_of(Stm32CanDescriber(), heard)] == [(True, "Get"), (False, "ACK")]
    assert lines_of(Stm32CanDescriber(), [frame(0x123, "01")])[0].words == "123 [1] 01"


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.booleans(), st.sampled_from((0, 2, 4, 0x11, 0x31, 0x43, 0x44, 0x79, 0x111)), st.binary(max_size=8)
        ),
        max_size=12,
    )
)
def test_any_frames_of_an_stm32_are_told(frames: list[tuple[bool, int, bytes]]) -> None:
    for line in lines_of(Stm32CanDescriber(), [CanFrame(0.0, "line", out, i, 0, data) for out, i, data in frames]):
        assert line.words == plain(line.words)


# Frames of LibOpenBLT and OpenBLT.
XCP = [
    (OUT, "ff 00", "CONNECT", False),
    (
        IN,
        "ff 10 00 08 08 00 01 01",
        "CONNECT: packets of 8 bytes, little endian, elements of 1 bytes, version 1.1",
        False,
    ),
    (OUT, "f8 00 10", "GET_SEED", False),
    (IN, "ff 08 11 22 33 44 55 66", "GET_SEED: 8 bytes of a seed", False),
    (OUT, "f7 08 10 21 32 43 54 65", "UNLOCK: 6 bytes of a key", False),
    (IN, "ff 10", "UNLOCK: done", False),
    (OUT, "f6 00 00 00 00 60 00 08", "SET_MTA 0x08006000", False),
    (IN, "ff", "SET_MTA", False),
    (OUT, "d1 00 00 00 20 4e 00 00", "PROGRAM_CLEAR 20,000", False),
    (IN, "fd 05", "EV_CMD_PENDING", False),
    (IN, "fe 31", "ERR_GENERIC", True),
    (OUT, "d0 00", "PROGRAM 0, the end", False),
    (OUT, "c9 01 02", "PROGRAM_MAX: 01 02", False),
    (OUT, "fc", "SYNCH", False),
    (IN, "fe 00", "ERR_CMD_SYNCH", False),
    (OUT, "f3 00 00 00 00 40 00 00", "BUILD_CHECKSUM 16,384", False),
    (IN, "ff 09 00 00 ce 97 cd 89", "BUILD_CHECKSUM: XCP_CRC_32 0x89CD97CE", False),
    (OUT, "", "0x00", False),
    (IN, "", "data: nothing", False),
]


def test_xcp_on_can() -> None:
    describer = XcpCanDescriber("part", CanId(0x667), CanId(0x7E1), None)
    secrets = []
    for outgoing, text, words, failed in XCP:
        record = CanFrame(0.0, "line", outgoing, 0x667 if outgoing else 0x7E1, 0, bytes.fromhex(text))
        (line,) = describer.take(record) or ()
        assert (line.words, line.failed, line.sent) == (words, failed, outgoing)
        secrets += [words] * describer.secret
    assert secrets == ["GET_SEED: 8 bytes of a seed", "UNLOCK: 6 bytes of a key"]
    assert describer.take(frame(0x123, "ff 00")) is None


@pytest.mark.parametrize("around", [1, 2])
@pytest.mark.parametrize("step", [0, 1, 3])
def test_xcp_on_a_serial_line(step: int, around: int) -> None:
    def framed(text: str) -> str:
        data = bytes.fromhex(text)
        whole = bytes((len(data),)) + data
        return (whole + bytes((sum(whole) & 0xFF,)) * (around - 1)).hex()

    turns = [(outgoing, framed(text)) for outgoing, text, _, _ in XCP if text]
    lines = lines_of(XcpUartDescriber("part", around), serial(*turns, step=step))
    assert [line.words for line in lines] == [words for _, text, words, _ in XCP if text]


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=64))))
def test_any_packets_of_xcp_are_shown(packets: list[tuple[bool, bytes]]) -> None:
    describer = XcpCanDescriber("part", CanId(0x667), CanId(0x7E1), None)
    for outgoing, data in packets:
        for line in describer.take(CanFrame(0.0, "line", outgoing, 0x667 if outgoing else 0x7E1, 0, data)) or ():
            assert line.words == plain(line.words)


@pytest.mark.parametrize("step", [0, 1, 3])
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Stm32Describer, STM32),
        (Stk500v1Describer, STK500V1),
        (Stk500v2Describer, STK500V2),
        (Avr109Describer, AVR109),
        (XymodemDescriber, YMODEM),
        (KatapultUartDescriber, KATAPULT),
        (MbootUartDescriber, MBOOT),
    ],
)
def test_serial_protocols_by_their_documents(
    make: Callable[[], Describer], told: tuple[Sequence[tuple[bool, str]], Sequence[str]], step: int
) -> None:
    turns, words = told
    if make is XymodemDescriber and step == 1:
        words = [*words[:-1], "CAN", "CAN"]
    assert [line.words for line in lines_of(make(), serial(*turns, step=step))] == list(words)


# SMP, "OS management": echo of "hi" as Zephyr's documentation has requests, and its console form with CRC-16/XMODEM.
ECHO = "02 00 00 06 00 00 01 00 A1 61 64 62 68 69"
SMP = [
    (ECHO, 'write: os echo: d "hi"', False),
    ("03 00 00 06 00 00 01 00 A1 61 72 62 68 69", 'reply: os echo: r "hi"', False),
    ("01 00 00 06 00 01 02 00 BF 62 72 63 08 FF", "reply: image state: ENOTSUP (rc 8)", True),
    ("0A 00 00 01 00 40 00 07 A0", "write: group 64 command 7", False),
    ("0A 00", "no packet of SMP: 0A 00", True),
]


@pytest.mark.parametrize(("packet", "words", "failed"), SMP)
def test_smp_by_the_names_of_its_specification(packet: str, words: str, failed: bool) -> None:
    assert smp.describe(bytes.fromhex(packet)) == Said(words, failed)


def test_smp_on_each_of_its_wires() -> None:
    packet = bytes.fromhex(ECHO)
    # The length 16, the packet, its CRC-16/XMODEM, in base64 (transport specification, "SMP over console").
    console = b"boot ok\r\n\x06\x09" + b"ABACAAAGAAABAKFhZGJoaU7E\n"
    for make, data in ((ConsoleDescriber, console), (RawDescriber, packet), (DatagramDescriber, packet)):
        lines = [line.words for line in lines_of(make(), [SerialBytes(0.0, "line", True, data)])]
        assert lines[-1] == 'write: os echo: d "hi"', make
    assert lines_of(ConsoleDescriber(), [SerialBytes(0.0, "line", False, console)])[0].words == "text: boot ok"


def test_dfu_by_the_names_of_its_specification() -> None:
    functional = "09 21 0B FF 00 00 08 1A 01"
    configuration = bytes.fromhex("09 02 1B 00 01 01 00 C0 32" + "09 04 00 00 00 FE 01 02 04" + functional)
    seen = UsbSeen(1, 5, (1,), 2, bytes(18), (configuration,))

    def control(setup: str, data: str = "", status: int = 0) -> UsbControl:
        return UsbControl(0.0, "line", 1, 5, bytes.fromhex(setup), bytes.fromhex(data), status, 0.0)

    transfers = [
        control("A1 03 00 00 00 00 06 00", "00 32 00 00 04 00"),
        control("21 01 02 00 00 00 04 00", "01 02 03 04"),
        control("21 01 00 00 00 00 05 00", "41 00 40 00 08"),
        control("21 01 00 00 00 00 00 00"),
        control("A1 03 00 00 00 00 06 00", "08 00 00 00 0A 00"),
        control("21 06 00 00 00 00 00 00", status=-32),
    ]
    plain = [line.words for line in lines_of(DfuDescriber(), transfers)]
    assert plain == [
        "1.5 GETSTATUS OK, dfuDNBUSY, bwPollTimeout 50 ms",
        "1.5 DNLOAD block 2, 4 bytes",
        "1.5 DNLOAD block 0, 5 bytes",
        "1.5 DNLOAD block 0, no data: the end of the file",
        "1.5 GETSTATUS errADDRESS, dfuERROR, bwPollTimeout 0 ms",
        "1.5 ABORT: STALL",
    ]
    lines = lines_of(DfuDescriber(), [UsbDevices(0.0, "line", (seen,)), *transfers])[1:]
    assert [line.words for line in lines][1:4] == [
        "1.5 DNLOAD block 2, data block 0, 4 bytes",
        "1.5 DNLOAD Erase 0x08004000",
        "1.5 DNLOAD block 0, no data: leave DFU mode",
    ]
    assert [line.failed for line in lines] == [False, False, False, False, True, True]


STREAMS: Sequence[Callable[[], Describer]] = (
    Stm32Describer,
    Stk500v1Describer,
    Stk500v2Describer,
    Avr109Describer,
    XymodemDescriber,
    ConsoleDescriber,
    RawDescriber,
    DatagramDescriber,
    KatapultUartDescriber,
)


@pytest.mark.parametrize("make", STREAMS)
@settings(max_examples=40)
@given(turns=st.lists(st.tuples(st.booleans(), st.binary(max_size=40)), max_size=12))
def test_any_bytes_of_a_line_are_told(make: Callable[[], Describer], turns: list[tuple[bool, bytes]]) -> None:
    for line in lines_of(make(), [SerialBytes(0.0, "line", out, data) for out, data in turns]):
        assert line.words == plain(line.words)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from((0x7E0, 0x7E8, 0x7DF)), st.binary(max_size=64)), max_size=12))
def test_any_frames_are_told(frames: list[tuple[int, bytes]]) -> None:
    for line in lines_of(ListeningDescriber(), [CanFrame(0.0, "line", True, i, 0, data) for i, data in frames]):
        assert line.words == plain(line.words)


@settings(max_examples=40)
@given(st.binary(max_size=80))
def test_any_message_is_told(data: bytes) -> None:
    for said in (describe(data), smp.describe(data)):
        assert said.words == plain(said.words)
    for status in (0, -32):
        words = dfu.describe(data[:8].ljust(8, b"\0"), data, status, dfuse=True).words
        assert words == plain(words)


@pytest.mark.parametrize("make", STREAMS)
@pytest.mark.parametrize("byte", [0x01, 0x43])
def test_what_waits_for_its_end_is_bounded(make: Callable[[], Describer], byte: int) -> None:
    describer = make()
    describer.take(SerialBytes(0.0, "line", True, bytes([byte]) * (LONGEST_MESSAGE + 1)))
    assert sum(len(line.data) for line in describer.end()) <= LONGEST_MESSAGE
