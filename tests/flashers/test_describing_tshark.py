"""Describers and Wireshark's dissectors see the same in the same recordings."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from proxyflash.flashers.describing import described
from proxyflash.flashers.dfu.describe import STATUSES, DfuDescriber
from proxyflash.flashers.uds.codec import nrc_name
from proxyflash.flashers.uds.describe import IO_PARAMETERS, SERVICES, SUB_FUNCTIONS, ListeningDescriber
from proxyflash.transports.recording.formats import save_all
from proxyflash.transports.recording.records import CanFrame, Record, UsbControl

REQUEST, RESPONSE = 0x7E0, 0x7E8
MESSAGES = (
    "10 02", "50 02 00 32 01 F4", "22 F1 90", "62 F1 90 57 30 4C 30 30 30 30 34 33 4D 42 35 34 31 33 32 36", "11 01", "51 01",
    "27 01", "67 01 36 57", "27 02 C9 A9", "67 02", "28 01 01", "85 02", "3E 00", "7E 00",
    "14 FF FF 33", "19 02 84", "23 24 20 48 13 92 01 03",
    "31 01 FF 00 44 00 02 00 00 00 01 00 00", "7F 31 78", "71 01 FF 00", "34 00 44 00 02 00 00 00 01 00 00", "74 20 04 02",
    "36 01" + " 5A" * 300, "76 01", "7F 36 73", "37", "77", "2E F1 5A 01 02 03 04 05 06 07", "6E F1 5A", "2F 9B 00 03 3C",
    "35 00 44 00 02 00 00 00 00 01 00", "38 01 00 01 61", "3D 24 20 48 13 92 00 03 00 01 8C", "87 01 05", "7F 35 31", "7F 27 35",
)  # fmt: skip
SET_UP = (
    ("80 06 00 01 00 00 12 00", "12 01 00 02 00 00 00 40 83 04 11 DF 00 22 01 02 03 01"),
    ("80 06 00 02 00 00 1B 00", "09 02 1B 00 01 01 00 C0 32 09 04 00 00 00 FE 01 02 04 09 21 0B FF 00 00 08 10 01"),
)
"""By its descriptors Wireshark knows a device: its ids, and its DFU interface."""
TRANSFERS = (
    ("A1 05 00 00 00 00 01 00", "02"),
    ("A1 03 00 00 00 00 06 00", "00 32 01 00 04 00"),
    ("21 01 02 00 00 00 04 00", "01 02 03 04"),
    ("A1 02 03 00 00 00 04 00", "0A 0B 0C 0D"),
    ("21 04 00 00 00 00 00 00", ""),
    ("21 06 00 00 00 00 00 00", ""),
    ("21 00 E8 03 00 00 00 00", ""),
    ("A1 03 00 00 00 00 06 00", "08 00 00 00 0A 00"),
)
DFU_NAMES = {
    "Get State": "GETSTATE", "Get Status": "GETSTATUS", "Download": "DNLOAD", "Upload": "UPLOAD", "Clear Status": "CLRSTATUS",
    "Abort": "ABORT", "Detach": "DETACH",
}  # fmt: skip
"""Of DFU 1.1, table 3.2, by Wireshark's."""


def dissected(
    folder: Path, records: Sequence[Record], wanted: str, decode_as: Sequence[str], *fields: str
) -> list[list[str]]:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    save_all(records, folder)
    options = [word for rule in decode_as for word in ("-d", rule)] + [
        word for field in fields for word in ("-e", field)
    ]
    done = subprocess.run(
        ["tshark", "-n", "-r", folder / "recording.pcapng", "-Y", wanted, "-T", "fields", *options],
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    return [line.split("\t") for line in done.stdout.splitlines()]


def frames_of(message: bytes) -> list[tuple[int, bytes]]:
    """ISO 15765-2, 9.6: the frames that carry a message, with the receiver's one flow control."""
    sender, receiver = (RESPONSE, REQUEST) if message[0] & 0x40 else (REQUEST, RESPONSE)
    if len(message) < 8:
        return [(sender, bytes([len(message)]) + message)]
    found = [(sender, (0x1000 | len(message)).to_bytes(2, "big") + message[:6]), (receiver, b"\x30\x00\x0a")]
    for number, start in enumerate(range(6, len(message), 7), 1):
        found.append((sender, bytes([0x20 | number & 0x0F]) + message[start : start + 7]))
    return found


def test_uds_is_what_wireshark_sees(tmp_path: Path) -> None:
    frames = [frame for text in MESSAGES for frame in frames_of(bytes.fromhex(text))]
    records = [
        CanFrame(1000.0 + number / 100, "can", can_id == REQUEST, can_id, 0, data.ljust(8, b"\xcc"))
        for number, (can_id, data) in enumerate(frames)
    ]
    rows = dissected(
        tmp_path, records, "iso15765", ("can.subdissector,iso15765", "iso15765.subdissector,uds"),
        "frame.time_epoch", "_ws.col.Info", "uds.err.sid", "uds.err.code",
    )  # fmt: skip
    lines = list(described(records, {"can": [ListeningDescriber()]}))
    rows = [row for row in rows if "Consecutive Frame" not in row[1]]
    assert len(rows) == len(lines) > len(MESSAGES)
    for (at, info, refused, code), line in zip(rows, lines, strict=True):
        assert float(at) == pytest.approx(line.time, abs=1e-5)
        if found := re.match(r"First Frame\(Frame Len: (\d+)\)", info):
            assert line.words.startswith(f"first frame of {int(found[1]):,} bytes, ")
        elif info.startswith("Flow control"):
            assert (line.words, info) == (
                "flow control ContinueToSend, block size 0, STmin 10 ms",
                "Flow control(Status: 0, Block size: 0x0, Separation time minimum: 10 ms)",
            )
        elif code:
            words = f"negative response to {SERVICES[int(refused, 0)]}: NRC 0x{int(code, 0):02X} "
            assert line.words.startswith(words)
        else:
            kind, name = re.split(r"\s{2,}", info)[:2]
            head = line.words.removeprefix("positive response: ").split()[0].rstrip(",")
            assert (head, head != line.words.split()[0].rstrip(",")) == (name.replace(" ", ""), kind == "Reply"), info


def test_dfu_is_what_wireshark_sees(tmp_path: Path) -> None:
    records = [
        UsbControl(1000.0 + number, "usb", 1, 5, bytes.fromhex(setup), bytes.fromhex(data), 0, 0.001)
        for number, (setup, data) in enumerate((*SET_UP, *TRANSFERS))
    ]
    rows = dissected(
        tmp_path, records, "usbdfu", ("usb.product==0x0483df11,usbdfu",),
        "_ws.col.Info", "usbdfu.block_number", "usbdfu.timeout",
    )  # fmt: skip
    sent, answered = rows[::2], rows[1::2]
    lines = list(described(records, {"usb": [DfuDescriber()]}))[len(SET_UP) :]
    assert len(sent) == len(lines) == len(TRANSFERS)
    for (command, block, timeout), (answer, *_), line in zip(sent, answered, lines, strict=True):
        name = re.sub("^Sent Command: ", "", command).partition(" Block")[0].partition(" Timeout")[0]
        words = line.words.removeprefix("1.5 ")
        assert words.split()[0] == DFU_NAMES[name]
        if block:
            assert f" block {block}, " in words
        if timeout:
            assert f"wTimeout {int(timeout):,} ms" in words
        if found := re.search(r"Status: (\w+), PollTimeout: (\d+) ms", answer):
            assert words.lower().startswith(f"getstatus {found[1].lower()}, ")
            assert f"bwPollTimeout {int(found[2]):,} ms" in words


OTHER_NAMES = {
    "securedatatransmission": "secureddatatransmission",
    "sercuredatatransmission": "secureddatatransmission",
    "exceedednumberofattempts": "exceednumberofattempts",
    "certificateverificationfailedinvalidcertificaterevoked": "certificateverificationfailedinvalidcertificate",
    "requestcorrectlyreceivedbutresponseispending": "requestcorrectlyreceivedresponsepending",
    "runtimetoolow": "engineruntimetoolow",
    "brakeswitchesnotclosed": "brakeswitchnotclosed",
    "keyonoffreset": "keyoffonreset",
    "requestroutineresult": "requestroutineresults",
    "errusbreset": "errusbr",
    "errpoweronreset": "errpor",
}
"""Where Wireshark's name is not that of ISO 14229-1 or DFU 1.1, 6.1.2: small letters without blanks, and theirs."""


@pytest.mark.real_time("tshark prints 80 MB")
def test_each_name_of_wireshark_s_tables() -> None:
    """Services, response codes, sub-functions that both have as one word; statuses of DFU."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    values = "tshark -G values | grep -E '^V.(uds|usbdfu)[.]'"
    done = subprocess.run(values, shell=True, stdout=subprocess.PIPE, text=True, timeout=600, check=True)
    rows = re.findall(r"^V\t\w+\.(\S+)\t(0x[0-9a-f]+|\d+)\t(.+)$", done.stdout, re.MULTILINE)
    ours: dict[str, Callable[[int], str | None]] = {
        "sid": SERVICES.get,
        "err.code": nrc_name,
        "dsc.type": SUB_FUNCTIONS[0x10].get,
        "er.type": SUB_FUNCTIONS[0x11].get,
        "rc.type": SUB_FUNCTIONS[0x31].get,
        "cdtcs.type": SUB_FUNCTIONS[0x85].get,
        "iocbi.parameter": IO_PARAMETERS.get,
        "status": STATUSES.get,
    }
    compared = 0
    for field, number, text in rows:
        if field in ours and text not in ("Reserved", "Error"):
            name = re.sub(r"[^a-z0-9]", "", text.lower())
            own = str(ours[field](int(number, 0))).replace("_", "").lower()
            assert own == OTHER_NAMES.get(name, name), (field, number)
            compared += 1
    assert compared > 100
