"""Two of `apply`, `resume` and `rollback` at once on one bench: the second is refused by name, and takes nothing from the
first, whether that one then goes on or is killed.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping

import pytest

from .conftest import MANIFEST, Desk
from .test_interrupts import Running

pytestmark = pytest.mark.real_time("child programs")
MakeDesk = Callable[..., Desk]
COMMANDS = {"apply": ["apply", MANIFEST], "resume": ["resume"], "rollback": ["rollback", "--yes"]}


def prepared(desk: Desk, first: str) -> None:
    """What there must be for a command to have something to do."""
    if first == "resume":
        running = stopped(desk, "apply", "imu")
        running.process.kill()
        running.process.communicate()
    elif first == "rollback":
        assert desk.run("apply", desk.manifest).status == 0


def stopped(desk: Desk, command: str, *components: str) -> Running:
    """A command that stands still while it writes to one of these components, or to any."""
    running = Running(desk, *COMMANDS[command])
    running.until(lambda event: event.get("phase") == "write" and (not components or event["component"] in components))
    running.process.send_signal(signal.SIGSTOP)
    return running


def wanted(desk: Desk, command: str) -> Mapping[str, str]:
    """What the components tell in the end."""
    if command != "rollback":
        return dict.fromkeys(("imu", "front-radar", "camera"), "1.5.0")
    tasks = desk.run("plan", desk.manifest, "--json").document["tasks"]
    versions = {task["component"]: "1.5.0" if task["no_way_back"] else "1.4.2" for task in tasks if task["component"]}
    assert "1.4.2" in versions.values()
    return versions


@pytest.mark.parametrize("ends", ["goes on", "killed"])
@pytest.mark.parametrize("first", COMMANDS)
def test_the_second_is_refused(make_desk: MakeDesk, first: str, ends: str) -> None:
    desk = make_desk(pace=0.02)
    end = wanted(desk, first)
    prepared(desk, first)
    began = len(desk.run("history", "--json").document["updates"])
    running = stopped(desk, first)
    try:
        journals = {path: path.read_bytes() for path in desk.state.rglob("journal.jsonl")}
        memory = desk.memory()
        for second in COMMANDS.values():
            done = desk.run(*second[:1], *([desk.manifest] if second[0] == "apply" else second[1:]))
            assert (done.status, done.out) == (6, "")
            assert done.err.startswith("E-BENCH-LOCKED")
            assert f"process {running.process.pid}" in done.err
        assert journals == {path: path.read_bytes() for path in desk.state.rglob("journal.jsonl")}
        assert memory == desk.memory()
    except BaseException:
        running.process.kill()
        raise
    # The script's step can't be undone, which is reported.
    status = 1 if first == "rollback" else 0
    if ends == "killed":
        running.process.kill()
        running.process.communicate()
        assert desk.run("resume").status == status
    else:
        running.process.send_signal(signal.SIGCONT)
        assert running.end()[0] == status
    assert desk.seen() == end
    updates = desk.run("history", "--json").document["updates"]
    assert len(updates) == began + (first != "resume")
    assert updates[-1]["ending"] == ("rolled back in part" if first == "rollback" else "succeeded")
    assert desk.run("resume").out.startswith("nothing to resume")
