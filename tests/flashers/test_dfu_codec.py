"""USB DFU on the wire: numbers, descriptors and status, against the tables of USB DFU 1.1 (2004-08-05) and ST's AN2662."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers.dfu.codec import (
    APPLICATION_SPECIFIC,
    DFU_SUBCLASS,
    IN,
    OUT,
    PROTOCOL_DFU_MODE,
    DfuSeCommand,
    DfuState,
    DfuStatus,
    Functional,
    Request,
    Status,
    parse_functional,
    parse_status,
)
from proxyflash.flashers.errors import ProtocolError


def test_requests_are_those_of_table_3_2() -> None:
    assert (OUT, IN) == (0b00100001, 0b10100001)
    assert [(item.value, item.name) for item in Request] == [
        (0, "DETACH"),
        (1, "DNLOAD"),
        (2, "UPLOAD"),
        (3, "GETSTATUS"),
        (4, "CLRSTATUS"),
        (5, "GETSTATE"),
        (6, "ABORT"),
    ]


def test_interface_is_that_of_tables_4_1_and_4_4() -> None:
    assert (APPLICATION_SPECIFIC, DFU_SUBCLASS, PROTOCOL_DFU_MODE) == (0xFE, 0x01, 0x02)


def test_states_are_those_of_6_1_2() -> None:
    names = (
        "appIDLE appDETACH dfuIDLE dfuDNLOAD-SYNC dfuDNBUSY dfuDNLOAD-IDLE dfuMANIFEST-SYNC dfuMANIFEST "
        "dfuMANIFEST-WAIT-RESET dfuUPLOAD-IDLE dfuERROR"
    )
    assert [item.name.replace("_", "-") for item in DfuState] == names.split()
    assert [item.value for item in DfuState] == [*range(11)]


def test_status_codes_are_those_of_6_1_2() -> None:
    names = (
        "OK errTARGET errFILE errWRITE errERASE errCHECK_ERASED errPROG errVERIFY errADDRESS errNOTDONE errFIRMWARE "
        "errVENDOR errUSBR errPOR errUNKNOWN errSTALLEDPKT"
    )
    assert [item.name for item in DfuStatus] == names.split()
    assert [item.value for item in DfuStatus] == [*range(16)]


def test_dfuse_commands_are_those_of_an2662() -> None:
    assert [item.value for item in DfuSeCommand] == [0x00, 0x21, 0x41, 0x92]


@pytest.mark.parametrize(
    ("data", "meaning"),
    [
        # bStatus, bwPollTimeout (three bytes, lowest first), bState, iString.
        ("00 00 00 00 02 00", Status(DfuStatus.OK, 0, DfuState.dfuIDLE)),
        ("00 64 00 00 04 00", Status(DfuStatus.OK, 100, DfuState.dfuDNBUSY)),
        ("00 01 02 03 04 00", Status(DfuStatus.OK, 0x030201, DfuState.dfuDNBUSY)),
        ("00 ff ff ff 07 00", Status(DfuStatus.OK, 16777215, DfuState.dfuMANIFEST)),
        ("0b 00 00 00 0a 05", Status(DfuStatus.errVENDOR, 0, DfuState.dfuERROR)),
        ("0f 00 00 00 0a 00", Status(DfuStatus.errSTALLEDPKT, 0, DfuState.dfuERROR)),
    ],
)
def test_status(data: str, meaning: Status) -> None:
    assert parse_status(bytes.fromhex(data)) == meaning


@pytest.mark.parametrize(
    "data", ["", "00 00 00 00 02", "00 00 00 00 02 00 00", "10 00 00 00 02 00", "00 00 00 00 0b 00"]
)
def test_no_status(data: str) -> None:
    with pytest.raises(ProtocolError, match="GETSTATUS"):
        parse_status(bytes.fromhex(data))


@given(st.binary(max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_status_or_confused(data: bytes) -> None:
    try:
        status = parse_status(data)
    except ProtocolError:
        return
    assert len(data) == 6
    assert (status.status, status.state) == (data[0], data[4])


@pytest.mark.parametrize(
    ("extra", "meaning"),
    [
        # Table 4.2: bLength, bDescriptorType, bmAttributes, wDetachTimeOut, wTransferSize, bcdDFUVersion.
        ("09 21 01 00 00 40 00 10 01", Functional(True, False, False, False, 0, 64, 0x0110)),
        ("09 21 02 00 00 40 00 10 01", Functional(False, True, False, False, 0, 64, 0x0110)),
        ("09 21 04 00 00 40 00 10 01", Functional(False, False, True, False, 0, 64, 0x0110)),
        ("09 21 08 00 00 40 00 10 01", Functional(False, False, False, True, 0, 64, 0x0110)),
        ("09 21 0f e8 03 00 10 10 01", Functional(True, True, True, True, 1000, 4096, 0x0110)),
        # An STM32's ROM, as lsusb shows it: will detach, intolerant, upload, download; 255 ms, 2048 bytes, 1.1a.
        ("09 21 0b ff 00 00 08 1a 01", Functional(True, True, False, True, 255, 2048, 0x011A)),
        # DFU 1.0, 4.1.3: without a version.
        ("07 21 01 00 00 40 00", Functional(True, False, False, False, 0, 64, 0x0100)),
        # Behind another class-specific descriptor.
        ("03 24 00 09 21 01 00 00 40 00 10 01", Functional(True, False, False, False, 0, 64, 0x0110)),
        # Cut, without length, or not there.
        ("09 21 01 00", None),
        ("00 21 01 00 00 40 00 10 01", None),
        ("01", None),
        ("", None),
    ],
)
def test_functional_descriptor(extra: str, meaning: Functional | None) -> None:
    assert parse_functional(bytes.fromhex(extra)) == meaning


@given(st.binary(max_size=64))
@settings(max_examples=300, deadline=None)
def test_any_bytes_have_a_functional_descriptor_or_none(extra: bytes) -> None:
    found = parse_functional(extra)
    assert found is None or (0 <= found.transfer_size <= 0xFFFF and b"\x21" in extra)
