"""`bench check`, `bench init`, `bench schema`, as their user meets them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators.serial.pty import serve_pty
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.benchfile.schema import load
from proxyflash.tests.peers import environment
from proxyflash.tools.bench_schema import bench_schema
from proxyflash.tools.commands import run
from proxyflash.transports.can import host as can_host
from proxyflash.transports.usb import host as usb_host
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "three_sensors"
Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Runs a command line in an empty folder: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a host that has these: entries of sysfs as Linux has them, and serial ports as pyserial lists them."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path.parent))
    monkeypatch.setattr(can_host, "NET", folder / "net")
    monkeypatch.setattr(usb_host, "DEVICES", folder / "usb")
    monkeypatch.setattr(list_ports, "comports", list)

    def make(*, net: dict[str, str] | None = None, usb: bool = False, ports: list[ListPortInfo] | None = None) -> None:
        for name, kind in (net or {}).items():
            (folder / "net" / name).mkdir(parents=True)
            (folder / "net" / name / "type").write_text(f"{kind}\n")
        (folder / "net").mkdir(exist_ok=True)
        (folder / "net" / "bonding_masters").write_text("")  # A file among the folders, as some kernels have it.
        (folder / "usb").mkdir()
        if usb:
            (folder / "usb" / "usb1").mkdir()
        monkeypatch.setattr(list_ports, "comports", lambda: ports or [])

    return make


@pytest.mark.parametrize(
    ("lines", "code", "told"),
    [
        ('revoked = ["a "]', "E-BENCH-KEY", "updates.revoked = 'a ': no name of a key"),
        ('revokd = ["a"]', "E-BENCH-KEY", "unknown key updates.revokd"),
        ('floor = {motrs = "1.2"}', "E-BENCH-NAME", "there is no component and no group 'motrs'"),
        ('unsigned = "refuse"', "E-BENCH-KEY", 'unsigned = "refuse" needs roots'),
        ('roots = ["gone.jwk"]', "E-KEY-FILE", "gone.jwk"),
        ('report_key = "gone.pem"', "E-KEY-FILE", "gone.pem"),
    ],
)
def test_check_looks_at_the_policy_of_updates(say: Say, tmp_path: Path, lines: str, code: str, told: str) -> None:
    (tmp_path / "bench.toml").write_text(f"[updates]\n{lines}\n")
    status, out, err = say("bench", "check")
    assert (status != 0, out) == (True, "")
    assert err.startswith(f"{code} ")
    assert told in err


def adapter(device: str, product: str | None, serial: str | None = None) -> ListPortInfo:
    port = ListPortInfo(device)
    port.vid, port.pid, port.product, port.serial_number = 0x0403, 0x6001, product, serial
    return port


# check


def test_a_file_that_holds(say: Say) -> None:
    file = EXAMPLE / "bench.toml"
    status, out, err = say("--bench", file, "bench", "check")
    assert (status, out, err) == (0, f"{file}  OK  3 buses, 3 components\n", "")
    status, out, err = say("--bench", file, "--json", "bench", "check")
    assert (status, err) == (0, "")
    assert json.loads(out) == {
        "schema": 1,
        "file": str(file),
        "buses": ["powertrain", "imu-uart", "usb"],
        "components": ["front-radar", "imu", "camera"],
    }
    status, out, _ = say("bench", "check", "--jsonl", "--bench", file)
    assert status == 0
    assert [json.loads(line)["kind"] for line in out.splitlines()] == ["result"]


def test_the_file_of_this_folder(say: Say, tmp_path: Path) -> None:
    (tmp_path / "bench.toml").write_text('[bus.a]\nkind = "usb"\n')
    assert say("bench", "check")[:2] == (0, f"{tmp_path}/bench.toml  OK  1 bus, 0 components\n")


WRONG = {
    "E-BENCH-SYNTAX": ("[bus.a\n", 1),
    "E-BENCH-KEY": ('[bus.a]\nkind = "usb"\nprobe = "yes"\n', 3),
    "E-BENCH-NAME": ('[[component]]\nname = "a"\nbus = "b"\nprotocol = "dfu"\n', 3),
    "E-PLUGIN-UNKNOWN": ('[bus.b]\nkind = "usb"\n[[component]]\nname = "a"\nbus = "b"\nprotocol = "ufd"\n', 6),
}


@pytest.mark.parametrize("code", WRONG)
def test_what_is_wrong_is_said_with_its_place(code: str, say: Say, tmp_path: Path) -> None:
    text, line = WRONG[code]
    (tmp_path / "desk.toml").write_text(text)
    status, out, err = say("--bench", "desk.toml", "bench", "check")
    assert (status, out) == (12, "")
    assert err.startswith(f"{code} desk.toml:{line}: ")
    assert len(err.splitlines()) == 1
    status, out, err = say("--bench", "desk.toml", "--json", "bench", "check")
    assert (status, err) == (12, "")
    error = json.loads(out)["error"]
    assert (error["code"], error["exit_status"]) == (code, 12)
    assert error["cause"].startswith(f"desk.toml:{line}: ")
    assert error["remedy"]


def test_a_wrong_key_of_an_emulated_part_is_found_without_opening_anything(say: Say, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "firmware", tmp_path / "firmware")
    text = (EXAMPLE / "bench.toml").read_text().replace('part = "acme-r77", serial', 'part = "acme-r77", cereal')
    (tmp_path / "bench.toml").write_text(text)
    status, _, err = say("bench", "check")
    assert status == 12
    assert "component.emulated.cereal: unknown key (did you mean 'serial'?); there are: " in err
    assert not (tmp_path / "state").exists()


KEYS = {
    "no interface": ('kind = "can"\nchannel = "can0"', "E-CAN-SETTINGS", "names no interface"),
    "no channel": ('kind = "can"\ninterface = "socketcan"', "E-CAN-SETTINGS", "names no channel"),
    "an interface that there isn't": (
        'kind = "can"\ninterface = "sockcan"  #!',
        "E-CAN-INTERFACE",
        "no interface 'sockcan'",
    ),
    "an unknown key of CAN": (
        'kind = "can"\ninterface = "slcan"\nchannel = "/dev/ttyACM0"\nbitrat = 1  #!',
        "E-CAN-SETTINGS",
        "no key 'bitrat'",
    ),
    "a bit rate in quotes": (
        'kind = "can"\ninterface = "slcan"\nchannel = "/dev/ttyACM0"\nbitrate = "500000"  #!',
        "E-CAN-SETTINGS",
        "not a number of bit/s",
    ),
    "no url": ('kind = "serial"\nbaudrate = 115_200', "E-SERIAL-SETTINGS", "needs a url"),
    "a key of python": ('kind = "serial"\nurl = "/dev/ttyUSB0"\nbaud = 1  #!', "E-SERIAL-SETTINGS", "no key 'baud'"),
    "bits": ('kind = "serial"\nurl = "/dev/ttyUSB0"\nbytesize = 9', "E-SERIAL-SETTINGS", "can't be opened so"),
    "an unknown scheme": ('kind = "serial"\nurl = "sockets://a:1"', "E-SERIAL-SETTINGS", "can't be opened so"),
    "no host": ('kind = "udp"\nport = 1337', "E-UDP-SETTINGS", "needs a host"),
    "an unknown key of UDP": ('kind = "udp"\nhost = "a"\nport = 1\nfoo = 1  #!', "E-UDP-SETTINGS", "no key 'foo'"),
    "a key of USB": ('kind = "usb"\nfoo = 1  #!', "E-USB-SETTINGS", "no key 'foo'"),
}
"""`#!`: in the line that is named, where it is not the table's."""


@pytest.mark.parametrize("case", KEYS)
def test_what_opening_a_bus_would_refuse_is_found_without_opening_it(case: str, say: Say, tmp_path: Path) -> None:
    keys, code, told = KEYS[case]
    (tmp_path / "bench.toml").write_text(f"\n[bus.b]\n{keys}\n")
    status, out, err = say("bench", "check")
    assert (status, out) == (12, "")
    line = next((number for number, key in enumerate(keys.splitlines(), 3) if "#!" in key), 2)
    assert err.startswith(f"{code} {tmp_path}/bench.toml:{line}: ")
    assert told in err


UART = '[bus.b]\nkind = "serial"\nurl = "/dev/null"\nbaudrate = 9600\n[[component]]\nname = "a"\nbus = "b"\n'
ECU = '[bus.b]\nkind = "can"\ninterface = "virtual"\n[[component]]\nname = "a"\nbus = "b"\nprotocol = "uds"\n'
WRONG_KEYS = {
    "of a serial line": ('[bus.b]\nkind = "serial"\nurl = "/dev/null"\nBaudrat = 9600  #!', "did you mean 'baudrate'?"),
    "of a profile": (f'{UART}protocol = "stm32-uart"\n[component.profile]\nmemroy = []  #!', "did you mean 'memory'?"),
    "of a table in a profile": (
        f'{UART}protocol = "stm32-uart"\nprofile = {{entry = {{rset = "dtr"}}}}  #!', "did you mean 'reset'?",
    ),
    "of a profile, with a union": (f"{ECU}address = {{request = 1}}\nprofile = {{isotp = {{}}}}  #!", "did you mean 'iso_tp'?"),
    "of an address": (f"{ECU}address = {{reqest = 1}}  #!", "did you mean 'request'?"),
    "beside the profile": (f'{UART}protocol = "stm32-uart"\nentry = {{}}  #!', "did you mean 'profile.entry'?"),
    "of a table that is not spelt out": ('\n[buss.b]  #!\nkind = "can"', "did you mean 'bus'?"),
    "a list of buses": ('\n[[bus]]  #!\nkind = "can"', "write [bus.NAME] for each bus"),
    "one component": ('\n[component.a]  #!\nbus = "b"', "[[component]]"),
    "one id": (f"{ECU}address = {{request = 0x7E0, response = 0x7E0}}  #!", "one id, 0x7E0"),
}  # fmt: skip
"""`#!`: in the line that is named."""


@pytest.mark.parametrize("case", WRONG_KEYS)
def test_a_misspelt_key_is_named_with_its_line(case: str, say: Say, tmp_path: Path) -> None:
    text, told = WRONG_KEYS[case]
    (tmp_path / "bench.toml").write_text(text)
    status, _, err = say("bench", "check")
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "#!" in line)
    assert (status, f"bench.toml:{line}: " in err, told in err) == (12, True, True), err


LINE = '[bus.b]\nkind = "serial"\nurl = "/dev/null"\n'
PART = '[[component]]\nname = "a"\nbus = "b"\nprotocol = '
PINS = '{reset = "dtr", boot0 = "rts"}'
RELEASED = '{reset = "dtr", reset_asserted = false}'
SURPRISES = {
    "a bit rate left out": (LINE, ["bus b: no baudrate is given: 9,600 bit/s is the serial library's default"]),
    "a port that is not there": (
        '[bus.b]\nkind = "serial"\nurl = "/dev/serial/by-id/gone"\nbaudrate = 9600',
        ["bus b: there is no port /dev/serial/by-id/gone now"],
    ),
    "a rate in kbit/s": (LINE + "baudrate = 115", ["bus b: baudrate = 115 is in bit/s"]),
    "a CAN bus's rate in kbit/s": (
        '[bus.b]\nkind = "can"\ninterface = "virtual"\nbitrate = 500',
        ["bus b: bitrate = 500 is in bit/s"],
    ),
    "a part that there isn't": (
        f'{LINE}baudrate = 9600\n{PART}"stm32-uart"\nprofile = {{part = "STM32F999"}}',
        ["component a: profile.part = 'STM32F999': no known part"],
    ),
    "a part by a piece of its name": (f'{LINE}baudrate = 9600\n{PART}"stm32-uart"\nprofile = {{part = "f40x"}}', []),
    "an image that is not there": (
        f'{LINE}baudrate = 9600\n{PART}"stm32-uart"\nimages = [{{file = "gone.hex"}}]',
        ["component a: there is no image gone.hex now"],
    ),
    "an image with a name that no file has": (
        f'{LINE}baudrate = 9600\n{PART}"stm32-uart"\nimages = [{{file = "{"x" * 300}"}}]',
        ["component a: there is no image xxx"],
    ),
    "an idle probe": (
        LINE + "baudrate = 9600\nprobe = true",
        ["bus b: probe = true does nothing on a line without a component"],
    ),
    "lines that hold the part": (
        f'{LINE}baudrate = 9600\n{PART}"stm32-uart"\nprofile = {{entry = {PINS}}}',
        ["component a: DTR is asserted", "component a: RTS is asserted"],
    ),
    "lines as they should be": (
        f'{LINE}baudrate = 9600\ndtr = false\nrts = false\n{PART}"stm32-uart"\nprofile = {{entry = {PINS}}}',
        [],
    ),
    "a line that is turned round": (
        f'{LINE}baudrate = 9600\ndtr = false\n{PART}"xmodem"\nprofile = {{loader = "gecko", entry = {RELEASED}}}',
        ["component a: DTR is released from opening the port on, which by the profile's entry would hold"],
    ),
    "an Arduino": (f'{LINE}baudrate = 9600\n{PART}"stk500v1"', ["component a: opening the port leaves DTR asserted"]),
    "no entry": (f'{LINE}baudrate = 9600\n{PART}"stm32-uart"', []),
    "an emulated part without firmware": (
        '[bus.b]\nkind = "serial"\nemulated = true\n' + PART + '"stm32-uart"\nemulated = {part = "stm32f405xg"}',
        ["component a: its emulated part has no firmware"],
    ),
    "an adapter's bit rate": (
        '[bus.b]\nkind = "can"\ninterface = "slcan"\nchannel = "/dev/ttyACM0"',
        ["bus b: no bitrate is given"],
    ),
    "an FD bus": (
        (
            '[bus.b]\nkind = "can"\ninterface = "virtual"\nchannel = "c"\nfd = true\n'
            '[[component]]\nname = "a"\nbus = "b"\nprotocol = "uds"\naddress = {request = 0x7E0}'
        ),
        ["component a: on a CAN FD bus it is asked in classic frames"],
    ),
    "a kernel's bit rate": (
        '[bus.b]\nkind = "can"\ninterface = "socketcan"\nchannel = "can77"\nbitrate = 500_000',
        ["bus b: there is no CAN interface can77 now", "bus b: bitrate is without effect"],
    ),
    "a data bit rate": (
        '[bus.b]\nkind = "can"\ninterface = "virtual"\nchannel = "c"\ndata_bitrate = 2_000_000',
        ["bus b: data_bitrate is without effect: without fd = true"],
    ),
    "rates without their thousands": (
        (
            '[bus.b]\nkind = "serial"\nurl = "/dev/null"\nbaudrate = 115_200\n'
            '[[component]]\nname = "a"\nbus = "b"\nprotocol = "smp"\nprofile = {recovery_baudrate = 115}\n'
            '[[component]]\nname = "c"\nbus = "b"\nprotocol = "stm32-uart"\n'
            "profile = {baudrate = 115, app_baudrate = 57}"
        ),
        [
            "component a: profile.recovery_baudrate = 115 is in bit/s",
            "component c: profile.baudrate = 115 is in bit/s",
            "component c: profile.app_baudrate = 57 is in bit/s",
        ],
    ),
    "an id as lsusb shows it": (
        (
            '[bus.b]\nkind = "usb"\n[[component]]\nname = "a"\nbus = "b"\nprotocol = "dfu"\n'
            "address = {vendor_id = 483, product_id = 0xDF11}"
        ),
        ["component a: vendor_id = 483 is 0x01E3; for 0483:... as lsusb shows it write: vendor_id = 0x0483"],
    ),
}


@pytest.mark.parametrize("case", SURPRISES)
def test_what_will_surprise_is_said(case: str, say: Say, tmp_path: Path) -> None:
    text, told = SURPRISES[case]
    (tmp_path / "bench.toml").write_text(text + "\n")
    status, _, err = say("bench", "check")
    assert status == 0
    assert len(err.splitlines()) == len(told)
    for line, start in zip(err.splitlines(), told, strict=True):
        assert line.startswith(start)
    status, out, _ = say("bench", "check", "--json")
    assert len(json.loads(out).get("surprises", [])) == len(told)


# init


def test_a_file_from_what_is_attached(say: Say, host: Callable[..., None], tmp_path: Path) -> None:
    ports = [adapter("/dev/ttyUSB1", "USB"), adapter("/dev/ttyUSB0", "USB", 'A"1'), adapter("/dev/ttyACM0", None)]
    host(
        net={"can0": "280", "eth0": "1", "lo": "772", "vcan.1": "280"}, usb=True, ports=[*ports, ListPortInfo("ttyS0")]
    )
    status, out, err = say("bench", "init")
    assert (status, out, err) == (0, "bench.toml  6 buses; now: proxyflash --bench bench.toml scan\n", "")
    file = load(tmp_path / "bench.toml")
    assert {name: bus.kind for name, bus in file.spec.bus.items()} == {
        "can0": "can",
        "vcan-1": "can",
        "ttyacm0": "serial",
        "usb": "serial",
        "usb-2": "serial",
        "usb-3": "usb",
    }
    assert file.spec.bus["can0"].settings == {"interface": "socketcan", "channel": "can0"}
    assert file.spec.bus["vcan-1"].settings["channel"] == "vcan.1"
    assert file.spec.bus["usb"].settings["url"] == "/dev/ttyUSB0"
    assert say("bench", "check")[0] == 0


def test_it_has_the_lines_that_would_let_scan_ask(say: Say, host: Callable[..., None], tmp_path: Path) -> None:
    """As comments: whoever takes out the # has a file that holds."""
    host(net={"can0": "280"}, ports=[adapter("/dev/ttyUSB0", "USB")])
    say("bench", "init")
    text = (tmp_path / "bench.toml").read_text()
    for line in ("probe = true", "ask = [", "dtr = false", "rts = false"):
        assert f"# {line}" in text
        text = text.replace(f"# {line}", line)
    (tmp_path / "bench.toml").write_text(text)
    file = load(tmp_path / "bench.toml")
    assert file.spec.bus["can0"].probe
    asked = [one.protocol for one in file.spec.bus["usb"].ask]
    assert asked[0] == "smp"
    assert {"stm32-uart", "stk500v1", "stk500v2", "avr109"} < set(asked)


def test_as_a_document(say: Say, host: Callable[..., None]) -> None:
    host(usb=True)
    status, out, err = say("--json", "bench", "init", "desk.toml")
    assert (status, json.loads(out), err) == (0, {"schema": 1, "file": "desk.toml", "buses": ["usb"]}, "")


def test_the_next_command_is_named_so_that_it_can_be_pasted(say: Say, host: Callable[..., None]) -> None:
    host(usb=True)
    assert "proxyflash --bench 'my desk.toml' scan" in say("bench", "init", "my desk.toml")[1]


def test_nothing_is_overwritten_unasked(say: Say, host: Callable[..., None], tmp_path: Path) -> None:
    host(usb=True)
    (tmp_path / "bench.toml").write_text("mine")
    status, out, err = say("bench", "init")
    assert (status, out) == (12, "")
    assert err == "E-BENCH-EXISTS bench.toml is there already. Name another file, or add --force.\n"
    assert (tmp_path / "bench.toml").read_text() == "mine"
    assert say("bench", "init", "--force")[0] == 0
    assert list(load(tmp_path / "bench.toml").spec.bus) == ["usb"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_where_nothing_is_attached(form: str, say: Say, host: Callable[..., None], tmp_path: Path) -> None:
    host()
    status, out, err = say(*(["--json"] if form == "json" else []), "bench", "init")
    assert status == 12
    said = json.loads(out)["error"]["code"] if form == "json" else err
    assert said.startswith("E-BENCH-NOTHING")
    assert not (tmp_path / "bench.toml").exists()


@pytest.mark.parametrize("file", ["none/bench.toml", ".", "/dev/full"])
def test_a_file_that_can_not_be_written(file: str, say: Say, host: Callable[..., None]) -> None:
    host(usb=True)
    status, _, err = say("bench", "init", "--force", file)
    assert status == 12
    assert err.startswith("E-BENCH-EXISTS ")
    assert "Traceback" not in err


def test_on_this_machine_as_it_is(say: Say, tmp_path: Path) -> None:
    status, _, err = say("bench", "init")
    if status == 0:
        assert say("bench", "check")[0] == 0
    else:
        assert (status, err[:15]) == (12, "E-BENCH-NOTHING")
        assert not (tmp_path / "bench.toml").exists()


# A line that is a pseudo-terminal.


@pytest.fixture
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The path of the example's IMU, running its application."""
    folder = tmp_path_factory.mktemp("imu")
    shutil.copytree(EXAMPLE / "firmware", folder / "firmware")
    (folder / "bench.toml").write_text(
        '[bus.imu-uart]\nkind = "serial"\nemulated = true\npace = 0.0\n'
        '[[component]]\nname = "imu"\nbus = "imu-uart"\nprotocol = "stm32-uart"\n'
        'version = {send = "VER?\\r", match = "FW ([0-9.]+)"}\n'
        'emulated = {part = "stm32f405xg", firmware = "firmware/imu-1.4.2.bin"}\n'
    )
    with Bench.open(folder / "bench.toml", state=folder / "state") as bench:
        path, close = serve_pty(bench.emulated_wire("imu-uart"))
        try:
            yield path
        finally:
            close()


@pytest.mark.real_time("pseudo-terminals")
def test_from_init_to_a_scan_that_shows_the_part(
    say: Say, host: Callable[..., None], line: str, tmp_path: Path
) -> None:
    """What a person does in the first hour: init, check, add the component, check, scan."""
    host(ports=[adapter(line, "TTL232R", "FT1")])
    assert say("bench", "init")[0] == 0
    assert say("bench", "check")[:2] == (0, f"{tmp_path}/bench.toml  OK  1 bus, 0 components\n")
    status, out, err = say("scan")
    asks = 'ask = [...] lists by which protocols scan may ask, such as {protocol = "smp"}'
    assert (status, out, err) == (0, f"ttl232r (serial)\n  nothing was asked: {asks}\n", "")
    with (tmp_path / "bench.toml").open("a") as file:
        file.write('\n[[component]]\nname = "imu"\nbus = "ttl232r"\nprotocol = "stm32-uart"\n')
        file.write('version = {send = "VER?\\r", match = "FW ([0-9.]+)", timeout = 30}\n')
    assert say("bench", "check")[0] == 0
    status, out, _ = say("scan", "--json")
    found: dict[str, Any] = json.loads(out)
    assert (status, found["errors"], found["unlisted"]) == (0, [], [])
    assert [(item["name"], item["presence"], item["version"]) for item in found["components"]] == [
        ("imu", "ok", "1.4.2")
    ]


@pytest.mark.real_time("pseudo-terminals")
def test_a_line_whose_other_end_is_mute(say: Say, tmp_path: Path) -> None:
    master, slave = os.openpty()
    try:
        (tmp_path / "bench.toml").write_text(
            f'[bus.line]\nkind = "serial"\nurl = "{os.ttyname(slave)}"\n'
            '[[component]]\nname = "imu"\nbus = "line"\nprotocol = "stm32-uart"\n'
            'version = {send = "V", match = "([0-9])", timeout = 0.1}\n'
        )
        assert say("bench", "check")[0] == 0
        status, out, _ = say("scan", "--json")
        assert status == 0
        assert json.loads(out)["components"][0]["presence"] == "absent"
    finally:
        os.close(master)
        os.close(slave)


# schema


def test_the_schema_knows_the_file_s_tables(say: Say) -> None:
    status, out, _ = say("bench", "schema")
    schema = json.loads(out)
    assert status == 0
    assert set(schema["properties"]) == {"bus", "component", "profile", "power", "check", "updates"}
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]["component"]["items"]["required"]) == {"name"}


MISSPELT = """
[bus.can]
kind = "can"
interface = "socketcan"
channel = "can0"

[[component]]
name = "radar"
bus = "can"
protocol = "uds"
address = {requst = 0x7E0}
profile = {timings = {p2 = "0.05"}, memory = [{start = 0, size = 4096, erase_unt = 1024}]}
"""


@pytest.mark.real_time("another program checks files")
def test_taplo_checks_bench_files_by_the_schema(tmp_path: Path) -> None:
    """VS Code's Even Better TOML checks and completes by Taplo."""
    program = environment("taplo==0.9.3").with_name("taplo")
    schema = tmp_path / "bench.schema.json"
    schema.write_text(json.dumps(bench_schema()))
    examples = re.findall(
        r"^```toml\n(.*?)^```", (ROOT / "docs" / "bench-file.md").read_text(), re.MULTILINE | re.DOTALL
    )
    files = [tmp_path / f"{number}.toml" for number in range(len(examples))]
    for file, text in zip(files, examples, strict=True):
        file.write_text(text)
    command: list[str | Path] = [program, "check", "--schema", f"file://{schema}"]
    held = subprocess.run([*command, *files], capture_output=True, text=True, cwd=tmp_path)
    assert (held.returncode, len(files) > 20) == (0, True), held.stderr
    (tmp_path / "wrong.toml").write_text(MISSPELT)
    told = subprocess.run([*command, tmp_path / "wrong.toml"], capture_output=True, text=True, cwd=tmp_path)
    assert told.returncode != 0
    for fault in ("'requst' was unexpected", "'erase_unt' was unexpected", 'is not of type "number"'):
        assert fault in told.stderr
