"""Programming sequences as they are published, each as a profile, against an emulated ECU that insists on its order.

What is taken from a source is the order of the requests and what they carry; the addresses are those of the emulated part.
Keys are made by "xor", whatever the source computes. The sources:

STEERING: tesla-epas-patcher.py of github.com/gregjhogan/tesla-pre-ap-epas-patch: 10 02, 27, the secondary bootloader of
several segments to RAM, 31 01 0301 with its address, 31 01 FF00 with address and size alone, 34, 36, 37, ECUReset 81
(no answer asked for), and in the application that runs then 10 03, 27, 31 01 DC03.

ENCRYPTED: the flashers of Honda's .rwd files that use panda's UDS client (the format: github.com/johnwaynehacker/rwd-xray):
29-bit normal-fixed addressing, 10 03, 27 with a seed of two bytes, 10 02 without a further key, 31 01 FF00 without
parameters, then the file's decryption key by 2E F101, 34 with data format 00, 36, 37, 31 01 FF01, 11 01.

QUIET_BUS: a host tool with configurable steps for control units of several Chinese makers: to all ECUs 10 03, 85 02, 28 03 03;
10 02, after which the ECU refuses everything for a while (7F); 27; a flash driver whose check (31 01 0202) is answered with its
CRC-32; 2E F15A, 31 01 FF00, 34, 36, 37, 31 01 0202, 31 01 FF01, 11 01; to all ECUs 10 03, 28 00 03, 85 01, 10 01; 14 FF FF FF.

TWO_LEVELS: the loader of SSAS, Simple Smart Automotive Software (its loader for its own AUTOSAR bootloader): 10 03, 85, 28,
level 1, 10 02, level 2, flash driver and its CRC, 22 F15B, 31 01 FF00, only then 2E F15A, 34, 36, 37, 31 01 0202 with the
CRC of all, 31 01 FF01, 31 01 FF02, 11 01.

FROM_EXTENDED: a flasher of a bootloader, decoded from a trace: 10 60, 10 03 and no 10 02, 27 03, 31 01 0204, 34 whose answer
has no length, blocks of 512 bytes, 37, 31 01 0205 without parameters, 11 01. UDS_FLASH.md of
github.com/ludwig-v/arduino-psa-diag has an answer 74 10 00: a length of 0.

BLOCKS: the same UDS_FLASH.md: 10 02, 27 01 and 27 02, 31 01 FF00 81 F05A, sent again until its answer ends in another byte
than 01; 34 81 110000, which is answered by 74 10 00; 36 with counter, address, data, its length and CRC-16/X-25 over all of that,
36 and counter included, each answered by 76, counter, 02; 37. The source has 02 for an erase that has ended.

TWO_IDS is of no one source: it joins what several makers' ECUs want.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators import application
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.benchfile.schema import load as load_bench
from proxyflash.enumerators.errors import BenchKey
from proxyflash.flashers.errors import Cancelled, PartRefused, ProfileWrong, Unsupported
from proxyflash.flashers.formats import load, save
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.uds.functional import FunctionalRequests
from proxyflash.testing.thinning import Sweep
from proxyflash.tests.flashers.makers import APP, Killed, Maker, Process, documented
from proxyflash.transports import clock
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import ProxyflashError
from proxyflash.transports.isotp.opening import IsoTpChannel

pytestmark = pytest.mark.simulated_time

BUS = """
[bus.chassis]
kind = "can"
emulated = true
bitrate = 500_000

[[component]]
name = "ecu"
bus = "chassis"
protocol = "uds"
profile = "maker"
"""
MEMORY = "memory = [{start = 0x1_0000, size = 0x7_0000, erase_unit = 0x1000, write_alignment = 8}]\n"
DRIVER = bytes(range(200)) * 2 + b"driver"

QUIET_BUS = documented(3)
BLOCKS, TWO_IDS = documented(5), documented(6)
STEERING = documented(4).replace("bootloader.bin", "bootloader.hex")

ENCRYPTED = f"""{BUS}
address = {{addressing = "normal-fixed", target = 0x30}}
[component.emulated]
secret = "1a2b"

[component.emulated.maker]
erase = []
keeps_key = true
writes = [0xF101]
rules = [
    {{request = "10 02", after = ["27 02"], nrc = 0x22}},
    {{request = "2E F1 01", after = ["31 01 FF 00"]}},
    {{request = "34", after = ["2E F1 01"]}},
    {{request = "31 01 FF 01", after = ["37"]}},
]

[profile.maker]
{MEMORY}
order = ["extended", "key", "programming", "erase", "decryption-key", "download", "check"]
security = {{key = "xor", secret = "1a2b"}}
routines = {{erase_parameters = [], check = 0xFF01, check_parameters = [], dependencies = "none"}}
steps = [{{name = "decryption-key", write = 0xF101, data = "01 02 03"}}]
"""

TWO_LEVELS = f"""{BUS}
address = {{request = 0x731}}
[component.emulated]
security_level = 3
secret = "a5a5a5a5"

[component.emulated.maker]
levels = {{"0x01" = "12345678"}}
ram = [0x2000_0000, 0x4000]
check = ["crc16"]
check_ram = ["crc16"]
routines = {{"0xFF02" = []}}
rules = [
    {{request = "10 02", after = ["27 02"], nrc = 0x33}},
    {{request = "31 01 FF 00", after = ["34 00 44 20", "31 01 02 02"]}},
    {{request = "2E F1 5A", after = ["31 01 FF 00"]}},
    {{request = "34 00 44 00", after = ["2E F1 5A"]}},
    {{request = "31 01 FF 01", after = ["31 01 02 02"], since = "37"}},
    {{request = "31 01 FF 02", after = ["31 01 FF 01"]}},
]

[profile.maker]
{MEMORY}
order = [
    "extended", "dtc-off", "communication-off", "level-1", "programming", "key", "driver", "read-fingerprint",
    "erase", "fingerprint", "download", "check", "dependencies", "integrity",
]
security = {{level = 0x03, key = "xor", secret = "a5a5a5a5"}}
fingerprint = {{data = "23 02 24 23 62 79 61 73 23"}}
routines = {{check_parameters = ["crc16"]}}
driver = {{file = "driver.bin", start = 0x2000_0000, size = 0x4000, check = 0x0202, check_parameters = ["crc16"]}}
steps = [
    {{name = "level-1", level = 0x01, secret = "12345678"}},
    {{name = "read-fingerprint", request = "22 F1 5B", optional = true}},
    {{name = "integrity", routine = 0xFF02}},
]
"""

FROM_EXTENDED = f"""{BUS}
address = {{request = 0x710}}
[component.emulated]
security_level = 3
secret = "11223344"
routine_erase = 0x0204
routine_check = 0x0205

[component.emulated.maker]
programming = 0x03
sessions = [0x60]
check = []
names_length = false
whole_after = "check"
rules = [
    {{request = "10 03", after = ["10 60"]}},
    {{request = "34", after = ["31 01 02 04"]}},
    {{request = "31 01 02 05", after = ["37"]}},
]

[profile.maker]
{MEMORY}
order = ["supplier", "programming", "key", "erase", "download", "check"]
sessions = {{programming = 0x03}}
security = {{level = 0x03, key = "xor", secret = "11223344"}}
routines = {{erase = 0x0204, check = 0x0205, check_parameters = []}}
steps = [{{name = "supplier", session = 0x60}}]
block_limit = 514
"""


def made(folder: Path, text: str) -> Maker:
    maker = Maker(folder, text)
    maker.put((0x10000, APP))
    parts = Segment(0x3FF7000, DRIVER), Segment(0x3FF8000, DRIVER[::-1])
    save(FirmwareImage(parts, "mem"), folder / "bootloader.hex")
    (folder / "driver.bin").write_bytes(DRIVER)
    return maker


PUBLISHED = {
    "steering": (STEERING, "exit", 57, 16),
    "encrypted": (ENCRYPTED, "reset", 51, 17),
    "quiet-bus": (QUIET_BUS, "session", 57, 18),
    "two-levels": (TWO_LEVELS, "reset", 63, 18),
    "from-extended": (FROM_EXTENDED, "session", 56, 23),
    "blocks": (BLOCKS, "reset", 65, 31),
    "two-ids": (TWO_IDS, "session", 70, 18),
}
"""Bench file; what ends a download of the ECU's that is not complete; of a second flash, its requests and its events."""
NOT_VERIFIED: dict[str, dict[str, Any]] = {"steering": {"verify": False}, "blocks": {"verify": False}}
"""What the flash is asked for: these ECUs have no check that is reported before their applications run."""
each = pytest.mark.parametrize("name", PUBLISHED)


@each
def test_it_is_flashed_and_flashed_again(name: str, tmp_path: Path) -> None:
    maker = made(tmp_path, PUBLISHED[name][0])
    with maker.opened() as component:
        for _ in range(2):
            result = component.flash(maker.image, **NOT_VERIFIED.get(name, {}))
            assert (result.version, result.booted) == ("1.5.0", True)
            assert maker.device.flash.read(0x10000, len(APP)) == APP


@each
def test_after_a_flash_it_is_verified_and_its_application_runs(name: str, tmp_path: Path) -> None:
    """An ECU without a check of its own says so."""
    maker = made(tmp_path, PUBLISHED[name][0])
    with maker.opened() as component:
        component.flash(maker.image, **NOT_VERIFIED.get(name, {}))
        with suppress(ProxyflashError), component.programmer() as programmer:
            programmer.verify(load(maker.image))
        assert maker.device.application_version == "1.5.0"


@pytest.mark.parametrize(
    ("text", "old", "new", "told"),
    [
        (STEERING, ', run = 0x0301', "", "requestSequenceError"),
        (STEERING, '"driver", "erase"', '"erase"', "the order has no 'driver'"),
        (STEERING, 'erase_parameters = ["address", "size"]', "merge_erase = true", "NRC 0x13"),
        (STEERING, '"extended", "key", "confirm"]', '"confirm"]', "requestSequenceError"),
        (STEERING, "reset = 0x81", "reset = 0x01", "requestSequenceError"),
        (ENCRYPTED, '"extended", "key", "programming"', '"extended", "programming", "key"', "conditionsNotCorrect"),
        (ENCRYPTED, '"erase", "decryption-key"', '"decryption-key", "erase"', "requestSequenceError"),
        (ENCRYPTED, "erase_parameters = [], ", "", "NRC 0x13"),
        (QUIET_BUS, "functional = true\n", "", "conditionsNotCorrect"),
        (QUIET_BUS, 'communication_off = "03 03"\n', "", "conditionsNotCorrect"),
        (QUIET_BUS, '"driver", "fingerprint"', '"fingerprint", "driver"', "requestSequenceError"),
        (QUIET_BUS, ', check_answer = ["crc32"]}', "}", "does not take the flash driver for whole"),
        (QUIET_BUS, 'check_answer = ["crc32"]}\nd', 'check_answer = ["crc16"]}\nd', "says that it does not hold the image"),
        (QUIET_BUS, "settle = 0.5", "settle = 0.2", "NRC 0x(22|7F)"),
        (TWO_LEVELS, 'level-1", level = 0x01, secret = "12345678', 'level-1", level = 0x01, secret = "1234', "invalidKey"),
        (TWO_LEVELS, '"erase", "fingerprint"', '"fingerprint", "erase"', "requestSequenceError"),
        (TWO_LEVELS, '"dependencies", "integrity"', '"integrity", "dependencies"', "requestSequenceError"),
        (TWO_LEVELS, 'routines = {check_parameters = ["crc16"]}\n', "", "NRC 0x13"),
        (FROM_EXTENDED, '"supplier", "programming"', '"programming", "supplier"', "requestSequenceError"),
        (FROM_EXTENDED, "routines = {erase = 0x0204, ", 'routines = {erase = "none", ', "requestSequenceError"),
        (FROM_EXTENDED, "block_limit = 514\n", "", "set it as block_limit"),
        (BLOCKS, 'poll_by = "start"', 'poll_by = "results"', "NRC 0x12"),
        (BLOCKS, "poll = true\n", "poll = false\n", "erasing .* failed .*01"),
        (BLOCKS, 'download_parameters = ["11 00 00"]\n', "", "NRC 0x(13|31)"),
        (BLOCKS, 'block = ["address", "data", "length", "crc16-x25"]\nblock_a', "block_a", "NRC 0x72"),
        (BLOCKS, '"length", "crc16-x25"]\nblock_a', '"length", "crc16"]\nblock_a', "NRC 0x72"),
        (BLOCKS, 'block_answer = "02"', 'block_answer = "03"', "answered the block at 0x00010000 with 02"),
        (BLOCKS, "block_limit = 255\n", "", "set it as block_limit"),
        (BLOCKS, "block_limit = 255\n", "block_limit = 8\n", "leaves no room for data"),
        (TWO_IDS, ", boot_request = 0x743", "", "no answer"),
        (TWO_IDS, 'transfer_exit_answer = ["crc32"]', 'transfer_exit_answer = ["crc16"]', "RequestTransferExit with"),
        (TWO_IDS, 'transfer_exit_answer = ["crc32"]\n', "", "no way to verify"),
        (TWO_IDS, "{YY}{MM}{DD}", "{DD}{MM}{YY}", "requestOutOfRange"),
        (TWO_IDS, "{YY}{MM}{DD}", "{YYYY}{MM}", "requestOutOfRange"),
    ],
)  # fmt: skip
def test_another_order_is_refused(text: str, old: str, new: str, told: str, tmp_path: Path) -> None:
    """So the ECU insists on it."""
    assert old in text
    with pytest.raises(ProxyflashError, match=told):
        made(tmp_path, text).flash(old, new, verify=text not in (STEERING, BLOCKS))


@pytest.mark.parametrize("how", ["killed", "stopped"])
@each
def test_after_an_interruption_the_same_command_succeeds(
    name: str, how: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of its requests, and at each event; what the order has after the reset is done then, too."""
    text, ending, requests, events = PUBLISHED[name]
    keys = NOT_VERIFIED.get(name, {})
    maker = made(tmp_path, text.replace("emulated]\n", f'emulated]\ndownload_ends = "{ending}"\n', 1))
    process = Process(monkeypatch)
    with maker.opened() as component:
        for _ in range(2):
            process.flash(component, maker.image, **keys)
        assert (process.requests, process.events) == (requests, events)
        places = range(1, (requests if how == "killed" else events) + 1)
        for place in (sweep := Sweep(request, places, 3, f"{how} at")):
            with sweep.at(place):
                with suppress(Killed, Cancelled):
                    process.flash(component, maker.image, **{how: place}, **keys)
                assert process.flash(component, maker.image, **keys).version == "1.5.0"
                assert maker.device.flash.read(0x10000, len(APP)) == APP


def test_after_a_cut_behind_the_reset_only_what_comes_after_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory is read back, the image is there already; the application that runs has not been asked yet."""
    text = STEERING.replace("emulated]\n", 'emulated]\npart = "acme-r88"\n', 1)
    text = text.replace(
        "0x1_0000, size = 0x7_0000, erase_unit = 0x1000", "0x2_0000, size = 0x8_0000, erase_unit = 0x2000"
    )
    maker = made(tmp_path, text.replace("reset = 0x81", 'reset = 0x81\nread = "memory"'))
    maker.put((0x20000, application.make("1.5.0", "radar", "Acme", 5003, start=0x20000)))
    process = Process(monkeypatch)
    written = []
    with maker.opened() as component:
        assert process.flash(component, maker.image).written_bytes
        for version, place in zip(
            ("1.6.0", "1.5.0") * 6, range(process.requests - 11, process.requests + 1), strict=True
        ):
            maker.put((0x20000, application.make(version, "radar", "Acme", 5003, start=0x20000)))
            with suppress(Killed):
                process.flash(component, maker.image, killed=place)
            result = process.flash(component, maker.image)
            assert result.version == version
            written.append(result.written_bytes)
    assert not any(written)


QUIET_STEP = TWO_LEVELS.replace('"dtc-off", ', '"dtc-quiet", ').replace(
    "steps = [\n", 'steps = [\n    {name = "dtc-quiet", request = "85 82"},\n'
)


def test_a_step_that_wants_no_answer_is_done_where_it_is_not_refused(tmp_path: Path) -> None:
    """suppressPosRspMsgIndicationBit, ISO 14229-1:2020, 8.2.2."""
    wanted = QUIET_STEP.replace("rules = [\n", 'rules = [\n    {request = "10 02", after = ["85 82"]},\n')
    assert made(tmp_path, wanted).flash().version == "1.5.0"


def test_and_its_refusal_is_reported(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"85 83.*subFunctionNotSupported"):
        made(tmp_path, QUIET_STEP).flash("85 82", "85 83")


def sent(monkeypatch: pytest.MonkeyPatch, way: type[FunctionalRequests | IsoTpChannel]) -> list[str]:
    """What goes this way from now on: requests, in hexadecimal."""
    found: list[str] = []
    send = way.send

    def noted(channel: Any, pdu: bytes, deadline: Deadline) -> None:
        found.append(pdu.hex())
        send(channel, pdu, deadline)

    monkeypatch.setattr(way, "send", noted)
    return found


def test_the_requests_to_all_ecus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the source, in its order; after its last step, which is for the one ECU, the default session once again."""
    found = sent(monkeypatch, FunctionalRequests)
    made(tmp_path, QUIET_BUS).flash()
    wanted = ["1003", "8502", "280303", "1003", "280003", "8501", "1001", "1001"]
    assert [pdu for pdu in found if pdu != "3e80"] == wanted


def test_a_step_to_all_ecus(tmp_path: Path) -> None:
    wanted = QUIET_BUS.replace('{request = "14", ', '{request = "14", functional = true, ')
    assert made(tmp_path, wanted).flash('"14 FF FF FF"', '"14 FF FF FF", functional = true').version == "1.5.0"
    with pytest.raises(PartRefused, match="requestSequenceError"):
        made(tmp_path, wanted).flash()


def test_a_reset_without_an_answer_that_is_lost_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send = IsoTpChannel.send
    lost: list[bytes] = []

    def losing(channel: IsoTpChannel, pdu: bytes, deadline: Deadline) -> None:
        if pdu == b"\x11\x81" and not lost:
            lost.append(pdu)
        else:
            send(channel, pdu, deadline)

    monkeypatch.setattr(IsoTpChannel, "send", losing)
    assert made(tmp_path, STEERING).flash(verify=False).version == "1.5.0"
    assert lost


def test_after_what_comes_after_the_reset_no_session_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = made(tmp_path, STEERING)
    with maker.opened() as component, component.programmer() as programmer:
        programmer.flash(programmer.plan(load(maker.image)), verify=False)
        found = sent(monkeypatch, IsoTpChannel)
        clock.sleep(10)
        assert found == []


@each
def test_each_key_and_value_that_is_wrong_is_named_by_a_check(name: str, tmp_path: Path) -> None:
    """Where it is, and what is meant; nothing is sent."""
    text = PUBLISHED[name][0]
    head, keys = text[: text.index("[profile.")], text[text.index("[profile.") :]
    path = tmp_path / "bench.toml"
    places = list(re.finditer(r'\b([a-z_]+) = ("[^"]*"|[0-9][0-9A-Fa-fx_.]*|true|false)?', keys))
    assert len(places) > 15
    for place in places:
        key, value = place.groups()
        path.write_text(f"{head}{keys[: place.start()]}{key}x{keys[place.start() + len(key) :]}")
        with pytest.raises(BenchKey, match=rf"unknown key profile\.\S*{key}x \(did you mean '{key}'\?\)"):
            load_bench(path)
        if value:
            wrong = '"1s"' if re.fullmatch(r"\d+\.\d+", value) else "7.5"
            path.write_text(f"{head}{keys[: place.start(2)]}{wrong}{keys[place.end() :]}")
            with pytest.raises(BenchKey, match=rf"profile\.\S*{key} = \S+: (should be|it takes) "):
                load_bench(path)


def test_an_address_without_an_id_for_all_ecus_is_found_by_a_check(tmp_path: Path) -> None:
    maker = made(tmp_path, QUIET_BUS)
    address = "request = 0x7A3, response = 0x7C3, functional = 0x7DF"
    with maker.opened(address, 'addressing = "extended", request = 0x7A3, response = 0x7C3, target = 5'):
        pass
    with Bench.open(tmp_path / "bench.toml") as bench, pytest.raises(ProfileWrong, match="gateway: functional = true"):
        bench.check()


def test_an_ecu_that_can_not_be_verified_is_not_erased_unless_asked_for(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"no way to verify.*nothing was erased or written.*--no-verify"):
        made(tmp_path, STEERING).flash()


@pytest.mark.parametrize(
    "changes",
    [
        [("{request = 0x731}", '{addressing = "extended", request = 0x731, target = 0x31}')],
        [("{request = 0x731}", "{request = 0x18DA31F1, response = 0x18DAF131, functional = 0x18DB33F1}")],
        [
            ("bitrate = 500_000", "bitrate = 500_000\ndata_bitrate = 2_000_000\nfd = true"),
            ("order = [", "iso_tp = {tx_dl = 64}\norder = ["),
        ],
        [("emulated]\n", "emulated]\nblock_size = 3\nst_min = 5\n")],
        [("order = [", "reset = 0x03\norder = [")],
        [
            ("order = [", "address_length = 3\nsize_length = 2\norder = ["),
            ("0x2000_0000", "0x20_0000"),
            ("34 00 44 20", "34 00 23 20"),
            ("34 00 44 00", "34 00 23 01"),
            ("size = 0x7_0000", "size = 0xF000"),
        ],
    ],
    ids=["extended", "29 bits", "CAN FD", "flow control", "soft reset", "addresses of 3 bytes, sizes of 2"],
)
def test_over_another_way(changes: list[tuple[str, str]], tmp_path: Path) -> None:
    text = TWO_LEVELS
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    assert made(tmp_path, text).flash().version == "1.5.0"
