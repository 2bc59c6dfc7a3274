"""`resume`, `rollback`, `history`, `report`, and what `apply` does when there is something to go on with."""

from __future__ import annotations

import json
import re
import shlex
import signal
import sys
from collections.abc import Callable

import pytest
from proxyflash.tools import cli, commands
from proxyflash.updates.engine import journal
from proxyflash.updates.engine.engine import Engine

from .conftest import MANIFEST, Desk
from .test_interrupts import Running, again, in_phase

pytestmark = pytest.mark.real_time("child programs")
MakeDesk = Callable[..., Desk]


def killed(desk: Desk, component: str, phase: str) -> None:
    """An apply that is ended as a power cut ends it."""
    running = Running(desk, "apply", MANIFEST)
    running.until(in_phase(component, phase))
    running.process.send_signal(signal.SIGKILL)
    running.process.communicate()


@pytest.mark.parametrize(
    ("component", "phase"), [("front-radar", "write"), ("imu", "erase"), ("imu", "verify"), ("camera", "write")]
)
def test_resume_after_a_kill(make_desk: MakeDesk, component: str, phase: str) -> None:
    desk = make_desk(pace=0.05)
    killed(desk, component, phase)
    (entry,) = desk.run("history", "--json").document["updates"]
    assert (entry["number"], entry["ending"], entry["update"]) == (1, "unfinished", "Example/Host 1.5")
    done = desk.run("resume")
    assert (done.status, done.err.count("E-")) == (0, 0)
    for name in ("front-radar", "imu", "camera"):
        assert any(line.startswith(f"{name}  OK") for line in done.out.splitlines())
    assert set(desk.seen().values()) == {"1.5.0"}
    assert desk.run("history", "--json").document["updates"][0]["ending"] == "succeeded"


def test_the_same_apply_goes_on_as_well(make_desk: MakeDesk) -> None:
    desk = make_desk(pace=0.05)
    killed(desk, "imu", "write")
    done = desk.run("apply", desk.manifest)
    assert done.status == 0
    assert "going on with update 1" in done.err
    told = [re.sub("  .*?(  .earlier.)?$", r"\1", line) for line in done.out.splitlines() if "  OK" in line]
    assert told == ["host  (earlier)", "front-radar  (earlier)", "imu", "camera"]
    assert set(desk.seen().values()) == {"1.5.0"}
    assert len(desk.run("history", "--json").document["updates"]) == 1


def test_another_update_waits_or_is_put_in_its_place(make_desk: MakeDesk) -> None:
    desk = make_desk(pace=0.05)
    killed(desk, "imu", "write")
    document = json.loads(desk.manifest.read_text())
    document["updateId"]["version"] = "1.6"
    desk.manifest.write_text(json.dumps(document))
    done = desk.run("apply", desk.manifest)
    assert (done.status, done.err.split()[0]) == (6, "E-UNFINISHED")
    assert "Example/Host 1.5" in done.err
    assert re.search(r"proxyflash --bench \S+ --state \S+ resume", done.err)
    assert desk.run("apply", desk.manifest, "--abandon").status == 0
    endings = [entry["ending"] for entry in desk.run("history", "--json").document["updates"]]
    assert endings == ["abandoned", "succeeded"]


def test_what_a_stopped_one_prints_goes_on(make_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that is named is the one, with the bench and the state folder of this one."""
    desk = make_desk(pace=0.1)
    running = Running(desk, "apply", MANIFEST)
    running.until(in_phase("camera", "write"))
    running.interrupt()
    status, last, _ = running.end()
    assert (status, last["ending"]) == (10, "unfinished")
    command = last["error"]["remedy"].rpartition(": ")[2]
    assert shlex.split(command)[-1] == "resume"
    with monkeypatch.context() as patched:
        # A Ctrl-C while the rollback has brought back nothing yet.
        patched.setattr(Engine, "to_undo", lambda engine, number: signal.raise_signal(signal.SIGINT))
        done = desk.run("rollback")
    assert (done.status, "stopped at once; nothing was changed by this command. Update 1 is" in done.err) == (10, True)
    assert done.err.strip().endswith(" rollback, or go on: " + command)
    assert again(desk, command) == 0
    assert set(desk.seen().values()) == {"1.5.0"}


def test_what_is_said_when_it_is_stopped_at_once(make_desk: MakeDesk) -> None:
    desk = make_desk(pace=5.0)
    running = Running(desk, "apply", MANIFEST)
    running.until(in_phase("imu", "erase"))
    running.interrupt_twice()
    status, last, _ = running.end()
    assert status == 10
    command = last["error"]["remedy"].rpartition(": ")[2]
    assert shlex.split(command)[-1] == "resume"
    desk.edit_all("pace = 5.0", "pace = 0.0")
    assert again(desk, command) == 0


def test_a_ctrl_c_before_anything_was_read_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*words: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run", interrupted)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    for command, waits in (("rollback", " by this command; an unfinished update stays unfinished"), ("scan", "")):
        monkeypatch.setattr(sys, "argv", ["proxyflash", command])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 130
        assert capsys.readouterr().err == f"E-CANCELLED stopped at once; nothing was changed{waits}.\n"


@pytest.mark.parametrize(
    ("command", "instead"),
    [(["apply", MANIFEST], "plan MANIFEST"), (["resume"], "report"), (["rollback"], "report")],
)
def test_a_dry_run_names_the_command_that_is_meant(desk: Desk, command: list[str], instead: str) -> None:
    done = desk.run(*command, "--dry-run")
    assert (done.status, done.out) == (2, "")
    assert "No such option '--dry-run'" in done.err
    assert f": proxyflash {instead}" in done.err
    assert "--dry-run" not in desk.run(command[0], "--help").out
    assert desk.run("history").out == "no update so far\n"
    assert desk.run(*command, "--dry-run", "--json").document["error"]["code"] == "E-USAGE"


def test_nothing_to_resume_is_no_failure(desk: Desk) -> None:
    done = desk.run("resume")
    assert (done.status, done.out.strip()) == (0, "nothing to resume: no update is unfinished")
    assert desk.run("resume", "--json").document["verdict"] == "nothing to resume"


def test_rollback_brings_back_what_can_be(desk: Desk) -> None:
    assert desk.run("apply", desk.manifest).status == 0
    planned = {
        task["component"]: task["no_way_back"] for task in desk.run("plan", desk.manifest, "--json").document["tasks"]
    }
    done = desk.run("rollback")
    back = {name for name, version in desk.seen().items() if version == "1.4.2"}
    assert back
    for name in ("front-radar", "imu", "camera"):
        word = "restored" if name in back else "NOT RESTORED"
        assert any(line.startswith(f"{name}  {word}") for line in done.out.splitlines()), done.out
    # The script's step can't be undone, and so not all of it was.
    assert (done.status, done.out.splitlines()[-1]) == (1, "Example/Host 1.5  rolled back in part")
    assert planned[None] == "microsoft/script:1 has no restore"
    listed = desk.run("history", "--json").document["updates"][-1]
    assert set(listed["not_brought_back"]) == {"host", "front-radar", "imu", "camera"} - back
    assert listed["not_whole"] == []


def test_a_whole_image_of_another_version_is_not_called_torn(desk: Desk) -> None:
    """The radar's memory can't be read, so it keeps the new image, which is whole and runs."""
    child = desk.manifest.parent / "radar.importmanifest.json"
    child.write_text(child.read_text().replace('"installedCriteria": "1.5.0"', '"installedCriteria": "1.5.1"'))
    done = desk.run("apply", desk.manifest)
    assert (done.status, desk.seen()["front-radar"]) == (8, "1.5.0")
    assert "manifest create --installed-criteria VERSION" in done.err
    said = desk.run("history").out
    assert "failed" in said
    assert said.rstrip().endswith("  neither as before nor as wanted: front-radar")


@pytest.mark.parametrize(("command", "status"), [("resume", 0), ("history", 0), ("rollback", 4), ("report", 4)])
def test_a_state_folder_without_updates_is_named(desk: Desk, command: str, status: int) -> None:
    """Whoever names a wrong one sees that nothing was found there."""
    assert desk.run("apply", desk.manifest).status == 0
    desk.state = desk.folder / "wrong"
    done = desk.run(command)
    assert done.status == status
    assert f"no update was made on this bench so far, by {desk.state}" in done.err


@pytest.mark.parametrize("command", ["resume", "rollback", "report"])
def test_a_journal_of_a_later_version(desk: Desk, command: str) -> None:
    assert desk.run("apply", desk.manifest).status == 0
    (path,) = desk.state.rglob("journal.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    record = journal.decoded(lines[-1])
    assert record is not None
    path.write_bytes(b"".join(lines[:-1]) + journal.encoded(record | {"kind": "paused"}))
    before = path.read_bytes()
    done = desk.run(command)
    assert (done.status, done.out) == (1, "")
    assert f"E-JOURNAL {path}: record {record['seq']} is of kind 'paused', unknown here." in done.err
    assert "a later version of proxyflash" in done.err
    assert path.read_bytes() == before


def test_rollback_without_an_update(desk: Desk) -> None:
    done = desk.run("rollback")
    assert (done.status, done.err.split()[0]) == (4, "E-UPDATE-UNKNOWN")


def test_history_and_report(desk: Desk) -> None:
    assert desk.run("history").out == "no update so far\n"
    assert desk.run("report").err.startswith("E-UPDATE-UNKNOWN")
    assert desk.run("apply", desk.manifest).status == 0
    assert desk.run("apply", desk.manifest).status == 0
    lines = desk.run("history").out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2"]
    assert all("succeeded" in line and "Example/Host 1.5" in line for line in lines)
    report = json.loads(desk.run("report", "1").out)
    assert (report["state"], report["lastInstallResult"]["resultCode"]) == (0, 700)
    assert json.loads(report["installedUpdateId"])["name"] == "Host"
    assert desk.run("report", "1", "--json").document["report"] == report
    latest = json.loads(desk.run("report").out)
    assert {item["status"] for item in latest["componentResults"][1:]} == {"installed already"}
    assert desk.run("report", "7").err.startswith("E-UPDATE-UNKNOWN")
    # The proof of it, which needs no bench to be checked.
    proof, key = desk.folder / "proof.zip", desk.folder / "gateway.pem"
    assert desk.run("report", "1", "--bundle", desk.folder / "unsigned.zip").status == 0
    assert (
        "  OK  update 1, Example/Host 1.5, succeeded" in desk.run("report", "--check", desk.folder / "unsigned.zip").out
    )
    desk.bench.write_text(desk.bench.read_text() + '\n[updates]\nreport_key = "gateway.pem"\n')
    for command in ("plan", "apply"):
        missing = desk.run(command, desk.manifest)
        assert (missing.status, missing.err.split()[0], str(key) in missing.err) == (12, "E-KEY-FILE", True)
    made = desk.run("manifest", "key", key)
    assert (made.status, '  report_key = "gateway.pem"\n' in made.out) == (0, True)
    assert desk.run("report", "1", "--bundle", proof).status == 0
    assert desk.run("report", "1", "--bundle", proof).err.startswith("E-TARGET")
    desk.bench.unlink()
    assert "signature NOT checked" in desk.run("report", "--check", proof).out
    done = desk.run("report", "--check", proof, "--key", key.with_suffix(".jwk"), "--json")
    assert (done.status, done.document["verified"], done.document["number"]) == (0, True, 1)
    assert "page.html" in done.document["files"]
    proof.write_bytes(proof.read_bytes()[:-1])
    assert desk.run("report", "--check", proof).status == 12
    assert desk.run("report", "--check", proof, "7").status == 2


def test_a_damaged_journal_hides_no_other_update(desk: Desk) -> None:
    assert desk.run("apply", desk.manifest).status == 0
    assert desk.run("apply", desk.manifest).status == 0
    (path,) = desk.state.glob("benches/*/updates/000001/journal.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"damage\n", *lines[2:]]))
    first, second = desk.run("history", "--json").document["updates"]
    assert (first["ending"], second["ending"]) == ("unknown", "succeeded")


def test_components_at_once(desk: Desk) -> None:
    done = desk.run("apply", desk.manifest, "--parallel")
    assert done.status == 0
    assert set(desk.seen().values()) == {"1.5.0"}


def test_the_policy_s_floor_is_held_to(desk: Desk) -> None:
    desk.bench.write_text(desk.bench.read_text() + '\n[updates]\nfloor = {imus = "2.0"}\n')
    done = desk.run("apply", desk.manifest)
    assert (done.status, done.err.split()[0]) == (9, "E-FLOOR")
    assert set(desk.seen().values()) == {"1.4.2"}
    assert desk.run("history").out == "no update so far\n"


def test_a_plan_replaces_no_file_but_a_plan(desk: Desk) -> None:
    kept = desk.folder / "plan.json"
    for other in (desk.manifest, desk.bench, desk.image("imu")):
        before = other.read_bytes()
        done = desk.run("plan", desk.manifest, "--out", other)
        assert (done.status, done.err.split()[0]) == (1, "E-TARGET")
        assert other.read_bytes() == before
    for text in ("", '{"format": "proxyflash plan", "schema": 9}'):
        kept.write_text(text)
        assert desk.run("plan", desk.manifest, "--out", kept).status == 0


def test_a_plan_that_is_kept_and_carried_out_later(desk: Desk) -> None:
    kept = desk.folder / "plan.json"
    assert desk.run("plan", desk.manifest, "--out", kept).status == 0
    assert desk.run("flash", "imu", desk.image("imu")).status == 0
    done = desk.run("apply", kept)
    assert (done.status, done.err.split()[0]) == (9, "E-PLAN-CHANGED")
    assert "'imu' had version '1.4.2' and has '1.5.0'" in done.err
    assert desk.run("history").out == "no update so far\n"
    assert desk.run("plan", desk.manifest, "--out", kept).status == 0
    assert desk.run("apply", kept).status == 0
    assert set(desk.seen().values()) == {"1.5.0"}


def test_a_misspelt_group_is_named_with_the_nearest(desk: Desk) -> None:
    of = ("--provider", "Contoso", "--version", "1.5.0")
    child, parent = (desk.folder / "update" / f"{name}.importmanifest.json" for name in ("imuz", "fleet"))
    image = desk.folder / "update" / "imu-1.5.0.hex"
    assert desk.run("manifest", "create", image, *of, "--name", "imuz", "--group", "imuz", "-o", child).status == 0
    assert desk.run("manifest", "create", *of, "--name", "fleet", "--child", child, "-o", parent).status == 0
    why = "group=imuz matches no component; groups here: radars, imus, cameras (did you mean 'imus'?)"
    assert desk.run("plan", parent, "--json").document["unmatched"] == [{"step": 1, "why": why}]
    for words in (("plan", parent), ("apply", parent, "--yes")):
        done = desk.run(*words)
        assert done.status == 0
        assert why in done.out
        assert "no step of this update is for a component of this bench: nothing is to be done" in done.err
