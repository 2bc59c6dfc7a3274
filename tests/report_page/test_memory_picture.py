"""The map of a part's memory: every byte has the state that the engine's events tell of it."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from proxyflash.flashers import events as ev
from proxyflash.flashers.events import Phase
from proxyflash.report_page import page
from proxyflash.report_page.memory import MemoryPicture
from proxyflash.report_page.story import Mood, State, Story

FLASH = 0x0800_0000
LAYOUT = ev.Layout(
    regions=(("flash", FLASH, 0x10000),),
    image=((FLASH, 0x9000),),
    present=((FLASH + 0x8000, 0x4000),),
    erase=((FLASH, 0x4000), (FLASH + 0x4000, 0x4000)),
    writes=((FLASH + 0x4000, 0x4000), (FLASH + 8, 0x2FF8), (FLASH, 8)),
)
"""Sectors of 16 KiB, as an STM32F405 has them at first: two are done, the third holds the image, the fourth is not touched."""
PLANNED = ev.Planned("imu", 0x9000, 0x10000, 2, 0x8000, 0x7000, 0x1000, 0x1000, None, layout=LAYOUT)


def erased() -> list[ev.Event]:
    return [
        PLANNED,
        ev.PhaseStarted("imu", Phase.ERASE, 0x8000),
        ev.PhaseFinished("imu", Phase.ERASE, 0x8000, 1.0),
    ]


def pieces(*events: ev.Event, failed: bool = False) -> list[tuple[int, int, State]]:
    picture = MemoryPicture()
    for event in events:
        picture.take(event)
    if failed:
        picture.fail()
    (memory,) = picture.memories("imu")
    assert memory.stretches[0].start == memory.start
    assert memory.stretches[-1].end == memory.start + memory.size
    return [(stretch.start - FLASH, stretch.size, stretch.state) for stretch in memory.stretches]


def test_the_map_of_two_flashes_says_so_and_a_retry_is_not_one_more() -> None:
    picture, retry = MemoryPicture(), ev.Retrying("imu", Phase.WRITE, 2, 3, "E-SERIAL-TIMEOUT", "no answer")
    for event in (*erased(), retry, PLANNED):
        picture.take(event)
    assert [memory.flashes for memory in picture.memories("imu")] == [1]
    picture.take(PLANNED)  # Looked at, and not carried out.
    assert [memory.flashes for memory in picture.memories("imu")] == [1]
    for event in (*erased(), replace(retry, phase=Phase.READ), *erased()):
        picture.take(event)
    memories = tuple(picture.memories("imu"))
    assert [memory.flashes for memory in memories] == [3]
    story = Story("test", "imu OK", Mood.GOOD, 0.0, 1.0, memories=memories)
    assert "imu was flashed 3 times. The map shows the state after the last flash" in page.render(story)


def test_a_whole_flash() -> None:
    assert pieces(
        *erased(),
        ev.PhaseStarted("imu", Phase.WRITE, 0x7000),
        ev.PhaseFinished("imu", Phase.WRITE, 0x7000, 1.0),
        ev.PhaseStarted("imu", Phase.VERIFY, 0x8000),
        ev.PhaseFinished("imu", Phase.VERIFY, 0x8000, 1.0),
    ) == [
        (0, 0x3000, State.VERIFIED),
        (0x3000, 0x1000, State.SKIPPED),
        (0x4000, 0x4000, State.VERIFIED),
        (0x8000, 0x4000, State.PRESENT),
        (0xC000, 0x4000, State.UNTOUCHED),
    ]


def test_an_erase_that_fails_at_its_second_sector() -> None:
    assert pieces(
        PLANNED,
        ev.PhaseStarted("imu", Phase.ERASE, 0x8000),
        ev.Progress("imu", Phase.ERASE, 0x4000, 0x8000),
        failed=True,
    )[:4] == [
        (0, 0x3000, State.UNWRITTEN),
        (0x3000, 0x1000, State.ERASED),
        (0x4000, 1, State.FAILED),
        (0x4001, 0x3FFF, State.PLANNED),
    ]


def test_a_write_that_fails_where_the_part_acknowledged_last() -> None:
    found = pieces(
        *erased(),
        ev.PhaseStarted("imu", Phase.WRITE, 0x7000),
        ev.Progress("imu", Phase.WRITE, 0x4100, 0x7000),
        failed=True,
    )
    assert (8, 0x100, State.WRITTEN) in found
    assert (0x108, 1, State.FAILED) in found
    assert (0x4000, 0x4000, State.WRITTEN) in found
    # Up to where the image ends; the rest of the sector has nothing of it.
    assert (0x109, 0x2EF7, State.UNWRITTEN) in found
    assert (0x3000, 0x1000, State.ERASED) in found


def test_what_was_written_before_a_retry_stays_written() -> None:
    again = ev.Layout(
        LAYOUT.regions, LAYOUT.image, ((FLASH + 0x4000, 0x8000),), ((FLASH, 0x4000),), (), LAYOUT.writes[1:]
    )
    found = pieces(
        *erased(),
        ev.PhaseStarted("imu", Phase.WRITE, 0x7000),
        ev.Progress("imu", Phase.WRITE, 0x4100, 0x7000),
        ev.Retrying("imu", Phase.WRITE, 2, 3, "E-SERIAL-TIMEOUT", "no answer"),
        ev.Planned("imu", 0x9000, 0x10000, 1, 0x4000, 0x3000, 0, 0x5000, None, layout=again),
    )
    assert found == [
        (0, 0x4000, State.PLANNED),
        (0x4000, 0x4000, State.WRITTEN),
        (0x8000, 0x4000, State.PRESENT),
        (0xC000, 0x4000, State.UNTOUCHED),
    ]


@pytest.mark.parametrize(("done", "state"), [(0, State.FAILED), (0x4000, State.WRITTEN)])
def test_a_comparison_that_fails(done: int, state: State) -> None:
    """Where the part judges the whole image, all of it failed; where it is read back, the place is known."""
    found = pieces(
        *erased(),
        ev.PhaseStarted("imu", Phase.WRITE, 0x7000),
        ev.PhaseFinished("imu", Phase.WRITE, 0x7000, 1.0),
        ev.PhaseStarted("imu", Phase.VERIFY, 0x8000),
        ev.Progress("imu", Phase.VERIFY, done, 0x8000),
        failed=True,
    )
    assert found[0] == (0, 0x3000, state)


def test_a_part_that_takes_its_plan_memory_by_memory() -> None:
    """The order of a UDS profile: erase and download one region, then the next."""
    layout = ev.Layout(
        regions=(("app", 0, 0x100), ("data", 0x1000, 0x80)),
        image=((0, 0x100), (0x1000, 0x80)),
        erase=((0x1000, 0x80), (0, 0x100)),
        writes=((0x1000, 0x80), (0, 0x100)),
    )
    picture = MemoryPicture()
    for event in (
        ev.Planned("ecu", 0x180, 0x180, 2, 0x180, 0x180, 0, 0, None, layout=layout),
        ev.PhaseStarted("ecu", Phase.ERASE, 0x100),
        ev.PhaseFinished("ecu", Phase.ERASE, 0x100, 1.0),
        ev.PhaseStarted("ecu", Phase.WRITE, 0x100),
        ev.Progress("ecu", Phase.WRITE, 0x40, 0x100),
    ):
        picture.take(event)
    app, data = picture.memories("ecu")
    assert [(piece.size, piece.state) for piece in app.stretches] == [(0x40, State.WRITTEN), (0xC0, State.UNWRITTEN)]
    assert [piece.state for piece in data.stretches] == [State.PLANNED]


def test_a_plan_of_many_runs_is_painted_soon() -> None:
    """An image with a gap behind each few bytes: the page came minutes after its flash."""
    count = 8000
    runs = tuple((FLASH + 64 * number, 32) for number in range(count))
    layout = ev.Layout((("flash", FLASH, 64 * count),), image=runs, present=(), erase=runs, writes=runs)
    picture, size, began = MemoryPicture(), 32 * count, time.process_time()
    picture.take(ev.Planned("imu", size, size, count, size, size, 0, 0, None, layout=layout))
    for phase in (Phase.ERASE, Phase.WRITE, Phase.VERIFY):
        picture.take(ev.PhaseStarted("imu", phase, size))
        picture.take(ev.PhaseFinished("imu", phase, size, 1.0))
    (memory,) = picture.memories("imu")
    assert [stretch.state for stretch in memory.stretches] == [State.VERIFIED, State.UNTOUCHED] * count
    assert time.process_time() - began < 30
