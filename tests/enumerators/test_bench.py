"""`Bench`: what is found and how it is called, buses opened once, supplies switched."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import usb.backend.libusb1
from proxyflash.emulators.serial.pty import serve_pty
from proxyflash.emulators.usb.backend import EmulatedUsbBackend
from proxyflash.enumerators import commands
from proxyflash.enumerators.bench import Bench, find_file
from proxyflash.enumerators.benchfile.schema import BenchEntry
from proxyflash.enumerators.component import Presence, Unlisted, distinct, document, select
from proxyflash.enumerators.errors import BenchKey, BenchMissing, ComponentUnknown, PowerFailed
from proxyflash.enumerators.probers import Prober
from proxyflash.enumerators.probers.serial import SerialProber
from proxyflash.enumerators.scan import Scan
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import Cancelled, RebootFailed, VersionMismatch
from proxyflash.flashers.events import RunContext
from proxyflash.flashers.flasher import Identity, ProbeResult, State
from proxyflash.flashers.formats import load
from proxyflash.flashers.programmer import FlashResult
from proxyflash.transports import clock
from proxyflash.transports.errors import (
    BadSettings,
    CanGone,
    CanSettings,
    ExitStatus,
    IsoTpFraming,
    SerialGone,
    SerialSettings,
    TransportError,
)
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from ..processes import until_ended

EXAMPLE = Path(__file__).parents[2] / "examples" / "three_sensors"


@pytest.fixture(autouse=True)
def no_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is plugged into the machine that runs the tests is none of their business."""
    monkeypatch.setattr(list_ports, "comports", list)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """The example's bench, taking no time and looking for nothing that isn't in its file."""
    folder = tmp_path / "desk"
    shutil.copytree(EXAMPLE, folder)
    file = folder / "bench.toml"
    text = re.sub(r"^(emulated = true)$", r"\1\npace = 0.0", file.read_text(), flags=re.MULTILINE)
    file.write_text(re.sub(r"^probe = .*ECUs.*$", "", text, flags=re.MULTILINE))
    return file


def seen(scan: Scan) -> dict[str, tuple[str, str]]:
    return {item.name: (item.presence.value, item.version) for item in scan.components}


def memory(bench: Bench, name: str) -> bytes:
    flash = bench.emulated_device(name).flash
    return bytes(flash.read(flash.base, flash.size))


# Where the file is.


def test_the_order_in_which_a_bench_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "config" / "proxyflash" / "bench.toml"
    above = tmp_path / "a" / "bench.toml"
    here = tmp_path / "a" / "b" / "c" / "bench.toml"
    here.parent.mkdir(parents=True)
    monkeypatch.chdir(here.parent)
    with pytest.raises(BenchMissing) as caught:
        find_file()
    assert str(own) in caught.value.cause
    assert "--bench" in caught.value.remedy
    for file in (own, above, here):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        assert find_file() == file
    monkeypatch.setenv("PROXYFLASH_BENCH", "elsewhere.toml")
    assert find_file() == Path("elsewhere.toml")
    assert find_file("named.toml") == Path("named.toml")
    monkeypatch.setenv("PROXYFLASH_BENCH", "")
    assert find_file() == here
    here.unlink()
    here.mkdir()  # A folder of that name is none.
    assert find_file() == above


def test_a_component_that_is_not_there(desk: Path) -> None:
    with Bench.open(desk) as bench:
        assert [item.name for item in bench.components] == ["front-radar", "imu", "camera"]
        with pytest.raises(ComponentUnknown, match="it has: front-radar, imu, camera"):
            bench.component("lidar")


# What is found.


def test_parts_that_run_tell_their_version(desk: Path) -> None:
    with Bench.open(desk) as bench:
        assert seen(bench.scan()) == dict.fromkeys(("front-radar", "imu", "camera"), ("ok", "1.4.2"))
        assert bench.component("imu").look().version == "1.4.2"


def test_parts_without_supply_are_absent(desk: Path) -> None:
    with Bench.open(desk) as bench:
        for name in ("front-radar", "imu", "camera"):
            bench.emulated_device(name).supply.off()
        scan = bench.scan()
        assert seen(scan) == dict.fromkeys(("front-radar", "imu", "camera"), ("absent", ""))
        assert scan.faults == ()


@pytest.mark.parametrize(
    ("name", "part"), [("front-radar", "acme-r77"), ("imu", "stm32f405xg"), ("camera", "stm32f405-dfu")]
)
def test_a_part_that_is_not_powered_comes_when_it_is(desk: Path, name: str, part: str) -> None:
    desk.write_text(desk.read_text().replace(f'part = "{part}", ', f'part = "{part}", powered = false, '))
    with Bench.open(desk) as bench:
        found = seen(bench.scan())
        assert found.pop(name) == ("absent", "")
        assert set(found.values()) == {("ok", "1.4.2")}
        device = bench.emulated_device(name)
        device.supply.on()
        device.settle()
        assert seen(bench.scan())[name] == ("ok", "1.4.2")


def test_parts_without_an_application_sit_in_their_bootloader(desk: Path) -> None:
    desk.write_text(re.sub(r', firmware = "[^"]+"', "", desk.read_text()))
    with Bench.open(desk) as bench:
        assert seen(bench.scan()) == dict.fromkeys(("front-radar", "imu", "camera"), ("bootloader", ""))
        assert [bench.emulated_device(name).application_version for name in ("front-radar", "imu", "camera")] == [
            None
        ] * 3


def test_a_part_that_can_not_be_asked_is_unknown(desk: Path) -> None:
    desk.write_text(re.sub(r"^(version|probe) = .*$", "", desk.read_text(), flags=re.MULTILINE))
    with Bench.open(desk) as bench:
        assert seen(bench.scan())["imu"] == ("unknown", "")
        assert not bench.component("imu").can_be_asked
        assert bench.component("imu").await_version() is None


def test_a_scan_disturbs_nobody(desk: Path) -> None:
    with Bench.open(desk) as bench:
        bench.scan()
        before = {name: memory(bench, name) for name in bench.file.entries}
        bench.scan()
        for name, image in before.items():
            device = bench.emulated_device(name)
            assert device.application_version == "1.4.2"
            assert memory(bench, name) == image


@pytest.mark.real_time("a port of this host")
def test_a_missing_adapter_hides_no_other_bus(desk: Path, tmp_path: Path) -> None:
    text = desk.read_text().replace(
        "emulated = true\npace = 0.0\nbitrate = 500_000", 'interface = "socketcan"\nchannel = "no0"'
    )
    text = re.sub(r', firmware = "firmware/radar[^}]+|^emulated = \{part = "acme.*$', "", text, flags=re.MULTILINE)
    desk.write_text(f'{text}\n[bus.line]\nkind = "serial"\nurl = "{tmp_path}/none"\n')
    with Bench.open(desk) as bench:
        scan = bench.scan()
    assert seen(scan) == {"front-radar": ("absent", ""), "imu": ("ok", "1.4.2"), "camera": ("ok", "1.4.2")}
    assert [bus for bus, _ in scan.faults] == ["powertrain", "line"]
    # Without CAN in the kernel it is the driver that is missing.
    assert all(isinstance(error, TransportError) and error.exit_status is ExitStatus.ABSENT for _, error in scan.faults)


def test_a_bus_is_opened_once_and_closed(desk: Path) -> None:
    with Bench.open(desk) as bench:
        assert bench.transport("usb") is bench.transport("usb")
        assert bench.transport("imu-uart").url.startswith("emulated://")
    with Bench.open(desk) as bench:  # The lock is free again.
        bench.transport("usb")


def test_a_thread_that_is_left_opens_nothing_any_more(desk: Path) -> None:
    """An interrupted command closes its bench, and ends; what an engine's thread does meanwhile must not reach a part."""
    bench = Bench.open(desk)
    bench.lock()
    bench.close()
    for late in (bench.lock, bench.scan, lambda: bench.transport("imu-uart"), lambda: bench.reopen("imu-uart")):
        with pytest.raises(Cancelled, match="the bench was closed"):
            late()
    with Bench.open(desk) as another:
        another.lock()


def test_a_bus_that_is_opened_while_the_bench_is_closed_is_closed_too(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench.open(desk)
    port = bench.transport("imu-uart")
    bench.reopen("imu-uart")
    opening = type(port).open

    def slow(*arguments: Any) -> Any:
        opened = opening(*arguments)
        bench.close()
        late.append(opened)
        return opened

    late: list[Any] = []
    monkeypatch.setattr(type(port), "open", slow)
    with pytest.raises(Cancelled):
        bench.reopen("imu-uart")
    with pytest.raises(SerialGone):
        late[0].drain()


@pytest.mark.parametrize(
    ("keys", "kind", "phrase", "line"),
    [
        ('kind = "serial"\nurl = "loop://"\nbaudrate = "fast"', SerialSettings, "baudrate = 'fast'", 5),
        ('kind = "serial"\nurl = "loop://"\nspeed = 9600', SerialSettings, "'speed'", 5),
        ('kind = "serial"', SerialSettings, "url", 2),
        ('kind = "can"', CanSettings, "interface", 2),
        ('kind = "can"\ninterface = "nonsense"', BadSettings, "nonsense", 4),
    ],
)
def test_what_a_library_refuses_is_told_with_its_line(
    keys: str, kind: type[Exception], phrase: str, line: int, tmp_path: Path
) -> None:
    file = tmp_path / "bench.toml"
    file.write_text(f"# A bench.\n[bus.b]\n{keys}\n")
    with Bench.open(file) as bench:
        [(_, error)] = bench.scan().faults
    assert isinstance(error, kind)
    assert error.cause.startswith(f"{file}:{line}: ")
    assert phrase in error.cause
    assert error.exit_status is ExitStatus.BAD_FILE


EMULATED_WRONG = [
    ('part = "acme-r77", ', 'part = "acme-r99",', "component.emulated.part: 'acme-r99' is none of"),
    ('serial = "RA-0019", ', "mute = 1,", "component.emulated.mute: 1 is neither true nor false"),
    ('part = "stm32f405xg", ', 'part = "stm32f999",', "component.emulated.part: 'stm32f999' is none of stm32f103xb"),
    (
        'wiring = "dtr-reset,!rts-boot0"',
        "boot1 = true",
        "component.emulated.boot1: unknown key (did you mean 'boot0'?)",
    ),
    ('serial = "RA-0019", ', "powered = 0,", "component.emulated.powered: 0 is neither true nor false"),
    ('serial = "C24-7781", ', 'boot = "no",', "component.emulated.boot: 'no' is none of"),
    ("firmware/imu-1.4.2.bin", "firmware/none.bin", "No such file"),
    ("bitrate = 500_000", 'bitrate = "fast"', "bus.powertrain.bitrate: 'fast' is not a bit rate"),
    ('match = "FW ([0-9.]+)"', 'match = "(FW|HW)"', "component.version: no answer"),
]


@pytest.mark.parametrize(("old", "new", "phrase"), EMULATED_WRONG)
def test_a_wrong_key_of_an_emulated_part(old: str, new: str, phrase: str, desk: Path, tmp_path: Path) -> None:
    text = desk.read_text()
    assert old in text
    desk.write_text(text.replace(old, new))
    line = next(number for number, line in enumerate(desk.read_text().splitlines(), 1) if new in line)
    with Bench.open(desk, state=tmp_path / "other") as bench:
        with pytest.raises(BenchKey) as caught:
            bench.check()
        assert caught.value.cause.startswith(f"{desk}:{line}: ")
        assert phrase in caught.value.cause
        assert not (tmp_path / "other").exists()
        scan = bench.scan()
        assert [type(error) for _, error in scan.faults] == [BenchKey]
        assert len([item for item in scan.components if item.presence is Presence.OK]) == 2


def test_a_check_leaves_nothing_behind(desk: Path, tmp_path: Path) -> None:
    with Bench.open(desk, state=tmp_path / "other") as bench:
        bench.check()
        bench.check()
    assert not (tmp_path / "other").exists()


# What is found and the file does not mention.


@pytest.fixture
def two_ecus(tmp_path: Path) -> Iterator[Bench]:
    """Another bench, whose wire the one under test opens as any CAN interface."""
    file = tmp_path / "ecus.toml"
    shutil.copy(EXAMPLE / "firmware" / "radar-1.4.2.bin", tmp_path)
    file.write_text(
        '[bus.wire]\nkind = "can"\nemulated = true\npace = 0.0\n'
        + "".join(
            f'[[component]]\nname = "{name}"\nbus = "wire"\nprotocol = "uds"\n'
            f'address = {{request = {request}, response = {request + 8}}}\nemulated = {{serial = "{name}", '
            'firmware = "radar-1.4.2.bin"}\n'
            for name, request in (("left", 0x7E0), ("right", 0x7E3))
        )
    )
    with Bench.open(file) as bench:
        yield bench


def pasted(file: Path, scan: Scan) -> None:
    file.write_text("\n".join([file.read_text(), *(item.lines for item in scan.unlisted)]) + "\n")


def test_ecus_that_the_file_lacks_are_there_once_their_lines_are_pasted(two_ecus: Bench, tmp_path: Path) -> None:
    channel = two_ecus.emulated_wire("wire").channel
    file = tmp_path / "bench.toml"
    file.write_text(f'[bus.front]\nkind = "can"\ninterface = "proxyflash"\nchannel = "{channel}"\n')
    with Bench.open(file) as bench:
        assert bench.scan().unlisted == ()  # Not without leave.
    file.write_text(file.read_text() + "probe = true\n")
    with Bench.open(file) as bench:
        scan = bench.scan()
    assert ["left" in item.title for item in scan.unlisted] == [True, False]
    assert ["0x7E3" in item.title for item in scan.unlisted] == [False, True]
    pasted(file, scan)
    with Bench.open(file) as bench:
        scan = bench.scan()
    assert scan.unlisted == ()
    assert [(item.presence, item.version, item.id) for item in scan.components] == [
        (Presence.OK, "1.4.2", "left"),
        (Presence.OK, "1.4.2", "right"),
    ]


@pytest.mark.real_time("the USB of this host")
def test_usb_parts_that_the_file_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that are alike but for a serial number that TOML has to escape, in DFU mode."""
    other = tmp_path / "parts.toml"
    other.write_text(
        '[bus.wire]\nkind = "usb"\nemulated = true\npace = 0.0\n'
        + "".join(
            f'[[component]]\nname = "{name}"\nbus = "wire"\nprotocol = "dfu"\naddress = {{alt = {number}}}\n'
            f"emulated = {{serial = '{serial}'}}\n"
            for number, (name, serial) in enumerate({"one": 'a"b\\c', "two": "# [é]"}.items())
        )
    )
    file = tmp_path / "bench.toml"
    file.write_text('[bus.usb]\nkind = "usb"\n')
    with Bench.open(other) as parts:
        backend = EmulatedUsbBackend(parts.emulated_wire("wire"))
        monkeypatch.setattr(usb.backend.libusb1, "get_backend", lambda *args, **more: backend)
        with Bench.open(file) as bench:
            scan = bench.scan()
        assert [item.name for item in scan.unlisted] == ["usb-0483-df11", "usb-0483-df11-2"]
        pasted(file, scan)
        with Bench.open(file) as bench:
            scan = bench.scan()
    assert scan.unlisted == ()
    assert [(item.presence, item.id) for item in scan.components] == [
        (Presence.BOOTLOADER, 'a"b\\c'),
        (Presence.BOOTLOADER, "# [é]"),
    ]


def adapter(device: str, product: str) -> ListPortInfo:
    port = ListPortInfo(device)
    port.vid, port.pid, port.product, port.manufacturer, port.serial_number = 0x0403, 0x6001, product, "FTDI", None
    return port


@pytest.mark.real_time("a port of this host")
def test_serial_adapters_that_the_file_lacks(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of one product: pseudo-terminals of an emulated line, and one more port that is not a USB adapter."""
    file = tmp_path / "bench.toml"
    file.write_text('[bus.a]\nkind = "can"\ninterface = "virtual"\n')
    with Bench.open(desk) as other:
        path, close = serve_pty(other.emulated_wire("imu-uart"))
        master, slave = os.openpty()
        try:
            ports = [
                adapter(path, "TTL\n[bus.x]"),
                adapter(os.ttyname(slave), "TTL\n[bus.x]"),
                ListPortInfo("/dev/ttyS0"),
            ]
            monkeypatch.setattr(list_ports, "comports", lambda: ports)
            with Bench.open(file) as bench:
                scan = bench.scan()
            assert [item.name for item in scan.unlisted] == ["ttl-bus-x", "ttl-bus-x-2"]
            assert all("\n" not in item.title for item in scan.unlisted)
            pasted(file, scan)
            with Bench.open(file) as bench:
                scan = bench.scan()
                assert scan.unlisted == ()
                assert scan.faults == ()
                assert list(bench.file.spec.bus) == ["a", "ttl-bus-x", "ttl-bus-x-2"]
        finally:
            close()
            os.close(master)
            os.close(slave)


def test_an_emulated_bench_does_not_look_at_the_host_s_adapters(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_ports, "comports", lambda: [adapter("/dev/ttyUSB0", "TTL")])
    with Bench.open(desk) as bench:
        assert bench.scan().unlisted == ()


def test_names_of_what_is_found_are_taken_by_nobody_else() -> None:
    found = [
        Unlisted("usb", "t", "camera", "a = 1"),
        Unlisted("", "t", "usb", "b = 1"),
        Unlisted("can", "t", "camera", ""),
    ]
    renamed = distinct(found, ["usb", "can"], ["camera", "camera-3"])
    assert [item.name for item in renamed] == ["camera-2", "usb-2", "camera-4"]
    assert tomllib.loads(renamed[0].lines) == {"component": [{"name": "camera-2", "a": 1}]}
    assert tomllib.loads(renamed[1].lines) == {"bus": {"usb-2": {"b": 1}}}


# The component record (the contract of Azure Device Update's component enumerators, version 1.0).


def test_the_record_of_what_was_found(desk: Path) -> None:
    text = desk.read_text().replace('group = "radars"', 'group = "radars"\nproperties = {mounted = "left"}')
    desk.write_text(
        text.replace('manufacturer = "Fabrikam"\n', "").replace("C24-7781", 'C24-7781", manufacturer = "Told')
    )
    with Bench.open(desk) as bench:
        bench.emulated_device("imu").supply.off()
        scan = bench.scan()
    listed = {item["name"]: item for item in json.loads(document(scan.components))["components"]}
    radar = listed["front-radar"]
    assert {key: radar[key] for key in ("id", "name", "group", "manufacturer", "model", "version")} == {
        "id": "RA-0019",
        "name": "front-radar",
        "group": "radars",
        "manufacturer": "Acme",
        "model": "R77",
        "version": "1.4.2",
    }
    assert {"status": "ok", "version": "1.4.2", "mounted": "left"}.items() <= radar["properties"].items()
    assert listed["camera"]["manufacturer"] == "Told"  # By the part itself.
    assert listed["imu"]["id"] == "imu"  # It has reported no serial number; never a port.
    assert listed["imu"]["properties"]["status"] == "absent"
    for item in listed.values():
        assert all(isinstance(value, str) for value in item["properties"].values())
        assert all(isinstance(value, str) for key, value in item.items() if key != "properties")
    assert [item.name for item in select(scan.components, [{"group": "radars", "version": "1.4.2"}])] == ["front-radar"]
    assert [item.name for item in select(scan.components, [{"id": "C24-7781"}, {"name": "imu"}])] == ["imu", "camera"]
    assert [item.name for item in select(scan.components, [{"mounted": "left"}])] == ["front-radar"]


def test_an_absent_part_keeps_the_serial_number_of_its_address(desk: Path) -> None:
    desk.write_text(
        desk.read_text().replace("runtime_product_id = 0x0C24}", 'runtime_product_id = 0x0C24, serial = "C24-7781"}')
    )
    with Bench.open(desk) as bench:
        assert bench.component("camera").look().id == "C24-7781"
        bench.emulated_device("camera").supply.off()
        camera = bench.component("camera").look()
    assert (camera.presence, camera.id) == (Presence.ABSENT, "C24-7781")


# Power.


@pytest.fixture
def fake_desk(tmp_path: Path) -> Path:
    """A component that nothing is asked of; its supply is a file called "power"."""
    folder = tmp_path / "fake"
    folder.mkdir()
    file = folder / "bench.toml"
    file.write_text(
        '[bus.b]\nkind = "can"\ninterface = "virtual"\n'
        '[[component]]\nname = "radar"\nbus = "b"\nprotocol = "uds"\naddress = {request = 1}\n'
        "[power.radar]\noff = 'echo off >>power'\non = 'echo on >>power'\n"
    )
    return file


def cycle(file: Path) -> bool:
    with Bench.open(file) as bench:
        return bench.component("radar").power_cycle()


@pytest.mark.real_time("commands")
def test_a_supply_is_cut_and_restored_by_the_file_s_commands(fake_desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert cycle(fake_desk)
    assert (fake_desk.parent / "power").read_text() == "off\non\n"


def test_without_commands_there_is_no_way(fake_desk: Path) -> None:
    fake_desk.write_text(fake_desk.read_text().partition("[power")[0])
    assert not cycle(fake_desk)


@pytest.mark.parametrize(
    ("off", "phrase"),
    [
        ("echo no such port >&2; exit 3", "ended with 3: no such port"),
        ("printf '\\\\377'; exit 1", "ended with 1: \ufffd"),
        ("kill -9 $$", "ended with -9"),
        ("false", "'false' ended with 1"),
        ("no-such-program", "ended with 127"),
        ("yes | head -c 100000; exit 1", "ended with 1: "),
    ],
)
@pytest.mark.real_time("commands")
def test_a_command_that_fails_leaves_the_part_powered(off: str, phrase: str, fake_desk: Path) -> None:
    fake_desk.write_text(
        re.sub(r"^off = .*$", lambda _: f'off = """{off}"""', fake_desk.read_text(), flags=re.MULTILINE)
    )
    with pytest.raises(PowerFailed) as caught:
        cycle(fake_desk)
    assert phrase in caught.value.cause
    assert len(caught.value.cause) < 600
    assert caught.value.component == "radar"
    assert caught.value.remedy
    assert (fake_desk.parent / "power").read_text() == "on\n"


@pytest.mark.real_time("commands")
def test_a_command_that_hangs_is_ended_with_what_it_started(fake_desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "SECONDS", 1.0)
    hang = "sleep 1000 & echo $! >child; wait"
    fake_desk.write_text(fake_desk.read_text().replace("echo off >>power", hang))
    with pytest.raises(PowerFailed, match="took longer than 1 s"):
        cycle(fake_desk)
    until_ended(int((fake_desk.parent / "child").read_text()))
    assert (fake_desk.parent / "power").read_text() == "on\n"


@pytest.mark.real_time("commands")
def test_a_command_outlives_a_process_that_is_killed(fake_desk: Path) -> None:
    """What it says then, which nobody reads, doesn't end it: a part would stay without its supply."""
    slowly = "touch begun; while [ ! -e killed ]; do sleep 0.02; done; echo on; echo on; echo on >>power"
    fake_desk.write_text(fake_desk.read_text().replace("echo on >>power", slowly))
    program = "import sys; from pathlib import Path; from proxyflash.enumerators.bench import Bench\n"
    program += "with Bench.open(Path(sys.argv[1])) as bench: bench.component('radar').power_cycle()"
    with subprocess.Popen([sys.executable, "-c", program, str(fake_desk)]) as process:
        wait_for(fake_desk.parent / "begun")
        process.kill()
    (fake_desk.parent / "killed").touch()
    until = time.monotonic() + 300
    while (fake_desk.parent / "power").read_text() != "off\non\n":
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.real_time("commands")
def test_what_a_command_leaves_running_is_not_waited_for(fake_desk: Path) -> None:
    fake_desk.write_text(
        fake_desk.read_text().replace("echo on >>power", "echo on >>power; sleep 1000 & echo $! >child")
    )
    assert cycle(fake_desk)
    os.kill(int((fake_desk.parent / "child").read_text()), signal.SIGKILL)


def wait_for(path: Path) -> None:
    until = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.01)


def test_the_supply_of_an_emulated_part(desk: Path) -> None:
    with Bench.open(desk) as bench:
        camera = bench.component("camera")
        assert camera.power_cycle()
        bench.emulated_device("camera").settle()
        assert camera.can_be_asked


# Flashing, as far as it is the bench's.


def test_a_flash_that_is_not_confirmed_changes_nothing(desk: Path) -> None:
    with Bench.open(desk) as bench:
        before = memory(bench, "imu")
        with bench.component("imu").programmer() as programmer:
            assert not programmer.plan(load(desk.parent / "update" / "imu-1.5.0.hex")).nothing_to_do
        assert memory(bench, "imu") == before
        assert bench.component("imu").look().version == "1.4.2"
        result = bench.component("imu").flash(str(desk.parent / "update" / "imu-1.5.0.hex"))
        assert result is not None
        assert result.version == "1.5.0"
    with Bench.open(desk) as bench:  # The flash is kept in the state folder.
        assert bench.component("imu").look().version == "1.5.0"


def flash(desk: Path, **options: Any) -> FlashResult:
    with Bench.open(desk, state=desk.parent / "state") as bench:
        return bench.component("imu").flash(desk.parent / "update" / "imu-1.5.0.hex", **options)


def answering(version: str | None) -> Callable[..., ProbeResult | None]:
    return lambda prober, entry, deadline: (
        None if version is None else ProbeResult(State.RUNNING, Identity(version=version))
    )


def test_an_application_that_does_not_answer_is_not_back(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SerialProber, "application", answering(None))
    began = clock.monotonic()
    with pytest.raises(RebootFailed, match="within 10 s") as told:
        flash(desk)
    assert told.value.component == "imu"
    assert 10 <= clock.monotonic() - began < 60


def test_another_version_than_wanted_is_a_failure(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SerialProber, "application", answering("1.9"))
    with pytest.raises(VersionMismatch, match=r"1\.9, wanted 2\.0") as told:
        flash(desk, expect_version="2.0")
    assert told.value.component == "imu"


def test_what_the_application_answers_is_in_the_result(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SerialProber, "application", answering("1.9"))
    told: list[ev.Event] = []
    result = flash(desk, context=RunContext(told.append))
    assert (result.booted, result.version) == (True, "1.9")
    assert [event.detail for event in told if isinstance(event, ev.PhaseFinished) and event.phase is ev.Phase.BOOT] == [
        "1.9"
    ]
    result = flash(desk, boot=False)
    assert (result.booted, result.version) == (False, None)


# A part that answers anything.


def two_on_the_bus_of(file: Path, name: str) -> str:
    """Adds a second component to a component's bus; its name."""
    text = file.read_text()
    table = next(part for part in text.split("[[component]]") if f'name = "{name}"' in part).split("\n[")[0]
    other = re.sub(r"0x7E([0-9])", r"0x7D\1", table.replace(name, "other"))
    file.write_text(text + "\n[[component]]" + other + "\n")
    return "other"


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (ValueError("Exceeds the limit (4300 digits)"), "E-UNEXPECTED"),
        (KeyError("images"), "E-UNEXPECTED"),
        (RecursionError(), "E-UNEXPECTED"),
        (MemoryError(), "E-UNEXPECTED"),
        (IsoTpFraming("nonsense came"), "E-ISOTP-FRAMING"),
    ],
)
def test_what_one_component_raises_hides_no_other(
    desk: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, code: str
) -> None:
    other = two_on_the_bus_of(desk, "front-radar")
    ask = Prober.probe

    def probe(prober: Prober, entry: BenchEntry, deadline: Any) -> Any:
        if entry.spec.name == "front-radar":
            raise raised
        return ask(prober, entry, deadline)

    monkeypatch.setattr(Prober, "probe", probe)
    with Bench.open(desk, state=desk.parent / "state") as bench:
        found = bench.scan()
    states = {name: state for name, (state, _) in seen(found).items()}
    assert states == {"front-radar": "absent", other: "ok", "imu": "ok", "camera": "ok"}
    ((_, error),) = found.faults
    assert (error.code, error.component) == (code, "front-radar")


def test_what_a_bus_raises_is_told_once(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = two_on_the_bus_of(desk, "front-radar")
    asked = []

    def probe(prober: Prober, entry: BenchEntry, deadline: Any) -> Any:
        asked.append(entry.spec.name)
        raise CanGone("unplugged")

    monkeypatch.setattr(Prober, "probe", probe)
    with Bench.open(desk, state=desk.parent / "state") as bench:
        found = bench.scan()
    assert ("front-radar" in asked) != (other in asked)
    assert [error.component for _, error in found.faults] == [None] * 3


def test_no_event_waits_until_another_thread_has_opened_its_bus(tmp_path: Path) -> None:
    (tmp_path / "bench.toml").write_text('[bus.b]\nkind = "can"\nemulated = true\n')
    found = []
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as bench:
        recorder = bench.recorder
        with bench._opening:
            thread = clock.Thread(target=lambda: found.append(bench.recorder))
            thread.start()
            thread.join(5)
            assert found == [recorder]
