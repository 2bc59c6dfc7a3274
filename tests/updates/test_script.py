"""`microsoft/script:1` to the letter: the command line, the result file, what counts as a failure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.component import Component, Presence
from proxyflash.flashers.errors import Cancelled
from proxyflash.flashers.events import RunContext
from proxyflash.transports.errors import ProxyflashError
from proxyflash.updates.engine.results import ResultCode
from proxyflash.updates.errors import ManifestField, ScriptFailed
from proxyflash.updates.handlers.handler import StepContext
from proxyflash.updates.handlers.script import UNKNOWN_FAILURE, ScriptHandler
from proxyflash.updates.manifests import files
from proxyflash.updates.manifests.conditions import BenchConditions
from proxyflash.updates.manifests.manifest import InlineStep

from ..processes import until_ended
from .steps import checked

MOTOR = Component(
    id="serial-1",
    name="left-motor",
    group="motors",
    manufacturer="Contoso",
    model="virtual-motor",
    version="",
    presence=Presence.OK,
    bus="b",
    protocol="uds",
    where="",
    properties={"location": "left"},
)
RECORDER = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done > arguments.txt
echo "said on stdout"
"""


def step(**properties: Any) -> InlineStep:
    return InlineStep(
        handler="microsoft/script:1", files=("run.sh",), handlerProperties={"scriptFileName": "run.sh", **properties}
    )


def handler(
    folder: Path, script: str, record: Component | None = MOTOR, stop: Callable[[], bool] = bool, **properties: Any
) -> ScriptHandler:
    source = folder / "run.sh"
    source.write_text(script)
    work = folder / "work"
    file = folder / "bench.toml"
    file.write_text("")
    context = StepContext(
        step=step(**properties),
        files={"run.sh": source},
        work_folder=work,
        backup_folder=folder / "backup",
        component=None,
        record=record,
        conditions=BenchConditions(Bench.open(file, state=folder / "state")),
        run=RunContext(cancelled=stop),
        payloads=checked(folder, "run.sh"),
    )
    return ScriptHandler(context)


def answering(result: str, status: int = 0) -> str:
    return f"""#!/bin/sh
while [ "$1" != --result-file ]; do shift; done
printf '%s' '{result}' > "$2"
exit {status}
"""


def test_the_command_line_of_api_version_1_0(tmp_path: Path) -> None:
    made = handler(
        tmp_path,
        RECORDER,
        arguments="--component-id-val  --component-name-val --component-prop-val location --component-prop-val no "
        "--component-version-val --component-group-val --plain 'not quoted'",
        installedCriteria="1.0 or so",
    )
    with pytest.raises(ScriptFailed):  # it leaves no result file
        made.install()
    work = str(tmp_path / "work")
    assert (tmp_path / "work" / "arguments.txt").read_text().splitlines() == [
        "--action-install",
        "serial-1",
        "left-motor",
        "left",
        "n/a",
        "n/a",
        "motors",
        "--plain",
        "'not",
        "quoted'",
        "--work-folder",
        work,
        "--result-file",
        f"{work}/action_install_aduc_result.json",
        "--installed-criteria",
        "1.0 or so",
    ]


@pytest.mark.parametrize("action", ["is-installed", "download", "install", "apply", "cancel"])
def test_the_command_line_of_api_version_1_1(tmp_path: Path, action: str) -> None:
    made = handler(tmp_path, RECORDER, apiVersion="1.1")
    assert made.command(action)[1:3] == ["--action", action]
    assert made.command(action)[0] == str(tmp_path / "work" / "run.sh")
    assert "--installed-criteria" not in made.command(action)


def test_a_component_s_fact_is_one_word_whatever_it_holds(tmp_path: Path) -> None:
    """A part may say anything in its version; no shell reads it, and no NUL ends the word."""
    told = "x$(touch pwned)`touch pwned`\n;touch pwned \"'\x1b[2J"
    part = replace(MOTOR, version=f"{told}\0", properties={"more": f"\0{told}"})
    words = "--component-version-val --component-prop-val more --component-name-val"
    made = handler(tmp_path, RECORDER.replace("\\n", "\\0"), part, arguments=words, apiVersion="1.1")
    with suppress(ProxyflashError):
        made.install()  # This script leaves no result.
    found = (tmp_path / "work" / "arguments.txt").read_text().split("\0")
    assert found[:5] == ["--action", "install", told, told, "left-motor"]
    assert not list(tmp_path.rglob("pwned"))


def test_without_a_component_every_value_is_not_available(tmp_path: Path) -> None:
    made = handler(tmp_path, RECORDER, None, arguments="--component-model-val --component-manufacturer-val")
    assert made.command("install")[2:4] == ["n/a", "n/a"]


def test_the_result_file_is_the_verdict(tmp_path: Path) -> None:
    answer = json.dumps({"resultCode": 603, "extendedResultCode": 5, "resultDetails": "there already"})
    result = handler(tmp_path, answering(answer)).install()
    assert (result.code, result.extended, result.details) == (603, 5, "there already")
    assert result.succeeded


def test_an_exit_status_is_a_failure_whatever_the_file_says(tmp_path: Path) -> None:
    result = handler(tmp_path, answering('{"resultCode": 600}', status=3)).install()
    assert result.code == ResultCode.FAILURE
    assert "ended with 3" in result.details
    assert result.extended == 0x30501003


def test_a_failure_without_an_extended_code_gets_one(tmp_path: Path) -> None:
    assert handler(tmp_path, answering('{"resultCode": 0}')).install().extended == UNKNOWN_FAILURE


@pytest.mark.parametrize("answer", ["", "{", "[]", '{"resultCode": "600"}', '{"resultCode": true}', "[" * 9000])
def test_a_result_file_that_is_none(tmp_path: Path, answer: str) -> None:
    with pytest.raises(ScriptFailed):
        handler(tmp_path, answering(answer)).apply()


def test_numbers_of_a_result_file_are_json_s(tmp_path: Path) -> None:
    result = handler(tmp_path, answering('{"resultCode": 700.0, "extendedResultCode": 3e2}')).apply()
    assert (result.code, result.extended, result.details) == (700, 300, "")


def test_what_a_script_leaves_in_the_place_of_its_result_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe, which nobody writes into."""
    script = '#!/bin/sh\nwhile [ "$1" != --result-file ]; do shift; done\nmkfifo "$2"\n'
    with pytest.raises(ScriptFailed, match="left no result file"):
        handler(tmp_path, script).apply()


def test_a_script_is_put_into_its_folder_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = answering('{"resultCode": 600}')
    made = handler(tmp_path, answer)

    class Cut:
        """After the first 20 bytes."""

        def update(self, data: bytes) -> None:
            if data != answer.encode()[:20]:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(files, "BLOCK", 20)
        patched.setattr(hashlib, "sha256", Cut)
        with pytest.raises(KeyboardInterrupt):
            made.install()
    assert made.install().code == ResultCode.INSTALL_SUCCESS
    assert (tmp_path / "work" / "run.sh").read_text() == answer


def test_properties_of_other_names_are_let_be() -> None:
    ScriptHandler.check(step(surprise=["x"]), on_component=False, place="")


def test_there_is_no_backup_and_no_way_back(tmp_path: Path) -> None:
    made = handler(tmp_path, RECORDER)
    assert made.backup().code == ResultCode.BACKUP_UNSUPPORTED
    assert made.restore().code == ResultCode.RESTORE_UNSUPPORTED
    assert not (tmp_path / "work").exists()
    assert ScriptHandler.rollback_blocker(step(), None)


def test_a_verdict_of_an_earlier_action_does_not_count(tmp_path: Path) -> None:
    made = handler(tmp_path, RECORDER)
    with pytest.raises(ScriptFailed):
        made.download()
    work = tmp_path / "work"
    (work / "action_install_aduc_result.json").write_text('{"resultCode": 600}')
    with pytest.raises(ScriptFailed, match="left no result file"):
        made.install()


def test_a_script_that_can_not_be_run(tmp_path: Path) -> None:
    with pytest.raises(ScriptFailed, match="can't be run"):
        handler(tmp_path, "#!/no/such/interpreter\n").install()


def test_a_running_script_is_ended_with_all_that_it_started_when_the_update_is_cancelled(tmp_path: Path) -> None:
    child = tmp_path / "work" / "child.txt"
    script = "#!/bin/sh\nsleep 600 &\necho $! > new.txt\nmv new.txt child.txt\nwait\n"
    made = handler(tmp_path, script, stop=child.exists)
    with pytest.raises(Cancelled) as caught:
        made.install()
    assert caught.value.touched
    until_ended(int(child.read_text()))


@pytest.mark.parametrize(
    "properties",
    [
        {"scriptFileName": "other.sh"},
        {"scriptFileName": 7},
        {"arguments": ["a"]},
        {"apiVersion": "2"},
        {"installedCriteria": 1.0},
    ],
)
def test_properties_that_do_not_hold(properties: dict[str, Any]) -> None:
    with pytest.raises(ManifestField, match=r"steps\[0\]\.handlerProperties"):
        ScriptHandler.check(step(**properties), on_component=True, place="m.json: instructions.steps[0]")


@pytest.mark.parametrize("key", ["arguments", "installedCriteria", "scriptFileName"])
def test_a_nul_is_refused_before_anything_runs(key: str) -> None:
    properties = {"scriptFileName": "a", key: "x\0y"}
    step = InlineStep(handler="microsoft/script:1", files=("a", "xy"), handlerProperties=properties)
    with pytest.raises(ManifestField, match=key):
        ScriptHandler.check(step, on_component=False, place="")
