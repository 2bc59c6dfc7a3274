"""UDS requests and responses: the message flow examples of ISO 14229-1:2020, and udsoncan as an independent oracle."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from proxyflash.flashers.errors import (
    OperationFailed,
    PartError,
    PartRefused,
    PartWrongMode,
    SecurityDenied,
    Unsupported,
)
from proxyflash.flashers.uds import codec as uds_codes
from proxyflash.flashers.uds.codec import (
    NegativeResponse,
    Nrc,
    Service,
    decode,
    describe,
    expected_head,
    nrc_name,
    quote,
)
from proxyflash.flashers.uds.identity import text
from proxyflash.transports.errors import ExitStatus, ProxyflashError
from udsoncan import services
from udsoncan.Response import Response
from udsoncan.services.TesterPresent import TesterPresent

VIN = "57 30 4C 30 30 30 30 34 33 4D 42 35 34 31 33 32 36"
"""W0L000043MB541326, the standard's own example."""

EXAMPLES = [
    # Clause, request, response, what follows the part of the request that is repeated.
    ("10.2 DiagnosticSessionControl", "10 02", "50 02 00 32 01 F4", "00 32 01 F4"),
    ("10.3 ECUReset", "11 01", "51 01", ""),
    ("10.4 SecurityAccess, seed", "27 01", "67 01 36 57", "36 57"),
    ("10.4 SecurityAccess, key", "27 02 C9 A9", "67 02", ""),
    ("10.4 SecurityAccess, unlocked already", "27 01", "67 01 00 00", "00 00"),
    ("10.5 CommunicationControl", "28 01 01", "68 01", ""),
    ("10.7 TesterPresent", "3E 00", "7E 00", ""),
    ("10.8 ControlDTCSetting", "85 02", "C5 02", ""),
    ("11.2 ReadDataByIdentifier", "22 F1 90", f"62 F1 90 {VIN}", VIN),
    ("11.3 ReadMemoryByAddress", "23 24 20 48 13 92 01 03", "63 00 8C 01", "00 8C 01"),
    ("11.7 WriteDataByIdentifier", f"2E F1 90 {VIN}", "6E F1 90", ""),
    ("14.2 RoutineControl", "31 01 02 01", "71 01 02 01 32 33 34", "32 33 34"),
    ("15.2 RequestDownload", "34 11 33 60 20 00 00 FF FF", "74 20 00 81", "20 00 81"),
    ("15.3 RequestUpload", "35 11 33 20 10 00 00 01 FF", "75 20 00 81", "20 00 81"),
    ("15.4 TransferData", "36 05 11 22", "76 05", ""),
    ("15.5 RequestTransferExit", "37", "77", ""),
]


@pytest.mark.parametrize(("clause", "request_", "response", "rest"), EXAMPLES, ids=[row[0] for row in EXAMPLES])
def test_the_standards_examples(clause: str, request_: str, response: str, rest: str) -> None:
    assert decode(bytes.fromhex(request_), bytes.fromhex(response)) == bytes.fromhex(rest)


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        ("10 02", "50 03 00 32 01 F4"),  # of another session
        ("22 F1 90", "62 F1 8C 30"),  # of another identifier
        ("31 01 FF 00", "71 01 FF 01 00"),  # of another routine
        ("31 01 FF 00", "71 03 FF 00 00"),  # of another routine control type
        ("36 05 11", "76 04"),  # of the block before
        ("34 00 11 00 01", "7F 36 78"),  # a refusal of another service
        ("34 00 11 00 01", "7F 34"),  # cut off
        ("34 00 11 00 01", "34 00 11 00 01"),  # an echo of the request
        ("34 00 11 00 01", "7F"),
        ("34 00 11 00 01", ""),
    ],
)
def test_what_is_no_answer_to_a_request(request_: str, response: str) -> None:
    assert decode(bytes.fromhex(request_), bytes.fromhex(response)) is None


def test_the_bit_that_suppresses_the_positive_response_is_not_repeated() -> None:
    """8.2.2: the response carries the sub-function without it."""
    assert expected_head(bytes.fromhex("3E 80")) == bytes.fromhex("7E 00")
    assert expected_head(bytes.fromhex("31 81 FF 00")) == bytes.fromhex("71 01 FF 00")
    # Of an identifier and of a block counter it is a bit like any other.
    assert expected_head(bytes.fromhex("22 F1 90")) == bytes.fromhex("62 F1 90")
    assert expected_head(bytes.fromhex("36 80 00")) == bytes.fromhex("76 80")


requests = st.builds(
    lambda service, rest: bytes((service,)) + rest, st.sampled_from(Service), st.binary(min_size=4, max_size=20)
)


@given(requests, st.binary(max_size=64))
@example(b"\x23\0\0\0\0", b"\x63")
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_an_answer_a_refusal_or_not_ours(request_: bytes, response: bytes) -> None:
    answer = decode(request_, response)
    if isinstance(answer, NegativeResponse):
        assert answer.nrc == response[2]
        assert isinstance(answer.error(), ProxyflashError)
    elif answer is not None:
        assert response.endswith(answer)
        # To udsoncan, no data at all is not a response where the service has some; here that is for who reads them.
        assert Response.from_payload(response).positive or response == expected_head(request_)


@given(requests, st.integers(0, 255), st.binary(max_size=3))
@settings(max_examples=200, deadline=None)
def test_refusals_as_udsoncan_reads_them(request_: bytes, nrc: int, rest: bytes) -> None:
    payload = bytes((0x7F, request_[0], nrc)) + rest
    theirs = Response.from_payload(payload)
    ours = decode(request_, payload)
    assert isinstance(ours, NegativeResponse)
    assert ours.nrc == theirs.code
    assert not theirs.positive
    assert theirs.service is not None
    assert theirs.service.request_id() == request_[0]


@given(st.sampled_from(Service), st.integers(0, 0x7F), st.binary(min_size=3, max_size=20))
@settings(max_examples=200, deadline=None)
def test_positive_responses_as_udsoncan_reads_them(service: Service, first: int, rest: bytes) -> None:
    request_ = bytes((service, first)) + rest
    head = expected_head(request_)
    theirs = Response.from_payload(head + rest)
    assert theirs.positive
    assert theirs.service is not None
    assert theirs.service.request_id() == service
    assert theirs.data is not None
    assert theirs.data == head[1:] + rest
    assert decode(request_, head + rest) == rest


def test_the_codes_are_those_of_udsoncan() -> None:
    """Its names are the standard's, in camel case."""
    # New in 2020; udsoncan has ISO 15764's names.
    for code in set(Nrc) - {Nrc.SECURE_DATA_TRANSMISSION_REQUIRED, Nrc.SECURE_DATA_VERIFICATION_FAILED}:
        theirs = Response.Code.get_name(code)
        assert theirs is not None
        assert nrc_name(code).lower() == theirs.lower().replace("_", ""), hex(code)


def test_the_services_are_those_of_udsoncan() -> None:
    known = {item._sid: item.__name__ for item in vars(services).values() if hasattr(item, "_sid")}
    for service in Service:
        assert known[service].lower() == service.name.replace("_", "").lower()
        assert describe(bytes((service, 1))).startswith(known[service])


DENIED = {0x33, 0x34, 0x35, 0x36, 0x37, 0x38}
FAILED = {0x25, 0x26, 0x70, 0x71, 0x72, 0x73}


@pytest.mark.parametrize("nrc", range(256))
def test_each_code_is_an_error_with_a_name_and_a_remedy_where_there_is_one(nrc: int) -> None:
    error = NegativeResponse(bytes.fromhex("34 00 44 00 01 00 00"), nrc).error()
    assert f"NRC 0x{nrc:02X}" in error.cause
    assert "RequestDownload (34 00 44 00 01 00 00)" in error.cause
    expected: type[ProxyflashError] = PartRefused
    if nrc in DENIED:
        expected = SecurityDenied
        assert error.exit_status == ExitStatus.PERMISSION
        assert error.remedy
    elif nrc in FAILED:
        expected = OperationFailed
        assert error.remedy
    elif nrc in (0x11, 0x12):
        expected = Unsupported
    elif nrc in (0x7E, 0x7F):
        expected = PartWrongMode
    assert type(error) is expected
    assert expected is Unsupported or isinstance(error, PartError)


@pytest.mark.parametrize(
    ("nrc", "name"),
    [
        (0x22, "conditionsNotCorrect"),
        (0x78, "requestCorrectlyReceivedResponsePending"),
        (0x7F, "serviceNotSupportedInActiveSession"),
        (0x93, "voltageTooLow"),
        (0xF5, "vehicleManufacturerSpecificConditionsNotCorrect"),
        (0x05, "ISOSAEReserved"),
        (0xFF, "ISOSAEReserved"),
    ],
)
def test_names_as_in_table_a_1(nrc: int, name: str) -> None:
    assert nrc_name(nrc) == name


@pytest.mark.parametrize("words", ["Its maker says", "supply voltage", "waiting time"])
def test_a_remedy_fits_its_cause(words: str) -> None:
    codes = {"Its maker says": 0x22, "supply voltage": 0x93, "waiting time": 0x37}
    assert words in NegativeResponse(b"\x10\x02", codes[words]).error().remedy


@given(st.binary(max_size=40))
@settings(max_examples=100, deadline=None)
def test_a_request_is_described_whatever_it_is(request_: bytes) -> None:
    if request_:
        assert describe(request_)


@pytest.mark.parametrize("message", ["27 02 78 37 EB 5A", "67 01 21 47 36 5B", "29 03 00 04 12 34 56 78 00 00"])
def test_no_error_shows_a_seed_a_key_or_a_proof(message: str) -> None:
    said = f"{message[:5]} ..."
    assert quote(bytes.fromhex(message)) == said
    assert f"({said})" in NegativeResponse(bytes.fromhex(message), 0x35).error().cause


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"1.4.2", "1.4.2"),
        (b"1.4.2\x00\x00\x00", "1.4.2"),
        (b"RA-0019  \xff\xff", "RA-0019"),
        (b"\x01BL 2.1", "BL 2.1"),  # Annex C.1, F180: the number of modules goes first.
        (b"\x00\x00", ""),
        (b"", ""),
        (b"\xde\xad\xbe\xef", "DEADBEEF"),
        (b"\x12", "12"),
    ],
)
def test_the_text_of_an_identifier(value: bytes, shown: str) -> None:
    assert text(value) == shown


@given(st.binary(max_size=64))
@settings(max_examples=300, deadline=None)
def test_any_value_has_a_text_that_prints(value: bytes) -> None:
    assert text(value).isascii()
    assert text(value).isprintable()


def test_tester_present_asks_for_no_answer() -> None:
    theirs = TesterPresent.make_request()
    theirs.suppress_positive_response = True
    assert theirs.get_payload() == uds_codes.TESTER_PRESENT


@pytest.mark.parametrize("byte", [b"A", b"\x80", b"\x01"])
def test_a_value_without_end_is_shown_by_its_beginning(byte: bytes) -> None:
    shown = text(byte * 4000)
    assert len(shown) == 131
    assert shown.endswith("...")
    assert text(b"A" * 128) == "A" * 128
