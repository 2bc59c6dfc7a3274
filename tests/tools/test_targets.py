"""Targets in the place of components' names: what a command does with one, and the lines of the documents."""

from __future__ import annotations

import errno
import fcntl
import json
import re
import shlex
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.benchfile.schema import load
from proxyflash.enumerators.component import distinct
from proxyflash.enumerators.probers import unlisted_part
from proxyflash.enumerators.state import BenchLock
from proxyflash.enumerators.target import Target, bus_of
from proxyflash.flashers.flasher import Discovered
from proxyflash.flashers.uds.discovery import Found
from proxyflash.tools.commands import cli, run
from proxyflash.tools.completion import BashTargets, targets
from proxyflash.transports.can.bus import CanId
from proxyflash.transports.serial import host as serial_host

from .conftest import EXAMPLE, PROGRAM, Desk

ROOT = Path(__file__).parents[2]
CAMERA = (
    "dfu:0483:df11?bus.emulated=true&pace=0&component.emulated.part=stm32f405-dfu"
    "&runtime_vendor_id=0x1209&component.emulated.vendor_id=0x1209"
    "&runtime_product_id=0x0C24&component.emulated.product_id=0x0C24"
)
PROFILE = """
part = "R77"
memory = [{start = 0x0001_0000, size = 0x7_0000, erase_unit = 4096}]
security = {key = "xor", secret = "5a5a5a5a"}
"""
ONE_CAMERA = '[bus.u]\nkind = "usb"\n[[component]]\nname = "imu"\nbus = "u"\nprotocol = "dfu"\n'
SERVED = """
[bus.line]
kind = "serial"
emulated = true
pace = {pace}

[bus.can]
kind = "can"
emulated = true
pace = {pace}

[[component]]
name = "imu"
bus = "line"
protocol = "stm32-uart"
emulated = {{part = "stm32f405xg", boot0 = true}}

[[component]]
name = "front-radar"
bus = "can"
protocol = "uds"
address = {{request = 0x7E0}}
profile = {{memory = [{{start = 0x0001_0000, size = 0x7_0000}}]}}
emulated = {{part = "acme-r77", serial = "RA-0019", firmware = "{firmware}"}}
"""


@dataclass
class Wired:
    """A folder without a bench file, and parts behind a PTY and a socket, as another program has them."""

    folder: Path
    imu: str
    radar: str
    say: Callable[..., tuple[int, str, str]]

    def command(self, *arguments: str | Path) -> list[str]:
        return [str(PROGRAM), "--state", str(self.folder / "state"), *map(str, arguments)]


@pytest.fixture
def wire(
    tmp_path: Path, short: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Wired]]:
    """Serves the parts. `pace`: 0.0 takes no time."""
    folder = tmp_path / "here"
    shutil.copytree(EXAMPLE / "update", folder)
    (folder / "acme.toml").write_text(PROFILE)
    shutil.copy(folder / "imu-1.5.0.hex", folder / "fw.hex")
    shutil.copy(folder / "radar-1.5.0.s19", folder / "fw.s19")
    monkeypatch.chdir(folder)
    closers: list[Callable[[], object]] = []

    def say(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run(["--state", str(folder / "state"), *map(str, arguments)])
        return status, *capsys.readouterr()

    def make(pace: float = 0.0) -> Wired:
        (short / "bench.toml").write_text(SERVED.format(pace=pace, firmware=EXAMPLE / "firmware" / "radar-1.4.2.bin"))
        bench = Bench.open(short / "bench.toml", state=short)
        closers.append(bench.close)
        served = [bench.emulated_wire(bus).serve(bus, short) for bus in ("line", "can")]
        closers.extend(one.close for one in served)
        return Wired(folder, f"stm32-uart:{served[0].path}", f"uds:proxyflash:unix:{served[1].path}?request=0x7E0", say)

    yield make
    for close in reversed(closers):
        close()


# Each command on a part that is emulated in its own process.


@pytest.fixture
def say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLE / "update" / "camera-1.5.0.dfu", tmp_path / "fw.dfu")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run(["--state", "state", *map(str, arguments)])
        return status, *capsys.readouterr()

    return call


@pytest.mark.simulated_time
def test_each_command_takes_a_target(say: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    status, out, err = say("scan", CAMERA)
    assert (status, err) == (0, "")
    assert out.splitlines()[1].split()[:1] == ["dfu-0483-df11"]
    status, out, err = say("flash", CAMERA, "fw.dfu", "--no-boot")
    assert (status, out.splitlines()[-1].split()[:2]) == (0, ["dfu-0483-df11", "OK"]), err
    assert say("verify", CAMERA, "fw.dfu")[0] == 0
    assert say("read", CAMERA, "out.bin", "--start", "0x08000000", "--size", "0x100")[0] == 0
    assert len((tmp_path / "out.bin").read_bytes()) == 0x100
    status, out, _ = say("info", CAMERA, "--json")
    assert (status, json.loads(out)["component"]["name"]) == (0, "dfu-0483-df11")
    assert say("reset", CAMERA)[0] == 0
    assert say("erase", CAMERA)[0] == 0
    assert say("verify", CAMERA, "fw.dfu")[0] == 8


@pytest.mark.simulated_time
def test_a_profile_for_a_scan_of_the_whole_bench_is_refused(
    say: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "bench.toml").write_text("")
    status, _, err = say("info", "imu", "--profile", "acme.toml")
    assert (status, err.splitlines()[-1]) == (
        2,
        "Error: --profile goes with a target; a component's profile is in the bench file",
    )


@pytest.mark.simulated_time
@pytest.mark.parametrize("command", ["info", "flash", "verify", "read", "erase", "reset", "scan"])
def test_a_wrong_target_is_refused_by_each_command(say: Callable[..., tuple[int, str, str]], command: str) -> None:
    more = ["fw.dfu"] if command in ("flash", "verify", "read") else []
    status, out, err = say(command, "stm32-uart:/dev/none?grup=\x1brts", *more)
    assert (status, out) == (2, "")
    assert err.startswith("E-TARGET-WRONG 'stm32-uart:/dev/none?grup=\\x1brts': unknown key 'grup'. Write: ")
    assert shlex.split(err.rpartition("Write: ")[2].replace("$'", "'"))[0].startswith("stm32-uart:/dev/none?group=")


@pytest.mark.parametrize("command", ["info", "flash", "verify", "read", "erase", "reset"])
def test_a_name_without_a_bench_file_leads_to_targets(say: Callable[..., tuple[int, str, str]], command: str) -> None:
    more = ["fw.dfu"] if command in ("flash", "verify", "read") else []
    status, _, err = say(command, "imu", *more)
    assert (status, err.split()[0]) == (12, "E-BENCH-MISSING")
    assert err.endswith("by its protocol and place, such as stm32-uart:/dev/ttyUSB0: proxyflash help targets\n")
    # Where a file was named, the error names that file.
    assert "targets" not in say("--bench", "none.toml", command, "imu", *more)[2]


@pytest.mark.parametrize("command", ["flash", "verify", "read"])
@pytest.mark.parametrize("file", ["fw.dfu", "./fw.dfu"])
@pytest.mark.parametrize("bench", [True, False])
def test_a_file_before_a_component(
    say: Callable[..., tuple[int, str, str]], tmp_path: Path, command: str, file: str, bench: bool
) -> None:
    (tmp_path / "fw.dfu").write_bytes(b"DfuSe")
    if bench:
        (tmp_path / "bench.toml").write_text('[bus.usb]\nkind = "usb"\nemulated = true\n')
    status, _, err = say(command, file, "imu")
    assert (status, err.split()[0]) == (2, "E-TARGET-WRONG")
    assert err.endswith(
        f"is a file, and stands where a component's name or a target does. The component comes first. Write: imu {file}\n"
    )


@pytest.mark.parametrize("command", ["flash", "verify", "read"])
@pytest.mark.parametrize("file", ["fw.s19", "./fw.s19"])
def test_a_file_in_the_place_of_the_target(say: Callable[..., tuple[int, str, str]], command: str, file: str) -> None:
    status, _, err = say(command, file, "uds:socketcan:can0?request=0x7E0")
    assert (status, err.split()[0]) == (2, "E-TARGET-WRONG")
    assert shlex.split(err.rpartition("Write: ")[2]) == ["uds:socketcan:can0?request=0x7E0", file]


@pytest.mark.simulated_time
def test_a_rate_that_nobody_gave_is_said(say: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    part = "stm32-uart:/dev/none?bus.emulated=true&component.emulated.part=stm32f405xg&component.emulated.boot0=true"
    (tmp_path / "one.hex").write_text(":020000040800F2\n:080000000010002005000008BB\n:00000001FF\n")
    default = "no baudrate is given: 9,600 bit/s is the serial library's default"
    right = f"'{part}&bus.baudrate=115200'"
    status, out, err = say("flash", part, "one.hex", "--dry-run")
    assert (status, f"{default}; to give the part's, write for example: {right}" in out + err) == (0, True), out + err
    mute = f"{part}&component.emulated.mute=true"
    status, _, err = say("info", mute)
    assert (err.split()[0], err.count(default), f"'{mute}&bus.baudrate=115200'. " in err) == ("E-PART-MUTE", 1, True)
    for given in ("bus.baudrate=115200", "profile.baudrate=115200"):
        assert default not in "".join(map(str, say("info", f"{mute}&{given}")))


@pytest.mark.simulated_time
def test_a_rate_that_is_no_number_is_not_suggested(say: Callable[..., tuple[int, str, str]]) -> None:
    _, _, err = say("info", "stm32-uart:/dev/none?baudrate=115k")
    forms = "'stm32-uart:/dev/none?bus.baudrate=VALUE' or 'stm32-uart:/dev/none?profile.baudrate=VALUE'"
    assert err.endswith(
        f"(bus is for all that the bus carries, profile is for the bootloader alone). The form: {forms}\n"
    )


@pytest.mark.simulated_time
def test_an_absent_part_s_remedy_scans_the_bus_of_the_target(say: Callable[..., tuple[int, str, str]]) -> None:
    status, _, err = say("info", CAMERA.replace("dfu:0483:df11", "dfu:0483:df12"))
    assert (status, err.split()[0]) == (4, "E-PART-MUTE")
    said = shlex.split(err.rpartition("Run: ")[2])
    assert said[1:] == ["--state", said[2], "scan", "usb?bus.emulated=true&pace=0"]
    assert say(*said[1:])[0] == 0


@pytest.mark.parametrize(
    ("text", "bus"),
    [
        ("uds:kvaser:1?request=0x7E4&bitrate=250000&group=a", "can:kvaser:1?bitrate=250000"),
        ("stm32-uart:/dev/ttyACM0?bus.baudrate=115200", "serial:/dev/ttyACM0?bus.baudrate=115200"),
        ("dfu:0483:df11", "usb"),
        ("smp-udp:[2001:db8::7]", "udp:[2001:db8::7]"),
    ],
)
def test_the_bus_of_a_target_can_be_scanned(text: str, bus: str) -> None:
    assert bus_of(Target(text)) == bus
    assert Target(bus, whole_bus=True).file().spec.bus


@pytest.mark.simulated_time
@pytest.mark.parametrize(
    ("bus", "first", "then"),
    [
        (
            "socketcan:can0?emulated=true&bitrate=500000",
            "nothing was asked: probe = true lets scan ask whoever is on this bus",
            "can0 (can, emulated)",
        ),
        (
            "/dev/none?emulated=true&quiet=0.1",
            "nothing was asked: ask = [...] lists by which protocols scan may ask",
            "asked by smp at 115,200 bit/s, stm32-uart at 115,200 bit/s, stk500v2 at 115,200 bit/s",
        ),
        (
            '/dev/none?emulated=true&quiet=0.1&baudrate=57600&ask=[{protocol="smp"}]',
            "asked by smp at 57,600 bit/s: no answer",
            "asked by stm32-uart at 57,600 bit/s, stk500v2 at 57,600 bit/s",
        ),
        (
            "stm32-uart:/dev/none?bus.emulated=true&bus.baudrate=115200&component.emulated.part=stm32f405xg",
            "stm32-uart-none: nothing was asked: version = ",
            "ST STM32F40x/F41x  -  bootloader  stm32-uart",
        ),
    ],
)
def test_a_scan_that_finds_nothing_says_what_it_asked_and_how_to_go_on(
    say: Callable[..., tuple[int, str, str]], bus: str, first: str, then: str
) -> None:
    status, out, err = say("scan", bus)
    assert (status, err) == (0, "")
    assert first in out
    onward = shlex.split(out.rpartition("to go on: ")[2])
    assert onward[:2] == ["proxyflash", "scan"]
    # Nobody acknowledges a frame on a CAN bus without a part.
    assert say(*onward[1:])[0] == ("can0" in bus)
    assert then in say(*onward[1:])[1]


@pytest.mark.simulated_time
def test_a_scan_of_usb_does_not_name_itself(say: Callable[..., tuple[int, str, str]]) -> None:
    """No setting lets it see more."""
    status, out, err = say("scan", "usb?emulated=true")
    assert (status, err) == (0, "")
    assert "read the descriptors of 0 USB devices, of which none has a DFU interface" in out
    assert "a part may show its bootloader's interface in its bootloader only" in out
    assert "proxyflash scan" not in out


@pytest.mark.simulated_time
@pytest.mark.parametrize(
    ("target", "asked"),
    [
        (
            "smp:/dev/none?bus.emulated=true&component.emulated.part=microbit",
            "asked by smp at 115,200 bit/s, stm32-uart at 115,200 bit/s",
        ),
        (
            "smp:/dev/none?bus.emulated=true&bus.baudrate=57600&component.emulated.part=microbit",
            "asked by smp at 57,600 bit/s, stm32-uart at 57,600",
        ),
        ("uds:socketcan:can0?bus.emulated=true&request=0x7E0&bus.bitrate=500000", "E-CAN-NOACK"),
    ],
)
def test_the_remedy_of_a_mute_part_asks_whoever_is_there(
    say: Callable[..., tuple[int, str, str]], target: str, asked: str
) -> None:
    """At once, and not by naming yet another command. The scan's bus has nobody: only the target has the emulated part."""
    status, _, err = say("info", f"{target}&component.emulated.mute=true")
    assert (status, err.split()[0]) == (4, "E-PART-MUTE")
    said = shlex.split(err.rpartition("Run: ")[2])
    assert asked in "".join(map(str, say(*said[1:])))


@pytest.mark.parametrize(
    ("bus", "protocol", "found", "target"),
    [
        (
            "socketcan:can0?fd=true&probe=true&bitrate=500000",
            "uds",
            Found(CanId(0x7E3), CanId(0x7EB), "", fd=True).as_discovered(),
            "uds:socketcan:can0?bus.fd=true&bus.bitrate=500000&request=0x7E3&response=0x7EB&iso_tp.tx_dl=64",
        ),
        (
            "usb",
            "dfu",
            Discovered("", "usb", 'vendor_id = 0x0483, product_id = 0xDF11, serial = "A&1"'),
            'dfu:0483:df11?serial="A%261"',
        ),
        (
            "usb",
            "dfu",
            Discovered(
                "",
                "usb",
                'vendor_id = 0xFFFF, product_id = 0xFFFF, runtime_vendor_id = 0x1209, runtime_product_id = 1, port = "1-2"',
            ),
            "dfu:1-2?vendor_id=0xFFFF&product_id=0xFFFF&runtime_vendor_id=0x1209&runtime_product_id=0x1",
        ),
    ],
)
def test_what_a_scan_finds_is_a_target_too(bus: str, protocol: str, found: Discovered, target: str) -> None:
    file = Target(bus, whole_bus=True).file()
    (item,) = distinct([unlisted_part(next(iter(file.spec.bus)), protocol, found)], (), ())
    assert file.target_of(item) == target
    (entry,) = Target(target).file().entries.values()
    (pasted,) = tomllib.loads(item.lines)["component"]
    assert entry.address == entry.flasher.Address.model_validate(pasted["address"])


@pytest.mark.simulated_time
def test_a_target_needs_no_bench_file_and_reads_none(say: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "bench.toml").write_text("not a bench file")
    assert say("info", CAMERA)[0] == 0


def test_doctor_opens_the_bus_of_a_target(say: Callable[..., tuple[int, str, str]]) -> None:
    def checked(*words: str) -> dict[str, bool]:
        _, out, _ = say("doctor", *words, "--json")
        return {check["title"].partition(":")[0]: check["passed"] for check in json.loads(out)["checks"]}

    assert checked(CAMERA)["bus usb opens"] is True
    assert checked("stm32-uart:/dev/none")["bus none"] is False
    assert checked("/dev/none")["bus none"] is False
    assert say("doctor", "stm32-urt:/dev/none")[2].startswith("E-TARGET-WRONG ")


@pytest.mark.simulated_time
def test_the_lock_is_the_target_s(say: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    with BenchLock(Target(CAMERA).file().state_folder(tmp_path / "state")):
        status, _, err = say("info", f"{CAMERA}&group=other")
        assert (status, err.split()[0]) == (6, "E-BENCH-LOCKED")
        assert say("info", f"{CAMERA}&serial=0001")[0] == 0


@pytest.mark.simulated_time
def test_a_recording_holds_the_target_s_bench_file_and_not_its_secrets(
    say: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    radar = (
        "uds:proxyflash:can?bus.emulated=true&pace=0&request=0x7E0&component.emulated.part=acme-r77"
        "&security.key=xor&security.secret=5a5a5a5a&memory=[{start=0x10000,size=0x70000,erase_unit=4096}]"
    )
    shutil.copy(EXAMPLE / "update" / "radar-1.5.0.s19", tmp_path / "fw.s19")
    status, _, err = say("record", "radar.jsonl", "--", "flash", radar, "fw.s19", "--no-boot")
    assert status == 0, err
    text = (tmp_path / "radar.jsonl").read_text()
    assert "5a5a5a5a" not in text
    assert "uds:proxyflash:can" in text
    status, out, err = say("replay", "radar.jsonl")
    assert (status, out.splitlines()[-1].split()[:2]) == (0, ["replay", "OK"]), err


@pytest.mark.simulated_time
def test_a_recorded_target_s_profile_is_not_read_in_a_replay(
    say: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "acme.toml").write_text("work = 30.0\n")
    assert say("record", "camera.jsonl", "--", "info", CAMERA, "--profile", "acme.toml")[0] == 0
    (tmp_path / "acme.toml").write_text("no TOML")
    status, out, _ = say("replay", "camera.jsonl")
    assert (status, out.splitlines()[-1].split()[:2]) == (0, ["replay", "OK"])


# bench add


@pytest.mark.simulated_time
def test_what_is_added_flashes_the_same(say: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    status, out, err = say("bench", "add", "camera", CAMERA)
    assert (status, err) == (0, "")
    assert out == "bench.toml  component camera on bus usb; now: proxyflash info camera\n"
    assert say("bench", "check")[0] == 0
    status, out, _ = say("flash", "camera", "fw.dfu", "--no-boot", "--json")
    by_name = json.loads(out)
    status, out, _ = say("flash", CAMERA, "fw.dfu", "--no-boot", "--json")
    by_target = json.loads(out)
    for told in (by_name, by_target):
        told.pop("seconds")
    assert by_name | {"component": "dfu-0483-df11"} == by_target


def test_the_rest_of_the_file_is_kept(say: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file = tmp_path / "real.toml"
    before = b'# mine\r\n[bus.usb]  # all of them\r\nkind = "usb"\r\n\r\n[updates]\r\nhistory = 3'
    file.write_bytes(before)
    file.chmod(0o640)
    link = tmp_path / "bench.toml"
    link.symlink_to(file)
    assert say("bench", "add", "camera", "dfu:0483:df11")[0] == 0
    assert say("bench", "add", "imu", "stm32-uart:/dev/ttyUSB0?entry.reset=dtr&bus.baudrate=115200")[0] == 0
    after = file.read_bytes()
    assert after.startswith(before + b"\r\n\r\n[[component]]\r\n")
    assert b"\n" not in after.replace(b"\r\n", b"")
    assert (link.is_symlink(), file.stat().st_mode & 0o777) == (True, 0o640)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.toml", "fw.dfu", "real.toml"]
    made = load(link)
    assert (list(made.spec.bus), made.names) == (["usb", "ttyUSB0"], ("camera", "imu"))
    assert made.spec.bus["ttyUSB0"].settings == {"url": "/dev/ttyUSB0", "baudrate": 115200}


@pytest.mark.parametrize(
    ("text", "arguments", "status", "said"),
    [
        (ONE_CAMERA, ["imu", "dfu:1-4"], 12, "has a component 'imu'"),
        ("", ["a/b", "dfu:1-4"], 12, "'a/b' can't be a component's name"),
        ("", ["imu", "dfu:x"], 2, "E-TARGET-WRONG"),
        ("", ["imu", "usb"], 2, "E-TARGET-WRONG"),
        ("component = []\n", ["imu", "dfu:1-4"], 12, "in one value. Write each component under [[component]]"),
        ("unknown = 1\n", ["imu", "dfu:1-4"], 12, "unknown key unknown"),
        (
            '[bus.line]\nkind = "serial"\nurl = "/dev/ttyUSB0"\nbaudrate = 9600\n',
            ["imu", "stm32-uart:/dev/ttyUSB0?bus.baudrate=115200"],
            12,
            "bench.toml:1: bus 'line' is at this place, and its baudrate is not the target's",
        ),
        (
            ONE_CAMERA,
            ["camera", "dfu:0483:df11"],
            12,
            "component 'camera' is the same part as 'imu'",
        ),
    ],
)  # fmt: skip
def test_what_can_not_be_added_leaves_the_file(
    say: Callable[..., tuple[int, str, str]], tmp_path: Path, text: str, arguments: list[str], status: int, said: str
) -> None:
    file = tmp_path / "bench.toml"
    file.write_text(text)
    got, out, err = say("bench", "add", *arguments)
    assert (got, out, file.read_text()) == (status, "", text)
    assert said in err


def test_a_profile_with_paths_of_another_folder_is_not_added(
    say: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "vendor").mkdir()
    profile = tmp_path / "vendor" / "acme.toml"
    target = "uds:socketcan:can0?request=0x7E0"
    profile.write_text('security = {key = "library", library = {file = "keys.so"}}\n')
    status, _, err = say("bench", "add", "radar", target, "--profile", profile)
    assert (status, (tmp_path / "bench.toml").exists()) == (12, False)
    assert "Name the files by their whole paths" in err
    profile.write_text(f'security = {{key = "library", library = {{file = "{tmp_path}/vendor/keys.so"}}}}\n')
    assert say("bench", "add", "radar", target, "--profile", profile)[0] == 0
    # A key function lies beside the profile, and would not be found from the bench file on.
    (tmp_path / "vendor" / "ours.py").touch()
    profile.write_text('security = {key = "ours:front"}\n')
    assert say("bench", "add", "other", "uds:socketcan:can0?request=0x7E1", "--profile", profile)[0] == 12


def test_a_new_bench_file_shows_no_more_than_the_profile_did(
    say: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    profile = tmp_path / "acme.toml"
    profile.write_text(PROFILE)
    profile.chmod(0o600)
    assert say("bench", "add", "radar", "uds:socketcan:can0?request=0x7E0", "--profile", profile)[0] == 0
    assert (tmp_path / "bench.toml").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_can_not_be_locked_is_added_to(
    say: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert say("bench", "add", "camera", "dfu:0483:df11")[0] == 0


def test_a_profile_without_a_target_is_refused(say: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "bench.toml").write_text(ONE_CAMERA)
    (tmp_path / "acme.toml").write_text(PROFILE)
    status, _, err = say("scan", "--profile", "acme.toml")
    assert (status, "--profile goes with a target" in err) == (2, True)


def test_a_recording_of_too_many_targets_has_the_settings_of_none(
    say: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    own = "&bus.emulated=true&security.library.file=k.so&security.key=library&security.library.options="
    radars = [f"uds:socketcan:can{number}?request=0x700{own}option-{number}" for number in (1, 2)]
    assert say("record", "r.jsonl", "--", "scan", *radars)[0] == 2
    text = (tmp_path / "r.jsonl").read_text()
    assert ("can2" in text, "option-" in text) == (True, False)


# Behind a PTY and a served CAN bus, as hardware looks from here.


@pytest.mark.real_time("a PTY")
def test_the_lines_of_the_documents_work(wire: Callable[..., Wired]) -> None:
    wired = wire()
    port, bus = wired.imu.partition(":")[2], wired.radar.partition(":")[2].partition("?")[0]
    emulated = "&bus.emulated=true&pace=0&component.emulated.part=stm32f405-dfu"
    lines = [
        line
        for document in (ROOT / "README.md", ROOT / "docs" / "targets.md", ROOT / "docs" / "start-bench.md")
        for line in re.findall(
            r"^ {4}(proxyflash (?:scan|info|flash|bench add|doctor) .*)$", document.read_text(), re.MULTILINE
        )
        if re.search(r"/dev/ttyUSB0|can0|0483:df11", line)
    ]
    assert len(lines) >= 20
    for line in dict.fromkeys(lines):
        words = shlex.split(line.replace("entry.reset=dtr&entry.boot0=rts", "entry.reset=none"))[1:]
        words = [word.replace("/dev/ttyUSB0", port).replace("socketcan:can0", bus) for word in words]
        words = [re.sub("^(dfu:0483:df11)$", rf"\1?{emulated[1:]}", word) for word in words]
        words = [re.sub("^usb$", "usb?emulated=true", word) for word in words]
        status, out, err = wired.say(*words, *(["--yes", "--no-boot"] if words[0] == "flash" else []))
        assert status == 0, (line, out, err)
        if "add" in words:
            (wired.folder / "bench.toml").unlink()


@pytest.mark.real_time("a PTY")
def test_a_scan_of_buses_and_targets(wire: Callable[..., Wired]) -> None:
    wired = wire()
    port, bus = wired.imu.partition(":")[2], wired.radar.partition(":")[2].partition("?")[0]
    status, out, err = wired.say(
        "scan", f"{bus}?probe=true", f'{port}?quiet=0.1&ask=[{{protocol="stm32-uart"}}]', wired.radar
    )
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[:3] == ["can-sock (can)", "line-pty (serial)", "can-sock (can)"]
    assert re.match("  uds-can-sock-0x7E0-0x7E8  .* 1.4.2  ok  uds 0x7E0/0x7E8  serial RA-0019", lines[3])
    # What was found is a bench file.
    _, *found = out.split("Found, and not named; for a bench file, paste:\n")
    (wired.folder / "bench.toml").write_text("".join(found))
    assert wired.say("bench", "check", "--json")[0] == 0
    assert load(wired.folder / "bench.toml").names == ("ecu-7e8", "stm32f40x-f41x")


@pytest.mark.real_time("a PTY, and processes that are killed")
def test_the_same_command_goes_on_after_a_kill(wire: Callable[..., Wired], tmp_path: Path) -> None:
    wired = wire(pace=1.0)
    target = f"{wired.imu}?bus.baudrate=115200"
    command = wired.command("flash", target, "fw.hex", "--yes", "--jsonl")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        # However late this test reads, the flash is only a few events ahead.
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        written = 0
        for line in process.stdout:
            event = json.loads(line)
            if event["kind"] == "progress" and event.get("phase") == "write":
                written = event["done"]
                # The lock is the same from another folder, with another setting.
                if written > 24_000:
                    process.send_signal(signal.SIGSTOP)
                    other = wired.command("info", f"{wired.imu}?group=x")
                    done = subprocess.run(other, cwd=tmp_path, capture_output=True, text=True, timeout=600)
                    assert (done.returncode, done.stderr.split()[0]) == (6, "E-BENCH-LOCKED")
                    assert f"process {process.pid}" in done.stderr
                    process.kill()
                    break
    assert written > 24_000
    time.sleep(1.0)
    status, out, err = wired.say("flash", target, "fw.hex", "--yes", "--json")
    assert status == 0, err
    assert json.loads(out)["written_bytes"] < 40_000


@pytest.mark.real_time("a PTY")
def test_a_stopped_flash_says_the_command_that_goes_on(wire: Callable[..., Wired]) -> None:
    wired = wire(pace=1.0)
    target = f"{wired.imu}?bus.baudrate=115200&answer=2"
    process = subprocess.Popen(
        wired.command("flash", target, "fw.hex", "--yes", "--jsonl"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if '"write"' in line:
            process.send_signal(2)
            break
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 10, out
    again = re.search(r'"remedy": ?"It goes on with what is missing: (proxyflash .*?)\.?"', out)
    assert again is not None
    assert shlex.split(again[1])[1:] == wired.command("flash", target, "fw.hex", "--yes", "--jsonl")[1:]
    assert f"'{target}'" in again[1]


# Completion


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("st", ["stk500v1:", "stk500v2:", "stm32-can:", "stm32-fdcan:", "stm32-uart:"]),
        ("stm32-uart:", ["stm32-uart:/dev/ttyUSB0"]),
        ("stm32-uart:/dev/ttyUSB0?entry.reset_", ["stm32-uart:/dev/ttyUSB0?entry.reset_asserted="]),
        ("stm32-uart:/dev/ttyUSB0?bus.bau", ["stm32-uart:/dev/ttyUSB0?bus.baudrate="]),
        ("uds:socketcan:can0?reques", ["uds:socketcan:can0?request="]),
        ("dfu:1-4?group=a&flav", ["dfu:1-4?group=a&flavour="]),
        ("dfu:1-4?flavour=", ["dfu:1-4?flavour=auto", "dfu:1-4?flavour=dfu", "dfu:1-4?flavour=dfuse"]),
        ("dfu:x?fl", []),
        ("nothing:x?fl", []),
    ],
)
def test_a_target_is_completed(start: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # A device can have any name; a shell would obey some.
    monkeypatch.setattr(serial_host, "ports", lambda: iter(["/dev/ttyUSB0", "/dev/serial/by-id/usb-$(x)"]))
    assert [item.value for item in targets(start)] == words


def test_a_bus_is_completed_for_a_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial_host, "ports", lambda: iter(["/dev/ttyUSB0"]))
    assert [item.value for item in targets("us", whole_bus=True)] == ["usb"]
    assert [item.value for item in targets("/dev/t", whole_bus=True)] == ["/dev/ttyUSB0"]
    assert [item.value for item in targets("/dev/t")] == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        # bash replaces only what follows the last ":" or "=", unless the word is in quotes.
        ("proxyflash info dfu:1-4?flavour=dfus", "dfuse"),
        ("proxyflash info dfu:1-4?flavou", "1-4?flavour="),
        ("proxyflash info 'dfu:1-4?group=a&flavour=dfus", "dfu:1-4?group=a&flavour=dfuse"),
    ],
)
def test_bash_is_told_what_it_replaces(line: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    complete = BashTargets(cli, {}, "proxyflash", "_PROXYFLASH_COMPLETE")
    arguments, incomplete = complete.get_completion_args()
    assert arguments == ["info"]
    assert [complete.format_completion(item) for item in targets(incomplete)] == [f"plain,{told}"]


@pytest.mark.real_time("shells")
def test_bash_itself_completes_a_target(desk: Desk) -> None:
    script = f"""
    export PATH={PROGRAM.parent}:$PATH
    eval "$(_PROXYFLASH_COMPLETE=bash_source proxyflash)"
    COMP_LINE='proxyflash flash stm32-uart:/dev/ttyUSB0?entry.boot0_'; COMP_POINT=${{#COMP_LINE}}
    COMP_WORDS=(proxyflash flash stm32-uart : /dev/ttyUSB0?entry.boot0_) COMP_CWORD=4
    _proxyflash_completion proxyflash /dev/ttyUSB0?entry.boot0_ :
    echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=desk.folder, capture_output=True, text=True, timeout=600
    )
    assert done.stdout.splitlines()[-1] == "/dev/ttyUSB0?entry.boot0_asserted=", done


@pytest.mark.simulated_time
def test_a_slot_is_read_into_a_dfu_file_as_dfu_suffix_makes_it(
    say: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """DFU 1.1, appendix B: no addresses, the ids of DFU mode."""
    slot = "dfu:1209:df01?bus.emulated=true&pace=0&component.emulated.part=slot-dfu&component.emulated.boot=dfu"
    for name in ("own.dfu", "raw.bin"):
        status, _, err = say("read", slot, name, "--start", "0", "--size", "0x100")
        assert status == 0, err
    made = tmp_path / "raw.dfu"
    made.write_bytes(Path("raw.bin").read_bytes())
    subprocess.run(["dfu-suffix", "-v", "0x1209", "-p", "0xdf01", "-a", made], check=True, capture_output=True)
    assert Path("own.dfu").read_bytes() == made.read_bytes()
    assert say("flash", slot, "own.dfu", "--dry-run")[0] == 0


@pytest.mark.simulated_time
def test_an_emulated_part_runs_its_application_where_its_target_looks_for_it(
    say: Callable[..., tuple[int, str, str]],
) -> None:
    shutil.copy(EXAMPLE / "firmware" / "camera-1.4.2.bin", "app.bin")
    for more in ("", "&runtime_vendor_id=0x1209&runtime_product_id=0x0C24"):
        camera = f"dfu:0483:df11?bus.emulated=true&pace=0&component.emulated.part=stm32f405-dfu{more}"
        assert say("flash", camera, "app.bin", "--address", "0x08000000", "--yes")[0] == 0
        status, out, err = say("info", camera)
        assert status == 0, err
        assert "  ok  dfu 0483:df11" in out
        assert say("verify", camera, "app.bin", "--address", "0x08000000")[0] == 0
