"""The example workflow of docs/ci.md: it is YAML, its scripts are bash's, and its command lines are ours."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from proxyflash.tools.commands import cli
from proxyflash.tools.commands.session import Session
from proxyflash.tools.output import Output

pytestmark = pytest.mark.real_time("child programs")

DOCUMENT = Path(__file__).parents[2] / "docs" / "ci.md"


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    yaml: Any = pytest.importorskip("yaml", reason="PyYAML is not installed")
    [text] = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    found: dict[str, Any] = yaml.safe_load(text)["jobs"]
    return found


def scripts(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_every_step_runs_or_uses_something(jobs: dict[str, Any]) -> None:
    for job in jobs.values():
        assert job["runs-on"]
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            assert set(step) <= {"run", "uses", "with", "if"}


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
    run = group.get_command(click.Context(group), words[0])
    assert run is not None
    values = run.make_context("run", words[1:], obj=Session((), Output())).params
    assert values["words"][:3] == (".venv/bin/python", "-m", "pytest")
    # What is kept and what is uploaded is what the command names.
    paths = [step["with"]["path"] for step in jobs["guest"]["steps"] if "path" in step.get("with", {})]
    assert paths == [str(values["cache"]), str(values["artefacts"])]
