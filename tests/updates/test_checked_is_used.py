"""Nothing is used but what was checked: a resume asks the policy again, files are hashed again right before each use.

Somebody has the state folder, or its disk forgets; the policy changes while an update waits. Nothing that was not checked is
used, it is said what was changed, and what the error advises brings every component to a whole state.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers import events as ev
from proxyflash.tests.updates.authoring import Publisher
from proxyflash.tests.updates.lab import FileHandler, Lab, all_new, all_old, kill, serve
from proxyflash.tests.updates.steps import Stage, checked, inline
from proxyflash.transports.errors import ExitStatus
from proxyflash.updates import errors
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.progress import Ending
from proxyflash.updates.engine.results import ActionResult, ResultCode
from proxyflash.updates.handlers.app import AppHandler
from proxyflash.updates.handlers.apt import AptHandler
from proxyflash.updates.handlers.flash import FlashHandler
from proxyflash.updates.handlers.handler import StepHandler
from proxyflash.updates.handlers.partition import PartitionHandler
from proxyflash.updates.handlers.script import ScriptHandler
from proxyflash.updates.handlers.swupdate import SwupdateHandler, SwupdateScriptHandler
from proxyflash.updates.manifests.resolved_update import Update, load

GOOD, BAD = b"what is installed", b"what is instalLed"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def cut(lab: Lab, update: Update) -> None:
    """An update that a power cut ended in its midst: `left` and the first step of `right` are done, the rest isn't."""
    lab.fault("right two", Action.INSTALL, kill)
    assert lab.process(lambda: lab.apply(update)) == -signal.SIGKILL
    lab.fault("right two", Action.INSTALL, lambda: None)
    (lab.world / "log").unlink()


def staged_file(lab: Lab, name: str = "payload") -> Path:
    return lab.journal().parent / "files" / name


def signed_only(lab: Lab) -> None:
    lab.policy = Publisher(lab.folder).policy().model_dump()


# The policy, asked again.


@pytest.mark.parametrize("advised", ["rollback", "abandon"])
def test_a_resume_asks_the_policy_again(lab: Lab, advised: str) -> None:
    cut(lab, lab.bundle())
    before, held = lab.journal().read_bytes(), lab.holds()
    signed_only(lab)
    with pytest.raises(errors.SignatureMissing) as caught:
        lab.resume()
    assert caught.value.exit_status == ExitStatus.POLICY
    assert (lab.journal().read_bytes(), lab.holds(), lab.log) == (before, held, [])
    assert "proxyflash rollback" in caught.value.remedy
    assert "proxyflash apply --abandon" in caught.value.remedy
    if advised == "rollback":
        assert lab.rollback().ending is Ending.ROLLED_BACK
        assert lab.holds() == all_old()
    else:
        lab.policy = {}
        assert lab.apply(lab.bundle(), abandon=True).succeeded
        assert lab.holds() == all_new()


def test_what_the_policy_still_takes_goes_on(lab: Lab) -> None:
    cut(lab, lab.bundle())
    lab.policy = {"max_age_days": 36500, "revoked": ["release"]}
    assert lab.resume().succeeded
    assert lab.holds() == all_new()


def test_a_resume_after_a_restart_asks_the_policy_again(lab: Lab) -> None:
    """Another way into the engine: the host was restarted at a step's word."""
    lab.fault("left one", Action.INSTALL, ActionResult(ResultCode.INSTALL_IMMEDIATE_REBOOT))
    assert lab.apply(lab.bundle()).ending is Ending.AWAITING
    lab.boot = "second"
    signed_only(lab)
    (lab.world / "log").unlink()
    with pytest.raises(errors.SignatureMissing):
        lab.resume()
    assert lab.log == []


def test_a_rollback_that_was_cut_goes_on_whatever_the_policy_says(lab: Lab) -> None:
    cut(lab, lab.bundle())
    lab.fault("left two", Action.RESTORE, kill)
    assert lab.process(lab.rollback) == -signal.SIGKILL
    lab.fault("left two", Action.RESTORE, lambda: None)
    signed_only(lab)
    assert lab.resume().ending is Ending.ROLLED_BACK
    assert lab.holds() == all_old()


def test_a_finished_update_is_rolled_back_whatever_the_policy_says(lab: Lab) -> None:
    """What was backed up is the host's own."""
    assert lab.apply(lab.bundle()).succeeded
    signed_only(lab)
    assert lab.rollback().ending is Ending.ROLLED_BACK
    assert lab.holds() == all_old()


def test_an_unfinished_update_that_somebody_plants_is_not_carried_out(lab: Lab) -> None:
    """Whoever owns the folder of the updates can write journals too."""
    cut(lab, lab.bundle())
    planted = lab.journal().parent
    elsewhere = lab.folder / "planted"
    shutil.move(planted, elsewhere)
    signed_only(lab)
    with pytest.raises(errors.UpdateUnknown):
        lab.resume()
    shutil.move(elsewhere, planted)
    with pytest.raises(errors.SignatureMissing):
        lab.resume()
    assert lab.log == []


# Files of the state folder.


@pytest.mark.parametrize("what", ["changed", "longer", "gone", "a link"])
def test_a_copy_that_was_changed_is_not_gone_on_with(lab: Lab, what: str) -> None:
    cut(lab, lab.bundle())
    before = lab.journal().read_bytes()
    path = staged_file(lab)
    match what:
        case "changed":
            path.write_bytes(BAD)
        case "longer":
            path.write_bytes(GOOD + b"!")
        case "gone":
            path.unlink()
        case _:
            path.rename(lab.folder / "elsewhere")
            path.symlink_to(lab.folder / "elsewhere")
    with pytest.raises(errors.StagedChanged) as caught:
        lab.resume()
    assert (caught.value.code, caught.value.exit_status) == ("E-FILE-CHANGED", ExitStatus.POLICY)
    assert str(path) in caught.value.cause
    if what == "changed":
        assert sha256(BAD) in caught.value.cause
        assert sha256(GOOD) in caught.value.cause
    assert (lab.journal().read_bytes(), lab.log) == (before, [])
    assert "proxyflash rollback" in caught.value.remedy
    assert lab.rollback().ending is Ending.ROLLED_BACK
    assert lab.holds() == all_old()


def test_a_copy_that_is_changed_under_way_is_not_installed(lab: Lab) -> None:
    """Between two actions of one run, without a resume. What was done before is reported, and can be undone."""
    update = lab.bundle()

    def spoil() -> None:
        staged_file_now(lab).write_bytes(BAD)

    lab.fault("right one", Action.BACKUP, spoil)
    outcome = lab.apply(update)
    assert outcome.ending is Ending.FAILED
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.component) == ("E-FILE-CHANGED", "right")
    assert lab.began(Action.INSTALL) == ["left one", "left two"]
    assert lab.rollback().ending is Ending.ROLLED_BACK
    assert lab.holds() == all_old()


def staged_file_now(lab: Lab) -> Path:
    """While an engine has the bench."""
    (path,) = lab.state.rglob("files/payload")
    return path


@pytest.mark.parametrize("how", ["another description", "no JSON any more"])
def test_a_manifest_that_was_changed_is_believed_by_nobody(lab: Lab, how: str) -> None:
    cut(lab, lab.bundle())
    path = staged_file(lab, "motors.importmanifest.json")
    text = path.read_text()
    path.write_text(
        json.dumps(json.loads(text) | {"description": "new"}) if how == "another description" else text[:-1]
    )
    for again in (lab.resume, lab.rollback):
        with pytest.raises(errors.StagedChanged) as caught:
            again()
        assert "apply --abandon" in caught.value.remedy
    assert lab.log == []
    # As it is advised.
    assert lab.apply(lab.bundle(), abandon=True).succeeded
    assert lab.holds() == all_new()


SCRIPT = """#!/bin/sh
cat "$(dirname "$0")/payload" >> {world}/ran
[ -e {world}/kill ] && [ "$1" = --action-install ] && kill -9 $PPID
while [ "$1" != --result-file ]; do case $1 in --action-is-installed) code=901;; esac; shift; done
echo "{{\\"resultCode\\": ${{code:-600}}}}" > "$2"
"""


def script_update(lab: Lab) -> Update:
    """A script on the host, with a payload beside it."""
    (lab.folder / "run.sh").write_text(SCRIPT.format(world=lab.world))
    lab.write("plain", [])
    path = lab.folder / "script.importmanifest.json"
    document = json.loads((lab.folder / "plain.importmanifest.json").read_text())
    (lab.folder / "plain.importmanifest.json").unlink()
    files = checked(lab.folder, "payload", "run.sh")
    document["files"] = [file.model_dump(include={"filename", "sizeInBytes", "hashes"}) for file in files.values()]
    document["updateId"]["name"] = "script"
    document["instructions"]["steps"] = [
        {
            "handler": "microsoft/script:1",
            "files": ["payload", "run.sh"],
            "handlerProperties": {"scriptFileName": "run.sh"},
        }
    ]
    path.write_text(json.dumps(document))
    return load(path)


@pytest.mark.parametrize("where", ["files/payload", "files/run.sh", "work/*/payload", "work/*/run.sh"])
def test_a_script_is_not_run_on_what_was_changed(lab: Lab, where: str) -> None:
    """The process is killed in Install; until the resume somebody has the state folder."""
    update = script_update(lab)
    (lab.world / "kill").touch()
    status = lab.process(lambda: lab.apply(update))
    assert status == -signal.SIGKILL
    (lab.world / "kill").unlink()
    (lab.world / "ran").unlink()
    folder = lab.journal().parent
    found = list(folder.glob(where))
    assert found
    for path in found:
        path.write_bytes(path.read_bytes()[:-1] + b"#")
    try:
        told = lab.resume().error
    except errors.StagedChanged as error:
        told = error
    assert told is not None
    assert told.code == "E-FILE-CHANGED"
    assert str(found[0]) in told.cause
    assert not (lab.world / "ran").exists()


def test_the_same_script_unchanged_goes_on(lab: Lab) -> None:
    """Or else nothing of the above would show anything."""
    update = script_update(lab)
    (lab.world / "kill").touch()
    assert lab.process(lambda: lab.apply(update)) == -signal.SIGKILL
    (lab.world / "kill").unlink()
    (lab.world / "ran").unlink()
    assert lab.resume().succeeded
    assert GOOD in (lab.world / "ran").read_bytes()


# Each handler, right before it uses a file.

BENCH = """
[[component]]
name = "planner"
version_from = {file = "version"}
[component.app]
folder = "opt"

[[component]]
name = "rootfs"
version_from = {file = "version"}
[component.partition]
slots = {a = "slot-a", b = "slot-b"}
active = "echo a"
switch = "echo {slot} > next"

[bus.line]
kind = "serial"
emulated = true

[[component]]
name = "motor"
bus = "line"
protocol = "stm32-uart"
emulated = {part = "stm32f405xg"}
"""
APT_MANIFEST = b'{"name": "x", "version": "1.0", "packages": [{"name": "hello", "version": "1.0"}]}'


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    (tmp_path / "bench.toml").write_text(BENCH)
    (tmp_path / "version").write_text("1.0")
    (tmp_path / "opt").mkdir()
    (tmp_path / "slot-a").write_bytes(b"old")
    (tmp_path / "slot-b").write_bytes(b"older")
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as opened:
        yield opened


def stage(
    bench: Bench, handler: type[StepHandler], data: bytes, component: str | None = None, **properties: Any
) -> Stage:
    folder = bench.file.path.parent
    (folder / "payload").write_bytes(data)
    step = inline("some/handler:1", "payload", installedCriteria="1.1", **properties)
    made = Stage(bench, handler, step, folder, component)
    made.payloads = checked(folder, "payload")
    return made


def refuses(made: Stage, action: str) -> errors.StagedChanged:
    with pytest.raises(errors.StagedChanged) as caught:
        made.act(action)
    assert str(made.folder / "payload") in caught.value.cause
    return caught.value


def flip(path: Path) -> None:
    """What a disk may do to a file: one bit."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_raw_binary_with_one_bit_changed_is_not_flashed(bench: Bench, tmp_path: Path) -> None:
    """No checksum of its own would show it, and read back it would be verified against itself."""
    made = stage(bench, FlashHandler, bytes(range(256)), "motor", address=0)
    assert made.act("download").code == ResultCode.DOWNLOAD_SUCCESS
    flip(tmp_path / "payload")
    refuses(made, "download")


def test_an_application_s_file_that_was_changed_is_not_put_into_place(bench: Bench, tmp_path: Path) -> None:
    made = stage(bench, AppHandler, GOOD, "planner")
    flip(tmp_path / "payload")
    assert made.act("backup").succeeded
    refuses(made, "install")
    assert not list((tmp_path / "opt").iterdir())
    assert made.act("is_installed").code == ResultCode.NOT_INSTALLED


def test_a_slot_is_not_written_from_a_file_that_was_changed(bench: Bench, tmp_path: Path) -> None:
    made = stage(bench, PartitionHandler, GOOD, "rootfs")
    flip(tmp_path / "payload")
    assert made.act("backup").succeeded
    refuses(made, "install")
    assert (tmp_path / "slot-b").read_bytes() == b"older"


def test_a_file_that_changes_while_the_slot_is_written(bench: Bench, tmp_path: Path) -> None:
    """What the slot holds is compared with the manifest, not with what was written."""
    made = stage(bench, PartitionHandler, GOOD, "rootfs")
    assert made.act("backup").succeeded

    class Events(list[ev.Event]):
        def append(self, event: ev.Event) -> None:
            if isinstance(event, ev.PhaseStarted) and event.phase is ev.Phase.WRITE:
                flip(tmp_path / "payload")

    made.events = Events()
    refuses(made, "install")
    assert not (tmp_path / "next").exists()


def test_a_slot_is_not_verified_against_the_same_wrong_file(bench: Bench, tmp_path: Path) -> None:
    """The file changes, is written, and is right again: the slot is wrong all the same."""
    made = stage(bench, PartitionHandler, GOOD, "rootfs")
    assert made.act("backup").succeeded

    class Events(list[ev.Event]):
        def append(self, event: ev.Event) -> None:
            if isinstance(event, ev.PhaseStarted):
                flip(tmp_path / "payload")

    made.events = Events()
    with pytest.raises(errors.StepFailed, match="does not hold"):
        made.act("install")
    assert (tmp_path / "payload").read_bytes() == GOOD


def test_packages_are_not_installed_from_a_list_that_was_changed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stage(bench, AptHandler, APT_MANIFEST)
    asked: list[object] = []

    def run(self: AptHandler, *words: object, **more: object) -> tuple[int, str]:
        asked.append(words)
        return 1, ""

    monkeypatch.setattr(AptHandler, "_run", run)
    (tmp_path / "payload").write_bytes(APT_MANIFEST.replace(b"hello", b"hallo"))
    for action in ("is_installed", "download", "backup", "apply"):
        refuses(made, action)
    assert asked == []
    with pytest.raises(errors.StagedChanged):
        made.act("install")
    assert not [words for words in asked if "install" in str(words)]


def test_swupdate_does_not_get_an_image_that_was_changed(bench: Bench, tmp_path: Path) -> None:
    agent = tmp_path / "agent.sh"
    agent.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    agent.chmod(0o755)

    class Handler(SwupdateHandler):
        agent_script = agent

    made = stage(bench, Handler, GOOD)
    flip(tmp_path / "payload")
    refuses(made, "install")
    assert not (tmp_path / "ran").exists()
    flip(tmp_path / "payload")
    assert made.act("install").succeeded
    assert (tmp_path / "ran").exists()


def answering(folder: Path, code: int) -> bytes:
    """A script that leaves a trace, and answers."""
    return (
        f'#!/bin/sh\ntouch {folder}/ran\nwhile [ "$1" != --result-file ]; do shift; done\n'
        f'echo \'{{"resultCode": {code}}}\' > "$2"\n'
    ).encode()


@pytest.mark.parametrize("handler", [ScriptHandler, SwupdateScriptHandler])
@pytest.mark.parametrize("action", ["is_installed", "install", "apply", "cancel"])
def test_no_action_of_a_script_runs_what_was_changed(
    bench: Bench, tmp_path: Path, handler: type[ScriptHandler], action: str
) -> None:
    """Changed in the work folder, by an earlier action, by another step's script, or by whoever has the folder."""
    made = stage(bench, handler, answering(tmp_path, 500), scriptFileName="payload", swuFileName="payload")
    assert made.act("download").succeeded
    (tmp_path / "ran").unlink()
    flip(tmp_path / "work" / "payload")
    with pytest.raises(errors.StagedChanged) as caught:
        made.act(action)
    assert str(tmp_path / "work" / "payload") in caught.value.cause
    assert not (tmp_path / "ran").exists()


def test_a_script_is_not_put_into_its_folder_from_a_file_that_was_changed(bench: Bench, tmp_path: Path) -> None:
    made = stage(bench, ScriptHandler, b"#!/bin/sh\n", scriptFileName="payload")
    flip(tmp_path / "payload")
    refuses(made, "download")
    assert not list((tmp_path / "work").iterdir())


def test_a_script_of_an_update_that_is_refused_does_not_run_for_its_rollback(bench: Bench, tmp_path: Path) -> None:
    """The way back of `microsoft/swupdate:2` is the update's own script."""
    made = stage(
        bench, SwupdateScriptHandler, answering(tmp_path, 800), scriptFileName="payload", swuFileName="payload"
    )
    assert made.act("restore").succeeded
    (tmp_path / "ran").unlink()
    made.refusal = errors.SigningKeyRevoked("the signing key 'release' is revoked")
    with pytest.raises(errors.SigningKeyRevoked):
        made.act("restore")
    assert not (tmp_path / "ran").exists()


def test_a_rollback_tells_what_could_not_be_brought_back_without_the_update_s_files(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the engine: the refusal reaches the handler, and the component is said not to be restored."""

    class Needs(FileHandler):
        def restore(self) -> ActionResult:
            self.context.read("payload")
            return super().restore()

    cut(lab, lab.bundle())
    serve(monkeypatch, Needs)
    signed_only(lab)
    outcome = lab.rollback()
    assert outcome.ending is Ending.PARTLY_ROLLED_BACK
    told = [item.restored.details for item in outcome.results if item.restored is not None]
    assert len(told) == 4
    assert all(text.startswith("E-SIGNATURE-MISSING") for text in told)
    assert lab.log == []
