"""Nothing is quoted by hope: hostile names go into each script, command line and file that proxyflash builds.

The scripts and the command lines are run by the shells that they are for; what a name asks for is never done.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxyflash.enumerators.component import Unlisted, distinct
from proxyflash.flashers.errors import Cancelled
from proxyflash.tools.commands import run
from proxyflash.tools.commands.session import Session
from proxyflash.tools.output import Output
from proxyflash.tools.vm import guest
from proxyflash.transports.can import host as can_host
from proxyflash.transports.can import opening as can_opening
from proxyflash.transports.errors import CanSettings
from proxyflash.transports.plain import plain
from proxyflash.transports.serial.host import permission_remedy
from proxyflash.transports.toml_text import toml_text
from proxyflash.transports.usb import host as usb_host

from .conftest import PROGRAM, Desk

NAMES = [
    "x$(touch pwned)y",
    "`touch pwned`",
    "a;touch pwned;b",
    "two  words",
    "it's",
    'say "hi"',
    "-rf",
    "--help",
    "line\nbreak; touch pwned",
    "back\\slash\\n",
    "Größe Δ",
    "bell\x07\x1b[2J",
    "a\u202eb",
    "*?[a-z]~",
    "&|<>!{}#",
    "trailing\n",
    "@IMAGE@",
    " lead",
]
SHELLS = [shell for shell in (["dash"], ["bash"], ["busybox", "sh"]) if shutil.which(shell[0])]


def ids(value: object) -> str:
    return ascii(value)


# The script for the agent's script handler.


def script_for(name: str, desk: Desk, folder: Path) -> Path:
    """The folder of the update that `adu script` makes of an image of this name."""
    image = folder / name
    shutil.copyfile(desk.image("imu"), image)
    options = ["--version", "1.5.0", "--provider", "Contoso", "--name", "Imu", "--group", "imus"]
    made = folder / "made"
    assert run(["adu", "script", *options, "--to", str(made), "--", str(image)]) == 0
    return made


def test_an_image_with_the_script_s_own_name_is_refused(desk: Desk, tmp_path: Path) -> None:
    image = tmp_path / "proxyflash-flash.sh"
    shutil.copyfile(desk.image("imu"), image)
    options = ["--version", "1.5.0", "--provider", "Contoso", "--name", "Imu", "--group", "imus"]
    assert run(["adu", "script", *options, "--to", str(tmp_path / "made"), "--", str(image)]) == 1
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize("name", [f"{name}.hex" for name in NAMES if "\\" not in name], ids=ids)
def test_the_agent_s_script_names_the_image_and_runs_nothing_else(
    desk: Desk, tmp_path: Path, name: str, shell: list[str]
) -> None:
    made = script_for(name, desk, tmp_path)
    tell, conf, there = tmp_path / "tell", tmp_path / "conf", tmp_path / "there"
    tell.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    tell.chmod(0o755)
    conf.write_text(f"# how\n{tell}\nits word\n")
    there.mkdir()
    environment = {"PATH": os.environ["PATH"], "PROXYFLASH_ADU_CONF": str(conf)}
    words = ["--action", "install", "--component", name, "$(touch pwned)", ""]
    for script in (made / "proxyflash-flash.sh", Path("proxyflash-flash.sh")):
        where = there if script.is_absolute() else made
        before = sorted(made.iterdir())
        done = subprocess.run(
            [*shell, str(script), *words], env=environment, cwd=where, capture_output=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        *told, end = done.stdout.split(b"\0")
        folder = made if script.is_absolute() else Path()
        image = str(folder / name) if script.is_absolute() else f"./{name}"
        assert [os.fsdecode(word) for word in told] == ["its word", "adu", "act", "--image", image, *words]
        assert end == b""
        assert sorted(made.iterdir()) == before
    assert list(there.iterdir()) == []


def test_the_agent_s_script_flashes_an_image_of_such_a_name(desk: Desk, tmp_path: Path) -> None:
    """From end to end, as the agent runs it; from a working folder that somebody else has filled."""
    made = script_for("x$(touch pwned)y.hex", desk, tmp_path)
    library = made / "usr lib"
    words = ["adu", "enumerator", str(library), "--conf", str(made / "adu.conf")]
    assert run(["--bench", str(desk.bench), "--state", str(desk.state), *words]) == 0
    trap = tmp_path / "trap"
    trap.mkdir()
    for module in ("json.py", "click.py", "proxyflash.py", "sitecustomize.py"):
        (trap / module).write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')\n")
    environment = {"PATH": os.environ["PATH"], "PROXYFLASH_ADU_CONF": str(made / "adu.conf"), "PYTHONPATH": str(trap)}
    result = tmp_path / "result.json"
    command: list[str | Path] = [
        made / "proxyflash-flash.sh",
        "--action",
        "install",
        "--component",
        "imu",
        "--work-folder",
        made,
    ]
    command += ["--result-file", result, "--installed-criteria", "1.5.0"]
    done = subprocess.run(command, env=environment, cwd=trap, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(result.read_text())["resultCode"] == 600
    assert not (tmp_path / "pwned").exists()
    assert not (trap / "pwned").exists()


def test_the_script_s_address_is_a_number(desk: Desk, tmp_path: Path) -> None:
    """It goes into the arguments of the manifest, which the agent splits at blanks."""
    options = ["--version", "1.5.0", "--provider", "C", "--name", "I", "--group", "imus", "--to", str(tmp_path)]
    image = tmp_path / "imu.bin"
    image.write_bytes(bytes(range(256)))
    assert run(["adu", "script", str(image), *options, "--address", " 0x0800_0000\n"]) == 0
    manifest = json.loads((tmp_path / "C.I-components.1.5.0.importmanifest.json").read_text())
    [step] = manifest["instructions"]["steps"]
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    arguments = f"--component --component-name-val --sha256 {digest} --address 0x8000000"
    assert step["handlerProperties"]["arguments"] == arguments
    assert run(["adu", "script", str(image), *options, "--address", "0 --component other"]) == 2


# What the agent's extension reads.


def test_the_agent_s_configuration_runs_python_isolated(desk: Desk, tmp_path: Path) -> None:
    assert desk.run("adu", "enumerator", tmp_path / "lib").status == 0
    words = (tmp_path / "lib" / "proxyflash-adu.conf").read_text().splitlines()
    assert words[1:5] == [sys.executable, "-I", "-m", "proxyflash.tools"]


@pytest.mark.parametrize("name", ["line\n--state\nbreak", "ends\r"], ids=ids)
def test_a_path_that_would_be_several_words_is_refused(desk: Desk, tmp_path: Path, name: str) -> None:
    folder = desk.folder / name
    folder.mkdir()
    desk.state = folder
    done = desk.run("adu", "enumerator", tmp_path / "lib", "--conf", tmp_path / "adu.conf")
    assert done.status == 1
    assert done.err.startswith("E-TARGET ")
    assert not (tmp_path / "adu.conf").exists()


@pytest.mark.parametrize("name", ["two  words", "x$(touch pwned)", "\udcff", "it's # \\n"], ids=ids)
def test_other_paths_are_words_as_they_are(desk: Desk, tmp_path: Path, name: str) -> None:
    desk.state = desk.folder / name
    assert desk.run("adu", "enumerator", tmp_path / name).status == 0
    words = (tmp_path / name / "proxyflash-adu.conf").read_bytes().split(b"\n")
    assert os.fsdecode(words[words.index(b"--state") + 1]) == str(desk.state)


def test_the_command_that_registers_the_library_can_be_pasted(desk: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "a b$(touch pwned)"
    register = desk.run("adu", "enumerator", folder, "--json").document["register"]
    assert shlex.split(register)[-1] == str(folder / "libproxyflash_adu.so")


# Commands to type.


def pasted(line: str, cwd: Path) -> list[str]:
    """The words that a person's shell makes of it."""
    done = subprocess.run(
        ["bash", "-c", f"tell() {{ printf '%s\\0' \"$@\"; }}; tell {line}"], capture_output=True, cwd=cwd, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", NAMES, ids=ids)
def test_the_commands_that_go_on(tmp_path: Path, empty: Path, name: str) -> None:
    """After what stopped a flash or an update: the same again, and `resume` on the same bench."""
    bench, state = str(tmp_path / name / "bench.toml"), tmp_path / name / "state"
    words = ("--bench", bench, "flash", "imu", name)
    session = Session(words, Output(), bench_path=bench, state=state)
    assert pasted(session.goes_on, empty) == ["proxyflash", *words]
    expected = ["proxyflash", "--bench", bench, "--state", str(state), "resume"]
    assert pasted(session.command_for("resume"), empty) == expected
    assert list(empty.iterdir()) == []


def test_the_command_in_an_error_is_shown_as_it_can_be_pasted(desk: Desk, empty: Path) -> None:
    """The error of a flash that was stopped on the way names the same command."""
    error = Cancelled("stopped on request", touched=True)
    words = ("--bench", str(desk.bench), "flash", "imu", "a\nb $(touch pwned).hex")
    session = Session(words, Output())
    with pytest.raises(Cancelled) as caught, session.working_on("imu"):
        raise error
    line = str(caught.value).partition("what is missing: ")[2]
    assert pasted(line, empty) == ["proxyflash", *words]
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("name", NAMES, ids=ids)
def test_the_command_that_vouches_for_a_key(desk: Desk, tmp_path: Path, empty: Path, name: str) -> None:
    key = tmp_path / f"{name}.pem"
    assert desk.run("manifest", "key", "--", key).status == 0
    done = desk.run("manifest", "sign", desk.manifest, "--key", key)
    assert done.err.startswith("E-KEY")
    line = done.err.partition("vouch for it: ")[2].strip()
    assert pasted(line, empty) == ["proxyflash", "manifest", "key", "--root", "ROOT.pem", "--", str(key)]
    assert list(empty.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_the_command_that_makes_a_bench_file_readable(desk: Desk, empty: Path) -> None:
    desk.bench = desk.bench.rename(desk.folder / "a $(touch pwned).toml")
    desk.bench.chmod(0)
    line = desk.run("scan").err.partition("readable: ")[2].strip()
    assert pasted(line, empty) == ["chmod", "+r", "--", str(desk.bench)]


@pytest.mark.real_time("the demo's update runs a script")
def test_the_demo_s_commands_can_be_typed(
    tmp_path: Path, empty: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["demo", "--", "-d $(touch pwned)"]) == 0
    [line] = re.findall(r"^\$ (cd .*)$", capsys.readouterr().out, re.MULTILINE)
    assert pasted(line, empty) == ["cd", "--", "-d $(touch pwned)"]
    assert list(empty.iterdir()) == []


def test_the_commands_of_a_wire_s_errors(tmp_path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interface's name, and that of a port's group."""
    channel = tmp_path / "can0; touch pwned"
    channel.mkdir()
    (channel / "mtu").write_text("16\n")
    with pytest.raises(CanSettings) as caught:
        can_opening._check_mtu("powertrain", str(channel))
    line = caught.value.remedy.partition("A vcan: ")[2].partition(". An adapter")[0]
    assert pasted(line, empty) == ["sudo", "ip", "link", "set", "dev", str(channel), "mtu", "72"]
    monkeypatch.setattr("grp.getgrgid", lambda number: grp.struct_group(("$(touch pwned)", "", 7, [])))
    remedy = permission_remedy(str(tmp_path))
    line = remedy.partition("group: ")[2].partition(" $USER")[0]
    assert pasted(line, empty) == ["sudo", "usermod", "-aG", "$(touch pwned)"]
    assert list(empty.iterdir()) == []


def test_bench_init_says_how_to_scan(
    tmp_path: Path, empty: Path, capsys: pytest.CaptureFixture[str], net: Path
) -> None:
    (net / "can0").mkdir()
    (net / "can0" / "type").write_text("280\n")
    file = tmp_path / "$(touch pwned)\nx.toml"
    assert run(["bench", "init", str(file)]) == 0
    [line] = re.findall(r"now: (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert pasted(line, empty) == ["proxyflash", "--bench", str(file), "scan"]


# TOML.


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /sys/class/net; nothing else is attached."""
    folder = tmp_path / "net"
    folder.mkdir()
    monkeypatch.setattr(can_host, "NET", folder)
    monkeypatch.setattr(usb_host, "DEVICES", tmp_path / "none")
    monkeypatch.setattr("serial.tools.list_ports.comports", list)
    return folder


@pytest.mark.parametrize("name", ['x"]\n[power]', "$(touch x)", "-", "\x1b[2J", "€"], ids=ids)
def test_the_bench_file_that_init_writes_holds_whatever_interfaces_are_called(
    net: Path, tmp_path: Path, name: str
) -> None:
    (net / name).mkdir()
    (net / name / "type").write_text("280\n")
    file = tmp_path / "bench.toml"
    assert run(["bench", "init", str(file)]) == 0
    assert run(["--bench", str(file), "bench", "check"]) == 0
    [bus] = tomllib.loads(file.read_text())["bus"].values()
    assert bus == {"kind": "can", "interface": "socketcan", "channel": name}


@given(st.text(alphabet=st.characters(), max_size=50))
def test_any_text_is_a_plain_line_of_toml(text: str) -> None:
    line = toml_text(text)
    assert plain(line) == line
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert tomllib.loads(f"x = {line}") == {"x": whole}


@given(st.text(alphabet=st.characters(), max_size=50))
def test_a_title_stays_a_comment(text: str) -> None:
    [item] = distinct([Unlisted("", text, "x", 'kind = "usb"')], (), ())
    assert tomllib.loads(f"# {item.title}\n{item.lines}\n") == {"bus": {"x": {"kind": "usb"}}}


def test_a_key_s_line_for_the_policy(desk: Desk, tmp_path: Path) -> None:
    done = desk.run("manifest", "key", tmp_path / 'a"]\nx.pem')
    lines = [line.strip() for line in done.out.splitlines() if line.startswith("  ")]
    assert tomllib.loads("\n".join(lines[:2])) == {"updates": {"roots": [str(tmp_path / 'a"]\nx.jwk')]}}
    assert tomllib.loads("\n".join(lines[2:])) == {"updates": {"report_key": str(tmp_path / 'a"]\nx.pem')}}


# Shells that complete.


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_offers_no_name_that_a_shell_would_obey(desk: Desk, shell: str) -> None:
    """A bench file in the working folder may be anybody's."""
    lines = [f"[[component]]\nname = {toml_text(name)}\n" for name in (*NAMES, "fine-1")]
    (desk.folder / "evil.toml").write_text("\n".join(lines))
    line = "proxyflash --bench evil.toml info "
    words = line.split(" ")
    variables = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_PROXYFLASH_COMPLETE": f"{shell}_complete"}
    if shell == "fish":
        variables["COMP_CWORD"] = ""
    done = subprocess.run(
        [PROGRAM], env=os.environ | variables, cwd=desk.folder, capture_output=True, text=True, timeout=600
    )
    assert "fine-1" in done.stdout
    assert "pwned" not in done.stdout
    assert "words" not in done.stdout


# The guest.


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_the_guest_s_command_is_the_one_that_was_given(tmp_path: Path, shell: list[str]) -> None:
    """The script that the guest runs: folder, environment and words come through as they are."""
    for name in NAMES:
        folder = tmp_path / name
        folder.mkdir()
        words = ("printf", "%s\\0", *NAMES, name)
        job = guest.Job(words, folder, {"TOLD": name, "PATH": os.environ["PATH"]})
        files = guest._job_files(job, "end")
        script = tmp_path / "script"
        script.write_bytes(files["job/command"].replace(b"exec ", b'printf "%s\\0" "$TOLD" "$PWD"; exec '))
        done = subprocess.run([*shell, str(script)], env={}, capture_output=True, timeout=600)
        assert done.returncode == 0, done.stderr
        told = [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]
        assert told == [name, str(folder), *NAMES, name]
        settings = tmp_path / "settings"
        settings.write_bytes(files["job/settings"] + b'printf %s "$FOLDER"\n')
        done = subprocess.run([*shell, str(settings)], env={}, capture_output=True, timeout=600)
        assert os.fsdecode(done.stdout) == str(folder)
        assert list(folder.iterdir()) == []
