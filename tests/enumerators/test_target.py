"""Targets: the bench file that a text on the command line stands for, and what is said of a wrong text."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.benchfile.schema import load
from proxyflash.enumerators.errors import BenchKey, BenchMissing, BenchSyntax, TargetWrong
from proxyflash.enumerators.target import LONGEST, Target, TargetFile, form
from proxyflash.transports import plugins
from proxyflash.transports.errors import ExitStatus
from proxyflash.transports.serial import host as serial_host

UART = "stm32-uart:/dev/ttyUSB0"
RADAR = "uds:socketcan:can0?request=0x7E0"


def tables(text: str, **settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The bus and the component that the target's bench file has, less what every one has."""
    raw = tomllib.loads(Target(text, **settings).file().text)
    ((_, bus),) = raw["bus"].items()
    (component,) = raw.get("component", [{}])
    return bus, {key: value for key, value in component.items() if key not in ("name", "bus", "protocol")}


SERIAL = {"kind": "serial", "url": "/dev/ttyUSB0"}
CAN = {"kind": "can", "interface": "socketcan", "channel": "can0"}
RIGHT = [
    (UART, SERIAL, {}),
    (f"{UART}?entry.reset=dtr&entry.boot0=rts", SERIAL, {"profile": {"entry": {"reset": "dtr", "boot0": "rts"}}}),
    # A key of the bus, one of the component, one of the profile: each goes where the schema has it.
    (f"{UART}?dtr=false&group=imus&answer=2.5", SERIAL | {"dtr": False}, {"group": "imus", "profile": {"answer": 2.5}}),
    (
        f"{UART}?bus.baudrate=115_200&profile.baudrate=57600",
        SERIAL | {"baudrate": 115200},
        {"profile": {"baudrate": 57600}},
    ),
    # `part` is a number or a text: what TOML takes for a number is one, unless it stands in quotes.
    (f"{UART}?part=0x413", SERIAL, {"profile": {"part": 0x413}}),
    (f'{UART}?part="0x413"', SERIAL, {"profile": {"part": "0x413"}}),
    (f"{UART}?part=STM32F40x", SERIAL, {"profile": {"part": "STM32F40x"}}),
    (f"{UART}?properties.mounted=left", SERIAL, {"properties": {"mounted": "left"}}),
    (
        f"{UART}?version.send=VER%3F%0D&version.match=FW ([0-9.]%2B)",
        SERIAL,
        {"version": {"send": "VER?\r", "match": "FW ([0-9.]+)"}},
    ),
    (
        f"{UART}?memory=[{{start=0x0800_0000,size=0x2_0000,erase_unit=0x800}}]",
        SERIAL,
        {"profile": {"memory": [{"start": 0x08000000, "size": 0x20000, "erase_unit": 0x800}]}},
    ),
    # What the library of a bus takes, only that library knows.
    (f"{UART}?bus.vendor.key=1", SERIAL | {"vendor": {"key": 1}}, {}),
    ("stm32-uart:socket://192.0.2.7:4000", {"kind": "serial", "url": "socket://192.0.2.7:4000"}, {}),
    ("stm32-uart:spy:///dev/ttyUSB0%3Ffile=x", {"kind": "serial", "url": "spy:///dev/ttyUSB0?file=x"}, {}),
    (RADAR, CAN, {"address": {"request": 0x7E0}}),
    (
        f"{RADAR}&security.secret=12345678",
        CAN,
        {"address": {"request": 0x7E0}, "profile": {"security": {"secret": "12345678"}}},
    ),
    (
        "uds:slcan:/dev/ttyACM0?bitrate=500000&addressing=normal-fixed&target=0x10",
        {"kind": "can", "interface": "slcan", "channel": "/dev/ttyACM0", "bitrate": 500000},
        {"address": {"addressing": "normal-fixed", "target": 0x10}},
    ),
    ("uds:kvaser:0?request=1", {"kind": "can", "interface": "kvaser", "channel": 0}, {"address": {"request": 1}}),
    ("dfu:0483:df11", {"kind": "usb"}, {"address": {"vendor_id": 0x0483, "product_id": 0xDF11}}),
    ("dfu:1-4.2?serial=0031", {"kind": "usb"}, {"address": {"port": "1-4.2", "serial": "0031"}}),
    ("smp-udp:192.0.2.17", {"kind": "udp", "host": "192.0.2.17"}, {}),
    ("smp-udp:[2001:db8::7]:1338", {"kind": "udp", "host": "2001:db8::7", "port": 1338}, {}),
    (
        "dfu:0483:df11?bus.emulated=true&component.emulated.part=stm32f405-dfu",
        {"kind": "usb", "emulated": True},
        {"address": {"vendor_id": 0x0483, "product_id": 0xDF11}, "emulated": {"part": "stm32f405-dfu"}},
    ),
]


@pytest.mark.parametrize(("text", "bus", "component"), RIGHT)
def test_a_target_is_a_bench_file_of_one_component(
    text: str, bus: dict[str, Any], component: dict[str, Any], tmp_path: Path
) -> None:
    assert tables(text) == (bus, component)
    file, kept = Target(text).file(), tmp_path / "bench.toml"
    # Its text, as a recording has it, is a bench file that says the same.
    kept.write_text(file.text)
    again = load(kept)
    assert {name: (entry.address, entry.profile.model_dump()) for name, entry in again.entries.items()} == {
        name: (entry.address, entry.profile.model_dump()) for name, entry in file.entries.items()
    }
    assert again.spec == file.spec


@pytest.mark.parametrize(
    ("text", "bus"),
    [
        ("socketcan:can0?probe=true", CAN | {"probe": True}),
        ("can:socketcan:can0", CAN),
        ("/dev/ttyUSB0", SERIAL),
        ("serial:/dev/ttyUSB0", SERIAL),
        ('/dev/ttyUSB0?ask=[{protocol="smp"}]', SERIAL | {"ask": [{"protocol": "smp"}]}),
        ("usb", {"kind": "usb"}),
    ],
)
def test_a_scan_takes_a_bus_too(text: str, bus: dict[str, Any]) -> None:
    assert tables(text, whole_bus=True) == (bus, {})


FILLED = {
    "HOST:PORT": "192.0.2.17:1337",
    "VENDOR:PRODUCT": "0483:df11",
    "PORT": "ttyUSB0",
    "CHANNEL": "can0",
    "=REPLY": "=0x7E8",
    "=ID": "=0x7E0",
    "=NODE": "=5",
    "=UUID": "=0a1b2c3d4e5f",
}
"""What stands for the words in capitals."""

WRONG = [
    (
        "/dev/ttyUSB0",
        "protocol; these fit: avr109, katapult-uart, mboot-uart, smp, stk500v1, stk500v2, stm32-uart, xcp-uart, xmodem, ymodem",
        "The form: PROTOCOL:/dev/ttyUSB0",
    ),
    (
        "socketcan:can1?request=0x7E4",
        "these fit: canopen, katapult-can, mboot-can, stm32-can, stm32-fdcan, uds, xcp-can",
        "The form: 'PROTOCOL:socketcan:can1?request=0x7E4'",
    ),
    (
        "socketcan:can1",
        "these fit: canopen, katapult-can, mboot-can, stm32-can, stm32-fdcan, uds, xcp-can",
        "The form: PROTOCOL:socketcan:can1",
    ),
    ("stm32uart:/dev/ttyUSB0", "'stm32uart' is not a protocol", f"Write: {UART}"),
    ("katapult:/dev/ttyUSB0", "'katapult' is not a protocol", "Write: katapult-uart:/dev/ttyUSB0"),
    ("canboot:/dev/ttyUSB0", "'canboot' is not a protocol", "Write: katapult-uart:/dev/ttyUSB0"),
    ("canboot:socketcan:can0?uuid=1", "is not a protocol", "Write: 'katapult-can:socketcan:can0?uuid=1'"),
    ("canopennode:socketcan:can0", "'canopennode' is not a protocol", "Write: canopen:socketcan:can0"),
    ("openblt:/dev/ttyUSB0", "'openblt' is not a protocol", "Write: xcp-uart:/dev/ttyUSB0"),
    ("blhost:/dev/ttyUSB0", "'blhost' is not a protocol", "Write: mboot-uart:/dev/ttyUSB0"),
    ("stm32:socketcan:can0", "'stm32' is not a protocol", "Write: stm32-can:socketcan:can0"),
    ("avrisp:/dev/ttyUSB0", "'avrisp' is not a protocol", "Write: stk500v1:/dev/ttyUSB0"),
    ("Arduino:/dev/ttyUSB0?group=a", "'Arduino' is not a protocol", "Write: 'stk500v1:/dev/ttyUSB0?group=a'"),
    ("stk500:/dev/ttyUSB0", "is not a protocol", "Write: stk500v1:/dev/ttyUSB0 or stk500v2:/dev/ttyUSB0"),
    ("wiring:/dev/ttyACM0", "'wiring' is not a protocol", "Write: stk500v2:/dev/ttyACM0"),
    ("butterfly:/dev/ttyACM0", "'butterfly' is not a protocol", "Write: avr109:/dev/ttyACM0"),
    ("stm32:/dev/ttyUSB0", "'stm32' is not a protocol", "Write: stm32-uart:/dev/ttyUSB0"),
    ("stm32:0483:df11", "'stm32' is not a protocol", "Write: dfu:0483:df11"),
    ("dfuse:0483:df11", "'dfuse' is not a protocol", "Write: dfu:0483:df11"),
    ("mcumgr:/dev/ttyACM0", "'mcumgr' is not a protocol", "Write: smp:/dev/ttyACM0"),
    ("mcumgr:192.0.2.7:1337", "'mcumgr' is not a protocol", "Write: smp-udp:192.0.2.7:1337"),
    ("katapult:socketcan:can0?uuid=1", "'katapult' is not a protocol", "Write: 'katapult-can:socketcan:can0?uuid=1'"),
    ("stk500:/dev/ttyUSB0", "not a protocol", "Write: stk500v1:/dev/ttyUSB0 or stk500v2:/dev/ttyUSB0"),
    (f"{UART}:57600", "settings stand after a '?'", f"Write: '{UART}?bus.baudrate=57600'"),
    (f"{UART},57600,8E1", "settings stand after a '?'", f"Write: '{UART}?bus.baudrate=57600'"),
    (f"{UART}@57600?group=a", "settings stand after a '?'", f"Write: '{UART}?bus.baudrate=57600&group=a'"),
    (f"{UART}&entry.reset=dtr", "no '?' before it", f"Write: '{UART}?entry.reset=dtr'"),
    (f"{UART}&group=a&entry.boot0=rts", "no '?' before it", f"Write: '{UART}?group=a&entry.boot0=rts'"),
    (f"{UART},baudrate=57600,parity=E", "no '?' before it", f"Write: '{UART}?baudrate=57600&parity=E'"),
    (f"{UART} bus.baudrate=57600", "no '?' before it", f"Write: '{UART}?bus.baudrate=57600'"),
    (f"{UART}bus.baudrate=57600", "no '?' before it", f"Write: '{UART}?bus.baudrate=57600'"),
    (f"{UART}/bus.baudrate=57600&group=a", "no '?' before it", f"Write: '{UART}?bus.baudrate=57600&group=a'"),
    ("uds:socketcan:can1,request=0x7E4", "no '?' before it", "Write: 'uds:socketcan:can1?request=0x7E4'"),
    ("uds:socketcan:can1&request=0x7E4", "no '?' before it", "Write: 'uds:socketcan:can1?request=0x7E4'"),
    ("dfu:0483:df11&serial=1", "no '?' before it", "Write: 'dfu:0483:df11?serial=1'"),
    ("stm32-uart:", "there is no place", "The form: stm32-uart:/dev/PORT"),
    ("stm32-uart:ttyACM0", "'ttyACM0' is not a place on a bus of kind serial", "The form: stm32-uart:/dev/PORT"),
    ("stm32-uart:socketcan:can0", "not a place on a bus of kind serial", "The form: stm32-uart:/dev/PORT"),
    ("uds:can1?request=0x7E4", "'can1' is not a place on a bus of kind can", "'uds:socketcan:CHANNEL?request=ID'"),
    ("uds:can1?request=0x7E4", "'can1' is not a place", "Write: 'uds:socketcan:can1?request=0x7E4'. "),
    ("uds:sockcan:can1?request=0x7E4", "'sockcan:can1' is not a place", "'uds:socketcan:CHANNEL?request=ID'"),
    ("uds:socketcan:can1", "request is missing", "The form: 'uds:socketcan:can1?request=ID'"),
    ("uds:socketcan:can1?group=a", "request is missing", "The form: 'uds:socketcan:can1?group=a&request=ID'"),
    ("uds:proxyflash:unix:/x/can.sock", "request is missing", "'uds:proxyflash:unix:/x/can.sock?request=ID'"),
    ("dfu:483:df11", "'483:df11' is not a place on a bus of kind usb", "The form: dfu:VENDOR:PRODUCT"),
    ("dfu:483:0xdf11?slot=a", "is not a place on a bus of kind usb", "Write: 'dfu:0483:df11?slot=a'. The form: "),
    ("stm32-uart:ttyACM0?group=a", "not a place", "Write: 'stm32-uart:/dev/ttyACM0?group=a'. The form: "),
    ("katapult-can:can1?uuid=1", "not a place", "Write: 'katapult-can:socketcan:can1?uuid=1'. The form: "),
    (f"{UART}?", "ends with '?'", "Write PROTOCOL:WHERE"),
    (f"{UART}?bus.baudrate=115k", "bus.baudrate = '115k': should be a valid integer", "?bus.baudrate=VALUE"),
    (f"{UART}?bus.baudrate=0", "bus.baudrate = '0': should be greater", "?bus.baudrate=VALUE"),
    (f"{UART}?bus.parity=8", "bus.parity = '8': should be 'N', 'E'", "?bus.parity=VALUE"),
    (f"{UART}?stopbits=3", "bus.stopbits = '3': should be 1, 1.5 or 2", "?bus.stopbits=VALUE"),
    (f"{RADAR}&bitrate=500k", "bus.bitrate = '500k': should be a valid integer", "bus.bitrate=VALUE"),
    (f"{UART}?entry", "a setting 'entry', which is not KEY=VALUE", "Write PROTOCOL:WHERE"),
    (f"{UART}?group=a&&answer=1", "a setting ''", "Write PROTOCOL:WHERE"),
    (f"{UART}?memory=[1979-05-27]", "profile.memory = '[1979-05-27]'", "proxyflash help bench-file"),
    (f"{RADAR}&timings={{erase=07:32:00}}", "profile.timings = '{erase=07:32:00}'", "proxyflash help bench-file"),
    (f"uds:socketcan:can0?request=0x{'F' * 4000}", "address.request = '0xFFF", "proxyflash help bench-file"),
    (f"{UART}?boot0=rts", "unknown key 'boot0'", f"Write: '{UART}?entry.boot0=rts'"),
    # `boot` is a key of the component, and takes no line's name.
    (f"{UART}?entry.reset=dtr&entry.boot=rts", "unknown key", f"Write: '{UART}?entry.reset=dtr&entry.boot0=rts'"),
    (f"{UART}?boot0=yellow", "unknown key 'boot0'", f"The form: '{UART}?entry.boot0=VALUE'"),
    (f"{UART}?baud=115200", "unknown key 'baud'", f"Write: '{UART}?bus.baudrate=115200'"),
    ("uds:socketcan:can1?request=7E0", "a valid integer; hexadecimal numbers begin with 0x: 0x7E0", ""),
    (f"{UART}?group=a&entry.rset=dtr", "unknown key 'entry.rset'", f"Write: '{UART}?group=a&entry.reset=dtr'"),
    (
        f"{UART}?baudrate=115200",
        "'baudrate' is a key of bus and of profile",
        f"Write: '{UART}?bus.baudrate=115200' or '{UART}?profile.baudrate=115200'",
    ),
    (f"{UART}?group=a&component.group=b", "'component.group' and 'group' set the same", ""),
    (f"{UART}?group=a&group=b", "'group' is set twice", ""),
    (f"{UART}?entry.reset=dtr&entry={{}}", "'entry' and 'entry.reset' set the same", ""),
    (f"{UART}?entry.boot0=foo", "profile.entry.boot0 = 'foo': should be 'dtr', 'rts' or 'none'", ""),
    (f"{UART}?answer=fast", "profile.answer = 'fast': should be a valid number", ""),
    (f"{UART}?answer=100", "profile.answer = 100: should be less than or equal to 60", ""),
    ("uds:socketcan:can0?request=0xFFFFFFFF", "address.request = 4294967295: should be less than", ""),
    (f"{UART}?answer=1e999", "profile.answer", ""),
    (f"{UART}?part={'9' * 30}", "", ""),
    (f"{UART}?group.x=1", "'group' has no keys in it", ""),
    (f"{UART}?url=/dev/ttyUSB1", "unknown key 'url'", ""),
    (f"{UART}?name=imu", "unknown key 'name'", ""),
    (f"{UART}?profile=acme.toml", "'profile' is a table", f"The form: '{UART}?profile.KEY=VALUE'"),
    (f"{UART}?group=%zz", "'%' stands before two hexadecimal digits", ""),
    (f"{UART}?group=%ff", "no UTF-8", ""),
    (f"{UART}?memory={'[' * 3000}", "memory", ""),
    (f"{UART}?group={'a' * LONGEST}", "more than 4,096 characters", ""),
    ("stm32-uart:/dev/\udcff", "no UTF-8", ""),
    (f"{UART}?{'a.' * 1500}a=1", "unknown key", ""),
]


@pytest.mark.parametrize(("text", "said", "right"), WRONG)
def test_a_wrong_target_says_what_is_wrong_and_the_right_form(text: str, said: str, right: str) -> None:
    with pytest.raises(TargetWrong) as caught:
        Target(text).file()
    assert said in str(caught.value)
    assert right in str(caught.value)
    assert caught.value.cause.startswith((repr(text), repr(text[:201])[:150]))
    assert (caught.value.code, caught.value.exit_status) == ("E-TARGET-WRONG", ExitStatus.USAGE)
    assert caught.value.remedy
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2500


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("ttyUSB0", "The form: can:socketcan:CHANNEL or serial:/dev/PORT or udp:HOST:PORT or usb"),
        ("ttyUSB0?baudrate=57600", "Write: '/dev/ttyUSB0?baudrate=57600'. The form: "),
        ("vcan0", "Write: socketcan:vcan0. The form: "),
        ("can:can0?bitrate=500000", "Write: 'socketcan:can0?bitrate=500000'. The form: "),
        # One device is not a bus.
        ("0x0483:0xdf11", "names no bus. The form: "),
        ("0483:1234?group=a", "Write: 'udp:0483:1234?group=a'. The form: usb"),
        ("can:can0", "The form: can:socketcan:CHANNEL"),
        ("usb:0483:df11", "The form: usb"),
        ("stm32uart:/dev/ttyUSB0", f"Write: {UART}"),
        ("/dev/ttyUSB7:57600", "Write: '/dev/ttyUSB7?bus.baudrate=57600'"),
    ],
)
def test_a_wrong_bus_says_the_right_form(text: str, right: str) -> None:
    with pytest.raises(TargetWrong) as caught:
        Target(text, whole_bus=True).file()
    assert right in str(caught.value)


@pytest.mark.parametrize("protocol", plugins.names(plugins.FLASHERS))
def test_the_form_is_right_and_names_no_part(protocol: str) -> None:
    said = form(protocol)
    filled = said
    for word, meant in FILLED.items():
        filled = filled.replace(word, meant)
    assert filled != said
    assert Target(filled).file().entries


def test_a_profile_is_a_file_over_which_the_settings_go(tmp_path: Path) -> None:
    profile = tmp_path / "acme.toml"
    profile.write_text('part = "R77"\n[security]\nkey = "xor"\nsecret = "5a5a"\nlevel = 3\n')
    _, component = tables(f"{RADAR}&security.level=5", profile=profile)
    assert component["profile"] == {"part": "R77", "security": {"key": "xor", "secret": "5a5a", "level": 5}}
    # Its paths start at its folder.
    assert Target(RADAR, profile).file().folder == tmp_path
    profile.write_text('part = "R77"\nsecurty = {}\n')
    with pytest.raises(BenchKey, match=r"acme\.toml:2: unknown key securty"):
        Target(RADAR, profile).file()
    profile.write_text("part = \n")
    with pytest.raises(BenchSyntax, match=r"acme\.toml:1"):
        Target(RADAR, profile).file()
    with pytest.raises(BenchMissing, match="keys of the component's profile"):
        Target(RADAR, tmp_path / "gone.toml").file()
    with pytest.raises(TargetWrong, match="a profile is of a component"):
        Target("usb", profile, whole_bus=True).file()


@pytest.mark.parametrize(
    "text",
    [
        f"{UART}?bus.url=/dev/ttyUSB1",
        f"{UART}?bus.kind=can",
        "uds:socketcan:can0?request=0x7E0&bus.channel=can1",
        "smp-udp:192.0.2.17:1337?bus.port=1338",
        "dfu:0483:df11?product_id=0xdf12",
        "dfu:1-4?address.port=1-5",
    ],
)
def test_the_place_is_not_said_twice(text: str) -> None:
    with pytest.raises(TargetWrong, match="is said by what stands before"):
        Target(text).file()


def state_of(text: str, state: Path) -> Path:
    return Target(text).file().state_folder(state)


def test_one_part_has_one_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = state_of(RADAR, tmp_path)
    # However the address is written, whatever is set beside it, and wherever it is run.
    for same in (
        "request=2016",
        "request=0x7E0&response=0x7E8",
        "request=0x7E0&bitrate=500000&group=a",
        "address.request=0x7E0",
    ):
        assert state_of(f"uds:socketcan:can0?{same}", tmp_path) == here
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert state_of(RADAR, tmp_path) == here
    others = ("uds:socketcan:can0?request=0x7E1", "uds:socketcan:can1?request=0x7E0", f"{RADAR}&bus.emulated=true")
    assert len({here, *(state_of(other, tmp_path) for other in others)}) == 4
    # A relative path is where it is.
    there = state_of("stm32-uart:./pty", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert state_of("stm32-uart:./other/pty", tmp_path) == there
    assert here.parent == tmp_path / "targets"
    for one, other in (
        ("dfu:0483:df11", "dfu:0483:DF11"),
        ("smp-udp:192.0.2.17", "smp-udp:192.0.2.17:1337"),
        ("smp-udp:192.0.2.17:1338", "smp-udp:192.0.2.17?port=1338"),
        ("smp-udp:Gateway", "smp-udp:gateway"),
        ("smp-udp:[2001:db8::7]", "smp-udp:[2001:0DB8:0::7]"),
    ):
        assert state_of(one, tmp_path) == state_of(other, tmp_path)
    assert state_of("smp-udp:192.0.2.17", tmp_path) != state_of("smp-udp:192.0.2.17?port=1338", tmp_path)


def test_a_port_has_one_state_folder_by_all_of_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_id = tmp_path / "by-id"
    by_id.mkdir()
    for number in (0, 1):
        (tmp_path / f"ttyUSB{number}").touch()
        (by_id / f"usb-FTDI_{number}").symlink_to(f"../ttyUSB{number}")
    (tmp_path / "by-path").symlink_to("by-id/usb-FTDI_0")
    monkeypatch.setattr(serial_host, "BY_ID", by_id)
    names = ("by-id/usb-FTDI_0", "ttyUSB0", "by-path")
    assert len({state_of(f"stm32-uart:{tmp_path}/{name}", tmp_path) for name in names}) == 1
    assert len({state_of(f"stm32-uart:{tmp_path}/{name}", tmp_path) for name in (*names, "ttyUSB1")}) == 2
    # It goes with the adapter, whatever number that gets when it is plugged in again.
    before = state_of(f"stm32-uart:{tmp_path}/ttyUSB0", tmp_path)
    (by_id / "usb-FTDI_0").unlink()
    (by_id / "usb-FTDI_0").symlink_to("../ttyUSB1")
    (by_id / "usb-FTDI_1").unlink()
    assert state_of(f"stm32-uart:{tmp_path}/ttyUSB1", tmp_path) == before


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (UART, "stm32-uart-ttyUSB0"),
        (RADAR, "uds-can0-0x7E0-0x7E8"),
        ("dfu:0483:DF11", "dfu-0483-df11"),
        ("smp-udp:192.0.2.17", "smp-udp-192-0-2-17"),
        (f"stm32-uart:/dev/{'a' * 100}", f"stm32-uart-{'a' * 53}"),
    ],
)
def test_its_component_has_a_short_name(text: str, name: str, tmp_path: Path) -> None:
    with Bench.open(Target(text), state=tmp_path) as bench:
        assert isinstance(bench.file, TargetFile)
        assert (bench.only.name, bench.file.names) == (name, (name,))
