"""Components on serial lines that answer nothing: interrupted in mid-flash, and no bus lets its bootloader be asked.

An update looks for them in their bootloaders, for each family, as `flash` does; a component that is not there ends it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from proxyflash.enumerators.component import Presence
from proxyflash.flashers.events import Event, RunContext
from proxyflash.tests.explore.families import BY_NAME, FAMILIES
from proxyflash.tools.commands import run
from proxyflash.transports.errors import ExitStatus
from proxyflash.updates.engine.engine import Engine
from proxyflash.updates.errors import ComponentAbsent
from proxyflash.updates.events import ComponentFinished

from .one_part import OnePart

pytestmark = pytest.mark.simulated_time
SERIAL = [family for family in FAMILIES if family.kind == "serial"]
SILENT = {"mboot-uart", "openblt-uart", "stm32-uart", "stk500v1", "stk500v2", "xmodem", "ymodem"}
"""Those that nothing is heard of then; the others answer from their bootloaders, or run their old application."""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., OnePart]]:
    with ExitStack() as stack:
        yield lambda name, **settings: OnePart(tmp_path, BY_NAME[name], stack, **settings)


@pytest.mark.parametrize("name", [family.name for family in SERIAL])
def test_an_interrupted_part_is_updated(make: Callable[..., OnePart], name: str) -> None:
    line = make(name)
    line.interrupt()
    engine = Engine(line.bench)
    plan = engine.plan(line.update, line.bench.scan().components)
    (seen,) = plan.components
    assert (seen.presence is Presence.ABSENT) is (plan.silent == ("part",)) is (name in SILENT)
    outcome = engine.apply(plan)
    assert outcome.error is None
    assert line.bench.component("part").look().version == "1.1.0"


@pytest.mark.parametrize("name", [family.name for family in SERIAL])
def test_one_that_is_not_there_ends_the_update_before_it_begins(make: Callable[..., OnePart], name: str) -> None:
    line = make(name)
    line.bench.emulated_device("part").supply.off()
    engine = Engine(line.bench)
    plan = engine.plan(line.update, line.bench.scan().components)
    assert plan.silent == ("part",)
    with pytest.raises(ComponentAbsent, match="neither part nor its bootloader answers") as caught:
        engine.apply(plan)
    assert (caught.value.component, caught.value.exit_status) == ("part", ExitStatus.ABSENT)
    (file,) = (path for child in line.update.children.values() for path in child.files.values())
    assert f"flash it again: proxyflash flash part {file}. " in caught.value.remedy
    assert engine.store.entries() == []


def test_one_that_may_be_unplugged_is_looked_for_too(make: Callable[..., OnePart]) -> None:
    line = make("stm32-uart", more="optional = true\n")
    line.interrupt()
    told: list[Event] = []
    engine = Engine(line.bench, context=RunContext(told.append))
    update = line.update
    supply = line.bench.emulated_device("part").supply
    supply.off()
    outcome = engine.apply(engine.plan(update, line.bench.scan().components))
    assert (outcome.error, outcome.results) == (None, [])
    verdicts = [(event.component, event.verdict) for event in told if isinstance(event, ComponentFinished)]
    assert verdicts == [("part", "absent, and optional: passed over")]
    (left,) = outcome.report()["passedOver"]
    assert (left["component"], left["reason"]) == verdicts[0]
    supply.on()
    plan = engine.plan(update, line.bench.scan().components)
    assert (plan.silent, plan.unplugged) == (("part",), ())
    assert engine.apply(plan).error is None
    assert line.bench.component("part").look().version == "1.1.0"


def test_the_plan_says_that_apply_will_look(
    make: Callable[..., OnePart], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = make("stm32-uart")
    line.interrupt()
    path = line.update.path
    line.bench.close()
    where = ["--bench", str(tmp_path / "bench.toml"), "--state", str(tmp_path / "state")]
    assert run([*where, "plan", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "silent -> 1.1.0" in printed
    assert "part  silent: apply enters its bootloader to see whether it is there" in printed
    assert run([*where, "plan", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["silent"] == ["part"]
