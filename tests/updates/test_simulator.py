"""`microsoft/simulator:1`: says what its file says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxyflash.enumerators.bench import Bench
from proxyflash.updates.engine.results import ActionResult, ResultCode
from proxyflash.updates.errors import ManifestField, StepFailed
from proxyflash.updates.handlers.simulator import NAME, SimulatorHandler, data_file

from .steps import Stage, inline

pytestmark = pytest.mark.simulated_time


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    for name in ("TMP", "TEMP", "TEMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "bench.toml").write_text("")
    step = inline("microsoft/simulator:1", "a.bin", "b.bin", installedCriteria="1.1")
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as bench:
        yield Stage(bench, SimulatorHandler, step, tmp_path)


def says(made: Stage, data: dict[str, Any]) -> None:
    (made.folder / NAME).write_text(json.dumps(data))


RESULT = {"resultCode": 0, "extendedResultCode": 1234, "resultDetails": "as told"}
TOLD = ActionResult(0, 1234, "as told")
DEFAULTS = {
    "is_installed": ResultCode.INSTALLED,
    "download": ResultCode.DOWNLOAD_SUCCESS,
    "backup": ResultCode.BACKUP_SUCCESS,
    "install": ResultCode.INSTALL_SUCCESS,
    "apply": ResultCode.APPLY_SUCCESS,
    "restore": ResultCode.RESTORE_SUCCESS,
    "cancel": ResultCode.CANCEL_SUCCESS,
}


@pytest.mark.parametrize("action", DEFAULTS)
def test_without_a_file_and_with_an_empty_one_all_is_well(made: Stage, action: str) -> None:
    assert made.act(action) == ActionResult(DEFAULTS[action])
    says(made, {})
    assert made.act(action) == ActionResult(DEFAULTS[action])


@pytest.mark.parametrize("action", ["backup", "install", "apply", "restore", "cancel"])
def test_an_action_s_result(made: Stage, action: str) -> None:
    says(made, {action: RESULT})
    assert made.act(action) == TOLD


def test_is_installed_by_the_criteria_else_by_the_star(made: Stage) -> None:
    says(made, {"isInstalled": {"1.1": RESULT, "*": {"resultCode": 901}}})
    assert made.act("is_installed") == TOLD
    says(made, {"isInstalled": {"1.0": RESULT, "*": {"resultCode": 901}}})
    assert made.act("is_installed") == ActionResult(901)
    made.step = inline("microsoft/simulator:1", "a.bin")
    assert made.act("is_installed") == ActionResult(901)


def test_a_download_ends_with_the_first_file_that_fails(made: Stage) -> None:
    says(made, {"download": {"b.bin": RESULT}})
    assert made.act("download") == TOLD
    says(made, {"download": {"a.bin": RESULT, "b.bin": {"resultCode": 500}}})
    assert made.act("download") == TOLD
    says(made, {"download": {"*": {"resultCode": 503}}})
    assert made.act("download") == ActionResult(503)


def test_the_folder_s_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMPDIR", "TMP", "TEMP", "TEMPDIR"):
        monkeypatch.delenv(name, raising=False)
    assert data_file() == Path("/tmp") / NAME
    for name in ("TEMPDIR", "TEMP", "TMP", "TMPDIR"):
        monkeypatch.setenv(name, f"/{name}")
        assert data_file() == Path(f"/{name}") / NAME


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff", "[" * 9000])
def test_a_file_that_is_none(made: Stage, text: str) -> None:
    (made.folder / NAME).write_text(text, encoding="latin-1")
    with pytest.raises(StepFailed, match=NAME):
        made.act("install")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["*", "1.1", "resultCode"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["isInstalled", "download", "install"]), JSON))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_it_holds_is_a_result(made: Stage, data: dict[str, Any]) -> None:
    says(made, data)
    for action in ("is_installed", "download", "install"):
        assert isinstance(made.act(action), ActionResult)


def test_properties() -> None:
    SimulatorHandler.check(inline("microsoft/simulator:1", "a", other=1), on_component=False, place="")
    with pytest.raises(ManifestField, match="installedCriteria"):
        SimulatorHandler.check(inline("microsoft/simulator:1", "a", installedCriteria=1), on_component=True, place="")
