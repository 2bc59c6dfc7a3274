"""The journal: what a cut leaves of it at every byte, what damage is, and what a full or read-only disk does."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import stat
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.report_page import updates
from proxyflash.transports import clock
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.journal import Journal, decoded, encoded, records, timed
from proxyflash.updates.engine.progress import Progress
from proxyflash.updates.engine.store import Store
from proxyflash.updates.errors import JournalBroken, JournalNotWritten

from .lab import Lab

KINDS = ("begin", "start", "end")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def written(path: Path, count: int = 3) -> list[bytes]:
    """A journal of some records; its lines."""
    journal = Journal.create(path)
    for number in range(count):
        journal.append(KINDS[number % 3], {"task": number, "details": "spät \n\u2028"})
    journal.close()
    return path.read_bytes().splitlines(keepends=True)


def test_a_line_is_json_that_ends_with_the_crc_of_what_is_before_it(path: Path) -> None:
    for number, line in enumerate(written(path), 1):
        record = json.loads(line)
        assert list(record)[:4] == ["seq", "time", "up", "kind"]
        assert list(record)[-1] == "crc"
        assert record["seq"] == number
        body = line[: line.rindex(b',"crc"')] + b"}"
        assert int(record["crc"], 16) == zlib.crc32(body)
        assert json.loads(body) == {key: value for key, value in record.items() if key != "crc"}


def test_nobody_else_reads_it(path: Path) -> None:
    written(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_is_on_the_disk_when_append_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    journal = Journal.create(path)
    assert len(synced) == 1  # The folder, for the file's name.
    for _ in range(2):
        journal.append("begin", {})
        assert synced[-1] == path.stat().st_size
    journal.append("note", {}, sync=False)
    assert len(synced) == 3
    journal.close()


def test_a_tail_torn_at_every_byte(path: Path) -> None:
    """Whole lines are kept, the torn one is as never written, and what is appended follows the last whole one."""
    lines = written(path)
    whole = b"".join(lines)
    ends = [0, len(lines[0]), len(lines[0] + lines[1]), len(whole)]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        kept = max(index for index, end in enumerate(ends) if end <= size)
        assert [record["seq"] for record in records(path)] == list(range(1, kept + 1))
        journal = Journal.reopen(path)
        assert len(list(records(path))) == kept
        assert path.stat().st_size == ends[kept]
        journal.append("resumed", {})
        journal.close()
        assert [record["seq"] for record in records(path)] == list(range(1, kept + 2))


@pytest.mark.parametrize("tail", [b"\0" * 500, b"\0" * 10 + b"\n", b"\xff\n\xff\n", b"{}\n", b'{"seq":4}\n', b"\n\n"])
def test_what_else_a_power_cut_leaves_at_the_end(path: Path, tail: bytes) -> None:
    """A file system may have given the file its length before its contents."""
    written(path)
    with path.open("ab") as stream:
        stream.write(tail)
    assert len(list(records(path))) == 3
    Journal.reopen(path).close()
    assert len(path.read_bytes().splitlines()) == 3


def test_a_bad_line_amid_good_ones_is_damage_wherever_it_is(path: Path) -> None:
    lines = written(path)
    whole = bytearray(b"".join(lines))
    # Without the line's end before the last line, the two are one, and that is the last.
    for place in range(len(lines[0] + lines[1]) - 1):
        damaged = whole.copy()
        damaged[place] ^= 0x20
        path.write_bytes(damaged)
        number = 1 if place < len(lines[0]) else 2
        with pytest.raises(JournalBroken, match=rf"line {number} "):
            list(records(path))
        with pytest.raises(JournalBroken):
            Journal.reopen(path)


@pytest.mark.parametrize("order", [(0, 0, 1, 2), (0, 2), (1, 2), (0, 2, 1)])
def test_lines_that_were_repeated_lost_or_swapped_are_damage(path: Path, order: tuple[int, ...]) -> None:
    lines = written(path)
    path.write_bytes(b"".join(lines[index] for index in order))
    with pytest.raises(JournalBroken):
        list(records(path))


def test_one_that_is_there_is_not_begun_anew(path: Path) -> None:
    written(path)
    with pytest.raises(JournalNotWritten):
        Journal.create(path)


class FileLimit:
    """No file may grow beyond this: what a full disk is like, at a chosen byte."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self._before[1]))

    def __exit__(self, *error: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)
        signal.signal(signal.SIGXFSZ, self._handler)


def test_a_disk_that_is_full_at_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is not there, it is said so, and nothing follows half a line."""
    monkeypatch.setattr(clock, "monotonic", lambda: 12.345)  # Each line is as long as the same line of another journal.
    first = len(written(tmp_path / "first", 1)[0])
    second = len(written(tmp_path / "second", 2)[1])
    for size in range(first, first + second):
        path = tmp_path / f"{size}.jsonl"
        journal = Journal.create(path)
        journal.append(KINDS[0], {"task": 0, "details": "spät \n\u2028"})
        with FileLimit(size), pytest.raises(JournalNotWritten) as caught:
            journal.append(KINDS[1], {"task": 1, "details": "spät \n\u2028"})
        assert caught.value.exit_status == 10
        # Room again: but what is there may be half a line.
        with pytest.raises(JournalNotWritten):
            journal.append(KINDS[1], {})
        journal.close()
        assert [record["seq"] for record in records(path)] == [1]
        again = Journal.reopen(path)
        again.append(KINDS[1], {})
        again.close()
        assert [record["seq"] for record in records(path)] == [1, 2]


@pytest.mark.parametrize("when", ["create", "append"])
def test_a_disk_that_does_not_take_it(path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    if when == "create":
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(JournalNotWritten, match="Input/output error"):
            Journal.create(path)
        return
    journal = Journal.create(path)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(JournalNotWritten, match="Input/output error"):
        journal.append("begin", {})
    journal.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=8).filter(lambda key: key != "crc"), json_values, max_size=5))
def test_what_is_written_is_read(fields: dict[str, Any]) -> None:
    record = {"seq": 1, **fields}
    line = encoded(record)
    assert line.count(b"\n") == 1
    assert decoded(line) == record


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_whatever_is_there_is_read_or_told(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("j") / "journal.jsonl"
    path.write_bytes(data)
    assert list(records(path)) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["kind", "task", "action", "tasks", "code"]), json_values), max_size=4))
def test_records_that_check_and_make_no_sense_are_told(found: list[dict[str, Any]]) -> None:
    try:
        Progress.of(({"seq": index, "time": "", "kind": "?", **item} for index, item in enumerate(found)), "j")
    except JournalBroken:
        return


def test_nothing_comes_after_the_end(path: Path) -> None:
    begin = {"seq": 1, "time": "", "kind": "begin", "tasks": 1}
    finish = {"seq": 2, "time": "", "kind": "finish", "ending": "succeeded"}
    assert Progress.of((begin, finish), "j").over
    for later in (finish | {"seq": 3}, begin | {"seq": 3}, {"seq": 3, "time": "", "kind": "resumed"}):
        with pytest.raises(JournalBroken, match="record 3 makes no sense"):
            Progress.of((begin, finish, later), "j")
    with pytest.raises(JournalBroken, match="record 2"):
        Progress.of((finish | {"seq": 2},), "j")


BEGIN = {
    "seq": 1, "time": "2026-01-01T00:00:00+00:00", "kind": "begin", "tasks": 1, "update": "a/b 1.0", "manifest": "m",
    "documents": [], "digest": "", "on_failure": "stop", "parallel": False, "components": [],
}  # fmt: skip
COMPONENT = {
    "id": "1", "name": "a", "group": "", "manufacturer": "", "model": "", "version": "", "presence": "ok", "bus": "b",
    "protocol": "p", "where": "w", "properties": {},
}  # fmt: skip


@pytest.mark.parametrize(
    "junk",
    [
        {"components": 5}, {"components": [5]}, {"components": [{}]}, {"components": [COMPONENT | {"presence": "x"}]},
        {"components": [COMPONENT | {"more": ""}]}, {"components": [COMPONENT | {"id": 1}]}, {"tasks": "1"},
        {"tasks": 1 << 60}, {"tasks": -1}, {"documents": 5}, {"manifest": "../x"}, {"manifest": 5}, {"update": []},
        {"time": 5}, {"time": "yesterday"}, {"time": "2026-01-01T00:00:00"}, {"time": None}, {"on_failure": "x"},
        {"undoes": "x", "done": [0]}, {"undoes": 1, "done": [7]}, {"undoes": 1, "done": "x"}, {"digest": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_first_record_that_checks_and_holds_anything_is_told(tmp_path: Path, junk: dict[str, Any]) -> None:
    updates = tmp_path / "updates" / "000001"
    updates.mkdir(parents=True, mode=0o700)
    (updates / "journal.jsonl").write_bytes(encoded(BEGIN | {"components": [COMPONENT]}))
    store = Store(tmp_path)
    assert store.entry(1).progress().begin["update"] == "a/b 1.0"
    (updates / "journal.jsonl").write_bytes(encoded(BEGIN | junk))
    with pytest.raises(JournalBroken):
        store.entry(1).progress()
    # What looks at all of them passes it over.
    store.seen(30)
    assert store.backed_up() == []


def test_a_first_record_without_what_is_asked_for_is_told() -> None:
    begin = Progress.of(({"seq": 1, "time": "", "kind": "begin", "tasks": 0},), "j").begin
    for field in ("components", "manifest", "digest", "parallel", "update"):
        with pytest.raises(JournalBroken, match=field):
            begin[field]


@pytest.mark.parametrize("task", [-1, 1, True, "0", 0.0, None, [0]])
def test_a_record_of_a_task_that_is_none_is_told(task: Any) -> None:
    start = {"seq": 2, "time": "", "kind": "start", "action": "install", "task": task}
    with pytest.raises(JournalBroken, match="record 2"):
        Progress.of((BEGIN, start), "j")


@pytest.mark.parametrize("code", [float("inf"), "x", None, []])
def test_a_record_of_a_result_that_is_none_is_told(code: Any) -> None:
    end = {
        "seq": 2,
        "time": "",
        "kind": "end",
        "action": "install",
        "task": 0,
        "code": code,
        "extended": 0,
        "details": "",
    }
    with pytest.raises(JournalBroken, match="record 2"):
        Progress.of((BEGIN, end), "j")


def test_time_goes_on_where_the_clock_was_set_back() -> None:
    """A host without a battery: its clock is in 1970 until the network has set it."""
    clocks = ("2026-11-30T12:00:00Z", "2026-11-30T12:00:05Z", "1970-01-01T00:00:09Z", "1970-01-01T00:00:12Z")
    times = [at for at, _ in timed({"time": clock} for clock in clocks)]
    assert [at - times[0] for at in times] == [0, 5, 5, 8]


OLD, NOW = "1970-01-01T00:00:{:02}Z", "2026-11-30T12:00:{:02}Z"


@pytest.mark.parametrize(
    ("seen", "passed"),
    [
        # The network sets the clock during a run, and back.
        ([(OLD, 9, 9.0), (OLD, 10, 10.0), (NOW, 0, 12.5), (NOW, 1, 13.5), (OLD, 1, 14.0)], [0, 1, 3.5, 4.5, 5]),
        # The process was killed, and the update goes on before the host is started again.
        ([(OLD, 9, 9.0), (NOW, 0, 40.0, "a"), (NOW, 1, 41.0)], [0, 31, 32]),
        # The host was started again: the clock was right before, and is now.
        ([(NOW, 0, 900.0), (NOW, 30, 5.0, "b"), (NOW, 31, 6.0)], [0, 30, 31]),
        # The host was up longer than before.
        ([(NOW, 0, 5.0), (NOW, 30, 900.0, "b"), (NOW, 31, 901.0)], [0, 30, 31]),
        # The clock was not right before: nobody knows how long the host was off.
        ([(OLD, 9, 9.0), (OLD, 10, 10.0), (NOW, 0, 5.0, "b"), (NOW, 1, 6.0)], [0, 1, 1, 2]),
        # It is not right now.
        ([(NOW, 0, 900.0), (OLD, 9, 5.0, "b"), (OLD, 10, 6.0)], [0, 0, 1]),
        # Nonsense counts as none, and the clock is asked.
        ([(NOW, 0, "x"), (NOW, 1, True), (NOW, 2, float("nan")), (NOW, 3, 10**400), (NOW, 4, -1)], [0, 1, 2, 3, 4]),
    ],
)
def test_durations_are_of_the_clock_that_nobody_sets(seen: list[Any], passed: list[float]) -> None:
    boots = iter([{"boot": "a", "created": "2026-01-01T00:00:00Z"}])
    found = []
    for form, second, up, *boot in seen:
        found.append({"time": form.format(second), "up": up, **next(boots, {}), **({"boot": boot[0]} if boot else {})})
    times = [at for at, _ in timed(found)]
    assert [at - times[0] for at in times] == pytest.approx(passed)


def test_a_report_of_an_update_amid_which_the_clock_is_set(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    wall = clock.now
    off = [timedelta(days=-20_000)]
    monkeypatch.setattr(clock, "now", lambda: wall() + off[0])

    def set_clock() -> None:
        off[0] = timedelta()
        clock.sleep(5)

    lab.fault("right one", Action.INSTALL, set_clock)
    assert lab.apply(lab.bundle()).succeeded
    with lab.engine() as engine:
        entry = engine.store.entry(1)
        page = updates.story(engine.outcome(entry), entry)
    assert page.ended - page.began == pytest.approx(5, abs=1)
    assert all(span.end - span.start < 6 for lane in page.lanes for span in lane.spans)
