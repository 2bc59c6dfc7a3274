"""`service install`: its unit passes systemd's own check, runs `resume` on the right bench, and is taken away again."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from proxyflash.enumerators.state import bench_folder
from proxyflash.tools import commands
from proxyflash.transports.quoting import systemd_word

from .. import peers
from .conftest import Desk

UNIT = "etc/systemd/system/proxyflash-resume.service"
ENABLED = "etc/systemd/system/multi-user.target.wants/proxyflash-resume.service"
RULES = "etc/udev/rules.d/70-proxyflash.rules"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command finds the host's folders."""
    folder = tmp_path / "root"
    monkeypatch.setattr("proxyflash.tools.commands.service.ROOT", folder)
    return folder


def settings(text: str, section: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False, delimiters="=", comment_prefixes="#")
    parser.read_string(text)
    return dict(parser[section])


def test_it_is_written_and_taken_away(desk: Desk, root: Path) -> None:
    assert desk.run("service", "install", "--user", "daemon").status == 0
    found = settings((root / UNIT).read_text(), "Service")
    assert shlex.split(found["execstart"])[0] == sys.executable
    assert shlex.split(found["execstart"])[-3:] == ["resume", "--wait", "600"]
    assert (found["user"], found["restart"]) == ("daemon", "on-failure")
    assert {"6", "10"}.isdisjoint(found["restartpreventexitstatus"].split())
    assert {"1", "8", "9", "12"} <= set(found["restartpreventexitstatus"].split())
    # A run may wait for parts: the start of the host goes on meanwhile.
    assert found["type"] == "exec"
    assert "network.target" in (root / UNIT).read_text()
    assert (root / ENABLED).readlink() == root / UNIT
    assert 'ATTR{idVendor}=="1209", ATTR{idProduct}=="0c24"' in (root / RULES).read_text()
    # Doing it again is not a fault. What root doesn't need is gone.
    assert desk.run("service", "install").status == 0
    assert not (root / RULES).exists()
    assert "user" not in settings((root / UNIT).read_text(), "Service")
    assert desk.run("service", "uninstall").status == 0
    assert [path for path in root.rglob("*") if not path.is_dir()] == []
    assert desk.run("service", "uninstall").out == "the service is not installed\n"


@pytest.mark.parametrize("runs", [True, False])
def test_it_says_whether_systemd_is_the_running_init(
    desk: Desk, root: Path, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    """As sd_booted(3) has it: /run/systemd/system is a folder."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    if runs:
        (root / "run/systemd/system").mkdir(parents=True)
    done = desk.run("service", "install")
    assert (done.status, (root / UNIT).is_file(), (root / ENABLED).is_symlink()) == (0, True, True)
    assert ("systemd is not the running init" in done.out, "from the next start" in done.out) == (not runs, runs)
    said = f"-m proxyflash.tools --bench {desk.bench} --state {desk.state} resume --wait 600"
    assert (said in done.err, "systemctl daemon-reload" in done.err) == (not runs, runs)
    assert desk.run("service", "install", "--json").document["systemd"] is runs


@pytest.mark.real_time("a program")
def test_what_another_init_is_to_run_works_from_any_folder(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the command that installs it was given relative paths."""
    monkeypatch.chdir(desk.folder)
    done = desk.run("--bench", "bench.toml", "--state", "state", "service", "install")
    words = shlex.split(done.err.rpartition("at each start: ")[2])
    ran = subprocess.run(
        words, capture_output=True, text=True, timeout=600, cwd="/", env={"PATH": "/usr/sbin:/usr/bin"}
    )
    assert (ran.returncode, ran.stdout) == (0, "nothing to resume: no update is unfinished\n"), ran.stderr


def test_what_somebody_else_wrote_stays(desk: Desk, root: Path) -> None:
    (root / UNIT).parent.mkdir(parents=True)
    (root / UNIT).write_text("[Unit]\n")
    for command in ("install", "uninstall"):
        done = desk.run("service", command)
        assert (done.status, done.err.split()[0]) == (1, "E-TARGET")
    assert (root / UNIT).read_text() == "[Unit]\n"


def test_print_writes_nothing(desk: Desk, root: Path) -> None:
    done = desk.run("service", "install", "--print")
    assert (done.status, done.out.splitlines()[0]) == (0, f"# {root / UNIT}")
    assert not root.exists()


def test_an_unknown_user(desk: Desk) -> None:
    done = desk.run("service", "install", "--print", "--user", "nobody-here")
    assert (done.status, done.err.split()[0]) == (4, "E-ACCOUNT")
    assert done.err.endswith("sudo useradd --system nobody-here\n")


def test_words_of_systemd() -> None:
    """As systemd.syntax(7), systemd.unit(5) and systemd.service(5) have it."""
    assert systemd_word('a b"c\\d%n') == '"a b\\"c\\\\d%%n"'
    assert systemd_word("$HOME\n", argument=True) == '"$$HOME\\x0a"'
    assert systemd_word("/srv/$HOME\udcff") == '"/srv/$HOME\\xff"'


@pytest.mark.real_time("a program")
@pytest.mark.parametrize("name", ["plain", "a b%n $X;'\"x"])
def test_it_begins_once_the_bench_has_a_folder(desk: Desk, tmp_path: Path, root: Path, name: str) -> None:
    analyze = peers.installed("systemd-analyze", "systemd")
    folder = desk.folder.rename(tmp_path / name)
    arguments = ["--bench", str(folder / "bench.toml"), "--state", str(folder / "state")]
    assert commands.run([*arguments, "service", "install", "--user", "daemon"]) == 0
    (condition,) = [line for line in (root / UNIT).read_text().splitlines() if line.startswith("Condition")]
    check = [analyze, "condition", condition]
    assert subprocess.run(check, capture_output=True, timeout=60).returncode != 0
    bench_folder(folder / "state", folder / "bench.toml").mkdir(parents=True)
    assert subprocess.run(check, capture_output=True, timeout=60).returncode == 0


def test_a_path_that_no_line_holds_has_no_condition(desk: Desk) -> None:
    done = desk.run("--state", "a\nb", "service", "install", "--print")
    assert done.status == 0
    assert "Condition" not in done.out


@pytest.mark.real_time("a program")
@pytest.mark.parametrize("user", ["root", "daemon"])
@pytest.mark.parametrize("name", ["plain", "a b%n $X;'\"\\x"])
def test_systemd_takes_it(desk: Desk, tmp_path: Path, root: Path, user: str, name: str) -> None:
    analyze = peers.installed("systemd-analyze", "systemd")
    folder = desk.folder.rename(tmp_path / name)
    arguments = ["--bench", str(folder / "bench.toml"), "--state", str(folder / "state")]
    assert commands.run([*arguments, "service", "install", "--user", user]) == 0
    done = subprocess.run([analyze, "verify", "--man=no", root / UNIT], capture_output=True, text=True, timeout=60)
    said = [line for line in done.stderr.splitlines() if re.search("proxyflash-resume", line)]
    assert (done.returncode, said) == (0, [])


@pytest.mark.real_time("a program")
def test_what_systemd_starts_runs_resume(desk: Desk, root: Path) -> None:
    """From another folder, with systemd's environment."""
    assert desk.run("service", "install").status == 0
    words = shlex.split(settings((root / UNIT).read_text(), "Service")["execstart"])
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=600, cwd="/", env={"PATH": "/usr/sbin:/usr/bin"}
    )
    assert (done.returncode, done.stdout) == (0, "nothing to resume: no update is unfinished\n"), done.stderr


RULE = re.compile(r'(?:(?:^|, )(?:SUBSYSTEM|ATTR\{[A-Za-z]+\}|MODE|GROUP)(?:==|=)"[^"\\*?|\[]+")+')
"""A line of matches and assignments, as udev(7) has it, without patterns."""


@pytest.mark.real_time("a program")
def test_udev_takes_its_rules(desk: Desk, root: Path) -> None:
    assert desk.run("service", "install", "--user", "daemon").status == 0
    lines = (root / RULES).read_text().splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules
    assert all(RULE.fullmatch(line) for line in rules)
    assert all("==" in line and ', MODE="0660", GROUP="daemon"' in line for line in rules)
    # From systemd 254 on udevadm says what is wrong with a file.
    udevadm = shutil.which("udevadm")
    if udevadm and subprocess.run([udevadm, "verify", "--help"], capture_output=True, timeout=60).returncode == 0:
        done = subprocess.run([udevadm, "verify", root / RULES], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
