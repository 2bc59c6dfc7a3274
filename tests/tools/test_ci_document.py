"""The example workflow of docs/ci.md: it is YAML, its scripts are bash's, and its command lines are ours."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from proxyflash.enumerators.benchfile.schema import load
from proxyflash.tools.commands import cli, run
from proxyflash.tools.commands.session import Session
from proxyflash.tools.output import Output

pytestmark = pytest.mark.real_time("child programs")

PYTEST_OPTIONS = {"--bench", "--simulated-time", "--junitxml", "--allow-flash", "--require"}
EXAMPLE = Path(__file__).parents[2] / "examples" / "three_sensors"
DOCUMENT = Path(__file__).parents[2] / "docs" / "ci.md"


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    yaml: Any = pytest.importorskip("yaml", reason="PyYAML is not installed")
    found: dict[str, Any] = {}
    for text in blocks("yaml"):
        found |= yaml.safe_load(text)["jobs"]
    assert list(found) == ["emulated", "bench", "runner", "guest"]
    return found


def blocks(language: str) -> list[str]:
    """The document's examples in a language, in order."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def scripts(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_every_step_runs_or_uses_something(jobs: dict[str, Any]) -> None:
    for job in jobs.values():
        assert job["runs-on"]
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            assert set(step) <= {"run", "uses", "with", "if"}
            if (words := re.findall(r"pytest (--[a-z].*)", step.get("run", "").replace("\n", " "))) and job["runs-on"]:
                assert not set(re.findall(r"--[a-z-]+", words[0])) - PYTEST_OPTIONS


def test_the_scripts_are_bash(jobs: dict[str, Any]) -> None:
    for job in jobs.values():
        for script in scripts(job):
            subprocess.run(["bash", "-n", "-c", script], check=True)


def test_both_ways_are_there(jobs: dict[str, Any]) -> None:
    own, guest = ("\n".join(scripts(jobs[name])) for name in ("runner", "guest"))
    assert "linux-modules-extra-$(uname -r)" in own
    assert "sudo modprobe vcan" in own
    assert "container" not in jobs["runner"]
    assert {"busybox-static", "qemu-system-x86"} <= set(guest.split())
    [line] = [script for script in scripts(jobs["guest"]) if "vm run" in script]
    program, name, *words = shlex.split(line)
    assert (program, name) == (".venv/bin/proxyflash", "vm")
    group = cli.get_command(click.Context(cli), "vm")
    assert isinstance(group, click.Group)
    command = group.get_command(click.Context(group), words[0])
    assert command is not None
    values = command.make_context("run", words[1:], obj=Session((), Output())).params
    assert values["words"][:3] == (".venv/bin/python", "-m", "pytest")
    # The paths that are kept and uploaded are those that the command names.
    paths = [step["with"]["path"] for step in jobs["guest"]["steps"] if "path" in step.get("with", {})]
    assert paths == [str(values["cache"]), str(values["artefacts"])]


def test_the_parts_on_a_kernel_s_can_are_as_the_document_has_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The two bench files hold, and are of the same part; the script is one of sh, and names them."""
    shutil.copy(EXAMPLE / "firmware" / "radar-1.4.2.bin", tmp_path)
    entries = []
    for text in blocks("toml"):
        name = text.split()[1]
        (tmp_path / name).write_text(text)
        assert run(["--bench", str(tmp_path / name), "bench", "check"]) == 0
        [entry] = load(tmp_path / name).entries.values()
        entries.append((entry.spec.name, entry.spec.protocol, entry.address, entry.profile))
    assert entries[0] == entries[1]
    [script] = blocks("sh")
    assert {"parts.toml", "vcan.toml", "--join", "powertrain=socketcan:vcan0"} <= set(script.split())
    subprocess.run(["sh", "-n", "-c", script], check=True)


def test_the_second_recipe_says_where_its_firmware_is() -> None:
    recipe = DOCUMENT.read_text(encoding="utf-8").split("\n## ")[2]
    assert "`examples/three_sensors/firmware`" in recipe
    assert (EXAMPLE / "firmware" / "radar-1.4.2.bin").is_file()


def test_the_first_recipe_needs_nothing_of_one_s_own(jobs: dict[str, Any], tmp_path: Path) -> None:
    """Its last command runs in a folder with no more than its tests."""
    [text] = blocks("python")
    (tmp_path / text.split()[1]).write_text(text)
    [line] = [script for script in scripts(jobs["emulated"]) if " -m pytest " in script]
    program, *words = shlex.split(line)
    assert program == ".venv/bin/python"
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^=+ \d+ passed in ", done.stdout, re.MULTILINE), done.stdout
    assert (tmp_path / "build" / "junit.xml").is_file()
