"""`flash`, `verify`, `read`, `erase`, `reset`, `info`: on emulated parts, and on a port that is real from here."""

from __future__ import annotations

import codecs
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxyflash.flashers.formats import load

from .conftest import NEW, Desk, Hardware

OLD_FILE = {"imu": "imu-1.4.2.bin", "front-radar": "radar-1.4.2.bin", "camera": "camera-1.4.2.bin"}


@pytest.mark.parametrize("component", list(NEW))
def test_a_flash_ends_with_what_was_read_back(desk: Desk, component: str) -> None:
    done = desk.run("flash", component, desk.image(component))
    assert done.status == 0
    plan, verdict = done.out.splitlines()
    assert plan.startswith(f"{component}  plan    ")
    assert re.fullmatch(rf"{component}  -> 1\.5\.0  OK  verified \(.+\), booted", verdict)
    assert desk.seen()[component] == "1.5.0"
    memory = next(data for name, data in desk.memory().items() if name == f"{component}.flash")
    assert bytes(load(desk.image(component)).segments[0].data) in memory


def test_the_same_again_writes_nothing_unless_told_to(desk: Desk) -> None:
    assert desk.run("flash", "imu", desk.image("imu")).status == 0
    again = desk.run("flash", "imu", desk.image("imu"), "--json").document
    assert (again["erased_bytes"], again["written_bytes"], again["version"]) == (0, 0, "1.5.0")
    assert "nothing to write" in desk.run("flash", "imu", desk.image("imu")).out
    assert desk.run("flash", "imu", desk.image("imu"), "--full", "--json").document["written_bytes"] > 0


def test_a_dry_run_plans_and_writes_nothing(desk: Desk) -> None:
    seen, before = desk.seen(), desk.memory()
    done = desk.run("flash", "imu", desk.image("imu"), "--dry-run")
    assert (done.status, done.out.splitlines()[-1]) == (0, "imu  dry run: nothing was written")
    assert "plan" in done.out
    assert (desk.seen(), desk.memory()) == (seen, before)


def test_no_verify_says_so(desk: Desk) -> None:
    done = desk.run("flash", "camera", desk.image("camera"), "--no-verify")
    assert done.out.splitlines()[-1] == "camera  -> 1.5.0  OK  NOT verified (--no-verify), booted"


def test_no_boot_says_so(desk: Desk) -> None:
    assert desk.run("flash", "imu", desk.image("imu"), "--no-boot").out.endswith(", not booted\n")


def test_another_version_than_expected(desk: Desk) -> None:
    done = desk.run("flash", "imu", desk.image("imu"), "--expect-version", "1.6.0")
    assert done.status == 8
    assert done.err.splitlines()[-1].startswith("E-VERSION-MISMATCH imu: ")
    assert "OK" not in done.out


def test_a_raw_binary_goes_where_it_is_told_to(desk: Desk) -> None:
    file = desk.folder / "firmware" / "imu-1.4.2.bin"
    assert desk.run("flash", "imu", desk.image("imu")).status == 0
    done = desk.run("flash", "imu", file, "--address", "0x0800_0000")
    assert (done.status, desk.seen()["imu"]) == (0, "1.4.2")


def test_verify_compares_and_lets_the_part_run(desk: Desk) -> None:
    assert desk.seen()["imu"] == "1.4.2"
    before = desk.memory()
    done = desk.run("verify", "imu", desk.image("imu"))
    assert done.status == 8
    assert re.search(r"^E-VERIFY-MISMATCH imu: at 0x080\w{5} ", done.err, re.MULTILINE)
    assert re.search(
        rf"To write it: proxyflash .*flash imu {re.escape(str(desk.image('imu')))}$", done.err, re.MULTILINE
    )
    assert "same command" not in done.err
    old = desk.folder / "firmware" / OLD_FILE["imu"]
    done = desk.run("verify", "imu", old, "--address", "0x08000000")
    assert (done.status, done.out) == (0, "imu  OK  holds imu-1.4.2.bin  (read back)\n")
    assert desk.memory() == before


@pytest.mark.parametrize("component", ["imu", "camera"])
def test_read_gives_the_bytes_that_the_part_was_made_with(desk: Desk, component: str) -> None:
    made = (desk.folder / "firmware" / OLD_FILE[component]).read_bytes()
    out = desk.folder / "out.bin"
    done = desk.run("read", component, out, "--start", "0x08000000", "--size", str(len(made)))
    assert done.out == f"{component}  OK  {len(made):,} bytes into {out}\n"
    assert out.read_bytes() == made


def test_read_picks_the_format_by_the_ending(desk: Desk) -> None:
    for name, head in (("out.hex", b":"), ("out.s19", b"S0"), ("out.dfu", b"DfuSe")):
        out = desk.folder / name
        assert desk.run("read", "camera", out, "--start", "0x08000000", "--size", "0x400").status == 0
        assert out.read_bytes().startswith(head)


def test_an_erased_part_is_in_its_bootloader_and_comes_back(desk: Desk) -> None:
    done = desk.run("erase", "camera")
    assert (done.status, done.out) == (0, "camera  OK  1,048,576 bytes erased; it is in its bootloader\n")
    assert desk.seen()["camera"] == "bootloader"
    assert desk.run("flash", "camera", desk.image("camera")).status == 0
    assert desk.seen()["camera"] == "1.5.0"


def test_erase_takes_whole_units(desk: Desk) -> None:
    done = desk.run("erase", "imu", "--start", "0x08004001", "--size", "1", "--json")
    # The second sector of an STM32F405: 16 KiB (RM0090, 3.3).
    assert done.document["erased_bytes"] == 16384


@pytest.mark.parametrize("words", [("erase", "imu"), ("read", "imu", "page.bin")])
def test_a_range_outside_of_the_memories_names_them_and_the_named_range_works(
    desk: Desk, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk.folder)
    done = desk.run(*words, "--start", "0x10", "--size", "0x400")
    assert (done.status, done.err.split()[0]) == (2, "E-UNSUPPORTED")
    found = re.search(r"within one of its memories: flash from (0x08000000) to 0x[0-9A-F]{8}", done.err)
    assert found is not None, done.err
    assert desk.run(*words, "--start", found[1], "--size", "0x400").status == 0


def test_reset_waits_for_the_application(desk: Desk) -> None:
    assert desk.run("reset", "imu").out == "imu  -> 1.4.2  OK  power cycled\n"
    assert desk.run("erase", "imu", "--start", "0x08000000", "--size", "4").status == 0
    desk.edit(('match = "FW ([0-9.]+)"}', 'match = "FW ([0-9.]+)"}\nboot_timeout = 0.2'))
    done = desk.run("reset", "imu")
    assert done.status == 11
    assert done.err.startswith("E-PART-NOT-BACK imu: ")


def test_info_knows_the_part_and_its_memory(desk: Desk) -> None:
    done = desk.run("info", "imu", "--json")
    document = done.document
    assert document["identity"]["serial"] == "0031002f3238510533363831"
    flash = document["memory"][0]
    # STM32F405xG: 1 MiB in 4 x 16, 1 x 64 and 7 x 128 KiB (RM0090, table 5).
    assert (flash["start"], flash["size"]) == (0x08000000, 1 << 20)
    runs = [(run["count"], run["size"] // 1024) for run in flash["erase_units"]]
    assert runs == [(4, 16), (1, 64), (7, 128)]
    text = desk.run("info", "imu").out
    assert text.splitlines()[0] == "imu  ok  stm32-uart"
    assert desk.seen()["imu"] == "1.4.2"


SUITE = Path(__file__).parents[2] / "hil_tests" / "benches"
ERASED = {  # By its bench: a part of each protocol that erases by command, which then stays in its bootloader.
    "front-radar": "emulated", "imu": "emulated", "camera": "emulated", "sonar": "serial", "valves": "serial",
}  # fmt: skip


@pytest.mark.parametrize("component", ERASED)
def test_info_of_a_part_in_its_bootloader_says_why_a_version_is_not_known(desk: Desk, component: str) -> None:
    """Whatever a scan could see of it: the bootloader has answered."""
    desk.bench = SUITE / f"{ERASED[component]}.toml"
    assert desk.run("erase", component, "--yes").status == 0
    done = desk.run("info", component)
    assert (done.status, done.err) == (0, "")
    assert done.out.split()[:2] == [component, "bootloader"]
    found = desk.run("info", component, "--json").document
    assert (found["component"]["presence"], found["identity"]["version"]) == ("bootloader", "")
    assert re.search(r"\n  version +not known: .*bootloader.* does not report one", done.out)
    assert found["unknown"]["version"] in done.out
    assert re.search(r"\n  bootloader +(?!not known)\w", done.out)


@pytest.mark.parametrize("component", ["imu", "sonar", "scale"])
def test_info_of_a_part_without_a_version_question_names_the_question(desk: Desk, component: str) -> None:
    bench = SUITE / ("emulated.toml" if component == "imu" else "serial.toml")
    desk.bench.write_text(
        re.sub(r"(?m)^version = .*$", "", bench.read_text()).replace('"firmware/', f'"{SUITE}/firmware/')
    )
    done = desk.run("info", component)
    assert (done.status, done.out.split()[:2]) == (0, [component, "bootloader"])
    assert "With version.send and version.match of its component its application is asked" in done.out
    # The keys are those that the bench file takes.
    desk.bench.write_text(
        re.sub(
            rf'(?m)^name = "{component}"$',
            rf'name = "{component}"\nversion.send = "VER?\\r"\nversion.match = "FW ([0-9.]+)"',
            desk.bench.read_text(),
        )
    )
    assert re.search(r"\n  version +1\.4\.2\n", desk.run("info", component).out)


@pytest.mark.parametrize("component", ["imu", "sonar", "valves", "scale"])
def test_a_bootloader_that_may_be_asked_is_silent_while_the_application_runs(desk: Desk, component: str) -> None:
    """`probe = true` without a `version`: a part that runs is not called absent, and no good flash a failed one."""
    bench = SUITE / ("emulated.toml" if component == "imu" else "serial.toml")
    text = re.sub(r"(?m)^version = .*$", "", bench.read_text()).replace(
        "baudrate = 115_200", "baudrate = 115_200\nprobe = true"
    )
    desk.bench.write_text(text.replace('"firmware/', f'"{SUITE}/firmware/'))
    (new,) = (SUITE / "firmware").glob(f"{component}-1.5.0.*")
    done = desk.run("flash", component, new)
    assert (done.status, done.err) == (0, "")
    verdict = done.out.splitlines()[-1]
    assert verdict.startswith(f"{component}  OK  ")
    assert verdict.endswith(", booted")
    assert desk.seen()[component] in ("unknown", "bootloader")  # The latter in its seconds after the start.
    if component != "valves":
        said = desk.run("scan").out
        assert (
            f"{component}: its application was not asked: version = {{send = ..., match = ...}} lets scan ask" in said
        )


# Real hardware, as far as the command line can tell.


class Terminal:
    """A person's end of a terminal on which a command runs; its stdout is caught apart."""

    def __init__(self, desk: Desk, *arguments: str | Path, term: str = "xterm") -> None:
        self._master, slave = pty.openpty()
        self.process = desk.start(*arguments, stdin=slave, stderr=slave, env=os.environ | {"TERM": term})
        os.close(slave)
        self.text = ""
        self._decoded = codecs.getincrementaldecoder("utf-8")().decode

    def until(self, words: str) -> None:
        while words not in self.text:
            self.text += self._decoded(os.read(self._master, 4096))

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=600)
        try:
            while data := os.read(self._master, 4096):
                self.text += self._decoded(data)
        except OSError:
            pass  # the other end is closed
        return self.process.returncode, out

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self._master)


@pytest.fixture
def terminal(hardware: Hardware, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    made = Terminal(
        hardware.host, "flash", "imu", hardware.server.image("imu"), term=getattr(request, "param", "xterm")
    )
    yield made
    made.close()


QUESTION = "erase 48 KiB of imu and write imu-1.5.0.hex? [y/N]: "


@pytest.mark.real_time("a child program at a pseudo-terminal")
def test_a_yes_at_the_terminal(hardware: Hardware, terminal: Terminal) -> None:
    terminal.until(QUESTION)
    before = hardware.server.memory()
    terminal.type("y\n")
    status, out = terminal.end()
    assert (status, out.splitlines()[-1]) == (0, "imu  -> 1.5.0  OK  verified (read back), booted")
    assert "imu  write   " in terminal.text
    assert hardware.host.seen() == {"imu": "1.5.0"}
    assert hardware.server.memory() != before


@pytest.mark.parametrize("terminal", ["xterm", "dumb"], indirect=True)
@pytest.mark.parametrize("answer", ["n", "", "Ctrl-C", "end of file"])
@pytest.mark.real_time("a child program at a pseudo-terminal")
def test_a_no_at_the_terminal_leaves_the_part_as_it_was(hardware: Hardware, terminal: Terminal, answer: str) -> None:
    before = hardware.server.memory()
    terminal.until(QUESTION)
    if answer == "Ctrl-C":
        terminal.process.send_signal(signal.SIGINT)
    else:
        terminal.type("\x04" if answer == "end of file" else f"{answer}\n")
    status, out = terminal.end()
    assert status == 130
    assert "E-CANCELLED imu: not confirmed; nothing was changed." in terminal.text
    assert "OK" not in out
    assert hardware.server.memory() == before
    assert hardware.in_bootloader()


@pytest.mark.parametrize("terminal", ["dumb"], indirect=True)
@pytest.mark.real_time("a child program at a pseudo-terminal")
def test_a_dumb_terminal_gets_no_escape_codes(terminal: Terminal) -> None:
    terminal.until(QUESTION)
    terminal.type("y\n")
    assert terminal.end()[0] == 0
    assert "\x1b" not in terminal.text


@pytest.mark.real_time("a child program at a pseudo-terminal")
def test_yes_asks_nobody(hardware: Hardware) -> None:
    command = hardware.host.command("flash", "imu", hardware.server.image("imu"), "--yes")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    assert hardware.host.seen() == {"imu": "1.5.0"}
    assert bytes(load(hardware.server.image("imu")).segments[0].data) in hardware.server.memory()["imu.flash"]


@pytest.mark.real_time("a child program at a pseudo-terminal")
def test_a_dry_run_asks_nobody(hardware: Hardware) -> None:
    before = hardware.server.memory()
    done = hardware.host.run("flash", "imu", hardware.server.image("imu"), "--dry-run")
    assert (done.status, hardware.server.memory()) == (0, before)
    assert hardware.in_bootloader()


@pytest.mark.real_time("a child program at a pseudo-terminal")
def test_a_dry_run_leaves_an_application_running(hardware: Hardware) -> None:
    """Nothing here brings it into its bootloader: it says so, and goes on running."""
    assert hardware.host.run("reset", "imu").status == 0
    before = hardware.server.memory()
    done = hardware.host.run("flash", "imu", hardware.server.image("imu"), "--dry-run")
    assert (done.status, done.err.split()[0], hardware.server.memory()) == (4, "E-PART-MUTE", before)
    assert hardware.host.seen() == {"imu": "1.4.2"}
    assert not hardware.in_bootloader()
