"""Completion in bash, zsh and fish: commands, options, and the names of the bench file's components."""

from __future__ import annotations

import os
import subprocess

import pytest
from proxyflash.transports import plugins

from .conftest import PROGRAM, Desk

pytestmark = pytest.mark.real_time("shells")


def completed(desk: Desk, shell: str, line: str) -> list[str]:
    """What the shell's completion function is answered for the line, whose last word is being typed."""
    words = line.split(" ")
    variables = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_PROXYFLASH_COMPLETE": f"{shell}_complete"}
    if shell == "fish":
        variables["COMP_CWORD"] = words[-1]
    done = subprocess.run(
        [PROGRAM], env=os.environ | variables, cwd=desk.folder, capture_output=True, text=True, timeout=600
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    if shell == "zsh":
        # Three lines each: kind, value, help.
        return lines[1::3]
    return [item.partition(",")[2].partition("\t")[0] for item in lines if item]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("proxyflash fl", {"flash"}),
        (
            "proxyflash flash ",
            {"front-radar", "imu", "camera", *(f"{name}:" for name in plugins.names(plugins.FLASHERS))},
        ),
        ("proxyflash flash c", {"camera", "canopen:"}),
        ("proxyflash reset q", set()),
        ("proxyflash bench ", {"check", "init", "add", "schema"}),
        ("proxyflash flash --dry", {"--dry-run"}),
        ("proxyflash demo --sim", {"--simulated-time"}),
    ],
)
def test_a_shell_is_told_what_may_follow(desk: Desk, shell: str, line: str, words: set[str]) -> None:
    assert set(completed(desk, shell, line)) == words


def test_another_bench_file_has_other_names(desk: Desk) -> None:
    (desk.folder / "other.toml").write_text('[[component]]\nname = "gyro"\n')
    assert completed(desk, "bash", "proxyflash --bench other.toml info g") == ["gyro"]
    (desk.folder / "broken.toml").write_text("component = 7")
    for name in ("none.toml", "broken.toml", "update/imu-1.5.0.hex"):
        assert completed(desk, "bash", f"proxyflash --bench {name} info g") == []


def test_buses_and_protocols_complete_for_doctor(desk: Desk) -> None:
    words = set(completed(desk, "bash", "proxyflash doctor "))
    assert {word for word in words if not word.endswith(":")} == {"powertrain", "imu-uart", "usb"}
    assert {"dfu:", "uds:", "stm32-uart:"} <= words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(desk: Desk, shell: str) -> None:
    environment = os.environ | {"_PROXYFLASH_COMPLETE": f"{shell}_source"}
    done = subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0
    assert f"_PROXYFLASH_COMPLETE={shell}_complete" in done.stdout


def test_bash_itself_completes(desk: Desk) -> None:
    script = f"""
    export PATH={PROGRAM.parent}:$PATH
    eval "$(_PROXYFLASH_COMPLETE=bash_source proxyflash)"
    complete -p proxyflash
    COMP_WORDS=(proxyflash flash fr) COMP_CWORD=2
    _proxyflash_completion proxyflash fr flash
    echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=desk.folder, capture_output=True, text=True, timeout=600
    )
    assert done.stdout.splitlines()[-1] == "front-radar", done
