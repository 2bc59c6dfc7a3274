"""A step that takes longer than its `timeoutSeconds`, from the command line: how it ends, what is said, what goes on."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from ..processes import until_ended
from .conftest import Desk

pytestmark = pytest.mark.real_time("child programs")
MakeDesk = Callable[..., Desk]
BOUND = 600
"""Seconds, within which what would take for ever has ended, on any machine."""
LIMIT = 10
"""Seconds of a step; its other actions take far less, on a busy machine too."""
DEAF = """#!/bin/sh
trap '' TERM INT HUP
while [ $# -gt 0 ]; do
  case "$1" in --action) action=$2 ;; --result-file) result=$2 ;; esac
  shift
done
if [ "$action" = {action} ]; then
  sleep 1000 &
  echo $! > {pids}.child
  echo $$ > {pids}
  while :; do wait; done
fi
case "$action" in is-installed) code=901 ;; download) code=500 ;; install) code=600 ;; *) code=700 ;; esac
printf '{{"resultCode": %s}}' $code > "$result"
"""
HANGING = """
import sys, threading
from proxyflash.tools import commands
from proxyflash.updates.engine import time_limits as limits
from proxyflash.updates.handlers.script import ScriptHandler
limits.GRACE_SECONDS = 0.5
setattr(ScriptHandler, sys.argv.pop(1), lambda handler: threading.Event().wait())
sys.exit(commands.run(sys.argv[1:]))
"""
"""A handler whose action doesn't return, whatever it is asked; the time that it is given is cut short."""


def bounded(desk: Desk, action: str, seconds: float) -> None:
    """The example's update, whose script does not end in this action, and has a limit; "": it does."""
    path = desk.folder / "update" / "check-supply.sh"
    path.write_text(DEAF.format(action=action or "none", pids=desk.folder / "pid"))
    document = json.loads(desk.manifest.read_text())
    digest = base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()
    document["files"][0] |= {"sizeInBytes": path.stat().st_size, "hashes": {"sha256": digest}}
    document["instructions"]["steps"][0]["handlerProperties"]["proxyflash"] = {"timeoutSeconds": seconds}
    desk.manifest.write_text(json.dumps(document))


@pytest.mark.parametrize("action", ["download", "install", "apply"])
def test_a_script_that_heeds_no_signal(desk: Desk, action: str) -> None:
    bounded(desk, action, LIMIT)
    process = desk.start("--json", "apply", desk.manifest)
    out, said = process.communicate(timeout=BOUND)
    error = json.loads(out)["error"]
    assert (process.returncode, error["code"]) == (1, "E-STEP-TIMEOUT"), said
    assert f"step 1: {action} took longer than {LIMIT} s" in error["cause"]
    # With all that it started.
    started = list(desk.folder.glob("pid*"))
    assert len(started) == 2
    for path in started:
        until_ended(int(path.read_text()))
    assert set(desk.seen().values()) == {"1.4.2"}
    # A failure ends an update: there is nothing to resume, and a script that ends is another update.
    assert desk.run("resume").out.startswith("nothing to resume")
    bounded(desk, "", 60)
    assert desk.run("apply", desk.manifest).status == 0
    assert set(desk.seen().values()) == {"1.5.0"}


@pytest.mark.parametrize("action", ["is_installed", "download", "install", "apply"])
def test_an_action_that_does_not_return(desk: Desk, action: str) -> None:
    bounded(desk, "", LIMIT)
    arguments = desk.arguments("--json", "apply", desk.manifest)
    done = subprocess.run(
        [sys.executable, "-c", HANGING, action, *arguments],
        cwd=desk.folder, capture_output=True, text=True, timeout=BOUND,
    )  # fmt: skip
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (10, "E-STEP-HANGS"), done.stderr
    assert f"step 1: {action.replace('_', '-')} has not returned within {LIMIT} s" in error["cause"]
    assert " resume" in error["remedy"]
    assert set(desk.seen().values()) == {"1.4.2"}
    assert desk.run("history", "--json").document["updates"][0]["ending"] == "unfinished"
    resumed = desk.run("resume")
    assert resumed.status == 0, resumed.err
    assert set(desk.seen().values()) == {"1.5.0"}
    assert desk.run("history", "--json").document["updates"][0]["ending"] == "succeeded"
