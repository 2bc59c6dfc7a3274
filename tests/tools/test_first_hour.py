"""What a new user reads: messages that name the next thing to do, and nothing that isn't there."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from types import SimpleNamespace

import can
import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.benchfile.schema import load
from proxyflash.enumerators.component import Presence
from proxyflash.enumerators.errors import BenchKey, BenchSyntax
from proxyflash.enumerators.scan import scan
from proxyflash.flashers.flasher import Identity
from proxyflash.flashers.programmer import FlashResult
from proxyflash.flashers.smp.codec import Group, ImageCommand, OsCommand, request_name
from proxyflash.tools.commands import doctor as doctor_module
from proxyflash.tools.commands import emulate as emulate_module
from proxyflash.tools.commands.help import topics
from proxyflash.tools.commands.programming import verdict
from proxyflash.tools.commands.session import Session
from proxyflash.tools.output import Output
from proxyflash.transports import clock
from proxyflash.transports.can import host as can_host
from proxyflash.transports.can.opening import opening_error
from proxyflash.transports.errors import AdapterBusy, AdapterForbidden, SerialAbsent, SerialBusy, SerialForbidden
from proxyflash.transports.serial.host import permission_remedy
from proxyflash.transports.serial.opening import open_port

from .conftest import Desk

ROOT = Path(__file__).parents[2]
PACKAGES = ("enumerators", "flashers", "updates", "transports", "tools", "emulators", "hil_tests")


# help


def test_each_page_that_a_message_names_is_printed(desk: Desk) -> None:
    named = set()
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            text = file.read_text()
            named |= set(re.findall(r"proxyflash help ([a-z0-9-]+)", text))
            assert not re.search(r"remedy.*docs/", text), file
    assert "bench-file" in named
    assert named - {"bench-fil"} <= set(topics())
    done = desk.run("help", "bench-file")
    assert (done.status, done.err) == (0, "")
    assert done.out == (ROOT / "docs" / "bench-file.md").read_text()


def test_the_pages_are_listed(desk: Desk) -> None:
    done = desk.run("help")
    assert done.status == 0
    assert [line.split()[0] for line in done.out.splitlines()] == sorted(
        page.stem for page in (ROOT / "docs").glob("*.md")
    )
    assert desk.run("--json", "help").document["topics"]["bench-file"] == "The bench file"


def test_a_wrong_word_gets_a_near_one(desk: Desk) -> None:
    done = desk.run("help", "benchfile")
    assert (done.status, "Did you mean 'bench-file'?" in done.err) == (2, True)
    done = desk.run("flsh", "imu", "x.hex")
    assert (done.status, "No such command 'flsh'. Did you mean 'flash'?" in done.err) == (2, True)
    assert "Did you mean" not in desk.run("qqqqqq").err
    done = desk.run("bench", "chekc")
    assert (done.status, "No such command 'chekc'. Did you mean 'check'?" in done.err) == (2, True)


@pytest.mark.parametrize("group", ["adu", "bench", "manifest", "service", "vm"])
def test_the_help_of_a_group_is_not_cut(desk: Desk, group: str) -> None:
    done = desk.run(group, "--help")
    assert (done.status, "..." in done.out.partition("Commands:")[2]) == (0, False), done.out


# verdicts


def test_where_no_version_is_known_there_is_no_arrow() -> None:
    known = FlashResult("imu", Identity(), 0, 512, "read back", "1.5.0", True, 1.0)
    assert verdict(known) == "imu  -> 1.5.0  OK  verified (read back), booted"
    unknown = FlashResult("imu", Identity(), 0, 512, "read back", None, True, 1.0)
    assert verdict(unknown) == "imu  OK  verified (read back), booted"


def test_what_goes_on_with_a_full_flash_is_one_that_skips_what_is_there() -> None:
    assert Session(("flash", "imu", "a b.hex", "--full"), Output()).goes_on == "proxyflash flash imu 'a b.hex'"


# scan


@pytest.mark.parametrize(
    ("error", "presence"),
    [(SerialBusy, Presence.UNKNOWN), (SerialForbidden, Presence.UNKNOWN), (SerialAbsent, Presence.ABSENT)],
)
def test_behind_a_port_that_is_not_ours_nobody_is_said_to_be_absent(
    error: type[AdapterBusy] | type[AdapterForbidden], presence: Presence, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(bus: str) -> None:
        raise error("the port")

    with Bench.open(desk.bench, state=desk.state) as bench:
        monkeypatch.setattr(bench, "prober", refuse)
        assert {component.presence for component in scan(bench).components} == {presence}


# the bench file


@pytest.mark.parametrize(("times", "kind"), [(1, BenchKey), (2, BenchSyntax)])
def test_a_component_in_single_brackets(times: int, kind: type[Exception], tmp_path: Path) -> None:
    (tmp_path / "bench.toml").write_text('[component]\nname = "a"\n' * times)
    with pytest.raises(kind, match=rf"bench\.toml:{2 * times - 1}: .*\[\[component\]\]"):
        load(tmp_path / "bench.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[bus]]\nkind = "can"\n', "1: bus is not a list, and holds tables alone; write [bus.NAME] for each bus"),
        ('[[bus.a]]\nkind = "usb"\n', "1: bus is not a list, and holds tables alone; write [bus.NAME] for each bus"),
        ('[bus]\nkind = "can"\n', "2: bus is not a list, and holds tables alone; write [bus.NAME] for each bus"),
        ("[[profile]]\nx = 1\n", "write [profile.NAME] for each profile"),
        ("[[power]]\nx = 1\n", "write [power.NAME] for each power"),
        ('[bus.a]\nkind = "usb"\n[bus.a]\n', "3: [bus.a] stands there twice"),
        (
            '[[component]]\nname = "a"\n[component.profile]\n[component.profile]\n',
            "[component.profile] stands there twice",
        ),
        ("[bus.a]\nkind = can\n", "2: invalid value: a text stands between straight quotes"),
        ("[bus.a]\nurl = /dev/ttyS0\n", "a text stands between straight quotes"),
        ("[bus.a]\nkind = \u201ccan\u201d\n", "a text stands between straight quotes"),
    ],
)
def test_how_tables_and_texts_are_written(text: str, said: str, desk: Desk) -> None:
    desk.bench.write_text(text)
    done = desk.run("bench", "check")
    assert (done.status, said in done.err) == (12, True), done.err


# doctor, and what it is asked for


def test_a_port_of_root_alone_gets_its_udev_line(tmp_path: Path) -> None:
    (tmp_path / "ttyS9").touch()
    remedy = permission_remedy(str(tmp_path / "ttyS9"))
    assert 'SUBSYSTEM=="tty", KERNEL=="ttyS9", GROUP="dialout", MODE="0660"' in remedy
    assert "sudo usermod -aG dialout $USER" in remedy
    assert "doctor" not in remedy


def test_doctor_sends_nobody_to_doctor(desk: Desk) -> None:
    cut = doctor_module._without_itself
    assert cut("Is it plugged in? Run: proxyflash doctor") == "Is it plugged in?"
    assert cut("Run: proxyflash doctor, which prints the udev line.") == (
        "The lines above show what this host has, and how to install what is missing."
    )
    desk.bench.write_text('[bus.b]\nkind = "can"\ninterface = "socketcan"\nchannel = "can77"\n')
    done = desk.run("doctor", "b")
    assert done.status == 1
    assert "proxyflash doctor" not in done.out
    assert re.search(r"^\d+ problems?(;|$)", done.out.splitlines()[-1])


def test_doctor_says_that_there_is_no_problem(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "_kinds", lambda: iter(()))
    monkeypatch.setattr(doctor_module, "_packages", lambda: iter(()))
    done = desk.run("doctor")
    assert (done.status, done.out.splitlines()[-1]) == (0, "no problem")


@pytest.mark.parametrize(("flags", "state"), [("0x1003", "up"), ("0x1002", "down")])
def test_a_virtual_interface_is_up_or_down(
    flags: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its operstate is "unknown" when it is up (Linux, Documentation/networking/operstates.rst)."""
    folder = tmp_path / "vcan0"
    folder.mkdir()
    for name, text in {"type": "280", "operstate": "unknown", "flags": flags}.items():
        (folder / name).write_text(text + "\n")
    monkeypatch.setattr(can_host, "NET", tmp_path)
    monkeypatch.setattr(socket, "socket", lambda *arguments: SimpleNamespace(close=lambda: None))
    check = list(can_host.checks())[-1]
    assert (check.title, check.passed) == (f"CAN interface vcan0 is {state}", state == "up")
    assert check.fix == "sudo ip link set dev vcan0 up"


def test_a_package_that_python_can_wants_is_named() -> None:
    missing = can.CanInterfaceNotImplementedError("no gs_usb")
    assert opening_error("b", "gs_usb", "0", missing).remedy == "Run: pip install 'python-can[gs-usb]'"


def test_a_server_that_refuses_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with clock.use(clock.SystemClock()), pytest.raises(SerialAbsent) as caught:
        open_port({"url": f"socket://127.0.0.1:{port}"})
    assert caught.value.remedy == "Does its server run, and are its host and port right?"


def test_a_request_of_smp_has_a_name() -> None:
    assert request_name(Group.OS, OsCommand.ECHO) == "SMP's echo"
    assert request_name(Group.IMAGE, ImageCommand.STATE) == "SMP's image state"


# emulate


@pytest.mark.real_time("pseudo-terminals")
def test_what_emulate_prints_can_be_pasted_elsewhere(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = clock.Event()
    ended.set()
    monkeypatch.setattr(emulate_module, "_interrupt", lambda: ended)
    monkeypatch.chdir(desk.folder)
    desk.state = Path("relative")
    desk.bench.write_text('[bus.line]\nkind = "serial"\nemulated = true\n')
    paths = [bus["path"] for bus in desk.run("--json", "emulate").document["served"].values()]
    assert all(path.startswith("/") for path in paths if path)
    assert any(paths)


# the next command


@pytest.mark.parametrize(
    ("arguments", "commands"),
    [
        (("info", "imx"), ("scan",)),
        (("report", "7"), ("history",)),
        (("apply", "update/update.importmanifest.json"), ("scan", "flash imu")),
    ],
)
def test_a_command_that_a_remedy_names_is_for_the_same_bench(
    desk: Desk, arguments: tuple[str, ...], commands: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typed as it stands, it must not look at another bench or another state folder."""
    monkeypatch.chdir(desk.folder)
    desk.edit(('part = "stm32f405xg"', 'part = "stm32f405xg", mute = true'))
    err = desk.run(*arguments).err
    for command in commands:
        assert f"proxyflash --bench {desk.bench} --state {desk.state} {command}" in err, err
