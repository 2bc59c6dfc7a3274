"""What colour a verdict has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from proxyflash.report_page.story import Mood
from proxyflash.report_page.verdicts import verdicts_of
from proxyflash.updates.events import Status


@pytest.mark.parametrize(
    ("statuses", "mood"),
    [
        ([Status.DONE, Status.INSTALLED], Mood.GOOD),
        ([Status.DONE, Status.STOPPED], Mood.OPEN),
        ([Status.DONE, Status.NOT_RUN], Mood.OPEN),
        ([Status.DONE, Status.FAILED], Mood.BAD),
        ([Status.NOT_RESTORED], Mood.BAD),
    ],
)
def test_the_words_of_a_part_make_no_verdict_good(statuses: list[Status], mood: Mood) -> None:
    outcome: Any = SimpleNamespace(results=[result(status) for status in statuses])
    [found] = verdicts_of(outcome)
    assert found.mood is mood


def result(status: Status) -> SimpleNamespace:
    task = SimpleNamespace(target="imu", label="1.1", status=status, wanted="", component=None)
    return SimpleNamespace(task=task, result=SimpleNamespace(details="1.5.0  OK", code=0), restored=None, holds="")
