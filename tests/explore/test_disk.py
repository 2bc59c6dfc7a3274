"""The simulated disk: what it takes for sure, and what a cut leaves."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxyflash.transports import private_files
from proxyflash.updates.engine import disk as product
from proxyflash.updates.engine.journal import Journal, records

from .disk import Disk


@pytest.fixture
def points() -> list[str]:
    return []


@pytest.fixture
def disk(tmp_path: Path, points: list[str]) -> Iterator[Disk]:
    (tmp_path / "before").write_bytes(b"was there")
    with Disk(tmp_path, points.append) as made:
        yield made


def test_what_is_written_and_not_synced_is_lost_in_part_or_whole(disk: Disk) -> None:
    path = disk.folder / "file"
    with path.open("wb") as stream:
        stream.write(b"sure")
        stream.flush()
        os.fsync(stream.fileno())
        product.sync_folder(disk.folder)
        stream.write(b"perhaps.")
    assert disk.left_of(0.0).files == {"before": b"was there", "file": b"sure"}
    assert disk.left_of(0.5).files["file"] == b"sureperh"
    assert disk.left_of(1.0).files["file"] == b"sureperhaps."


def test_a_name_is_sure_once_its_folder_is_synced(disk: Disk) -> None:
    (disk.folder / "folder").mkdir()
    with (disk.folder / "folder" / "file").open("wb") as stream:
        os.fsync(stream.fileno())
    product.sync_folder(disk.folder / "folder")
    # The file's name is in its folder, and the folder's name is not on the disk.
    assert disk.left_of(0.0).files == {"before": b"was there"}
    product.sync_folder(disk.folder)
    assert disk.left_of(0.0).files == {"before": b"was there", "folder/file": b""}
    assert disk.left_of(0.0).folders == ["folder"]


def test_a_rename_and_a_removal_that_are_not_synced_may_not_have_happened(disk: Disk) -> None:
    (disk.folder / "other").write_bytes(b"new")
    (disk.folder / "other").rename(disk.folder / "before")
    assert disk.left_of(0.0).files == {"before": b"was there"}
    assert disk.left_of(1.0).files == {"before": b"new"}
    disk.rest()
    (disk.folder / "before").unlink()
    assert disk.left_of(0.0).files == {"before": b"new"}
    assert disk.left_of(1.0).files == {}


def test_names_are_kept_in_their_order(disk: Disk) -> None:
    for name in "abcd":
        (disk.folder / name).touch()
    assert set(disk.left_of(0.5).files) == {"before", "a", "b"}


def test_what_the_product_writes_whole_is_whole_or_not_there(disk: Disk) -> None:
    left = [disk.left_of(part / 8).files for part in range(9)]
    points = []

    def see(what: str) -> None:
        points.append(what)
        left.extend(disk.left_of(part / 8).files for part in range(9))

    disk._point = see
    with private_files.whole(disk.folder / "before") as stream:
        stream.write(b"another")
    assert {files["before"] for files in left} == {b"was there", b"another"}
    assert disk.left_of(0.0).files == {"before": b"another"}
    assert len(points) > 4


def test_a_folder_that_the_product_makes_is_sure_and_so_are_those_above_it(disk: Disk) -> None:
    """What is synced in a folder is lost if the folder's own name is."""
    private_files.folder(disk.folder / "one" / "two" / "three")
    assert disk.left_of(0.0).folders == ["one", "one/two", "one/two/three"]


def test_what_the_journal_has_told_is_on_the_disk(disk: Disk) -> None:
    journal = Journal.create(disk.folder / "journal")
    for number in range(3):
        journal.append("told", {"number": number}, sync=number < 2)
    journal.close()
    for part, count in ((0.0, 2), (0.5, 2), (1.0, 3)):
        disk.put(disk.left_of(part))
        assert [record["number"] for record in records(disk.folder / "journal")] == list(range(count))
        # As before the cut.
        journal = Journal.reopen(disk.folder / "journal")
        if count == 2:
            journal.append("told", {"number": 2}, sync=False)
        journal.close()


def test_chance_leaves_what_the_rule_allows(disk: Disk) -> None:
    with (disk.folder / "file").open("wb") as stream:
        stream.write(b"sure")
        stream.flush()
        os.fsync(stream.fileno())
        product.sync_folder(disk.folder)
        stream.write(b"more")
    left = {disk.after_a_cut(random.Random(seed)).files["file"] for seed in range(100)}
    assert left == {b"suremore"[:end] for end in range(4, 9)}


def test_every_operation_is_a_point(disk: Disk, points: list[str]) -> None:
    with private_files.whole(disk.folder / "file") as stream:
        stream.write(b"data")
    descriptor = os.open(disk.folder / "file", os.O_WRONLY)
    os.write(descriptor, b"DATA")
    os.close(descriptor)
    (disk.folder / "file").unlink()
    assert points == [
        "open .file.partial", "fsync .file.partial", "fsynced .file.partial", "rename .file.partial",
        "fsync ", "fsynced ", "write file", "written half of file", "remove file",
    ]  # fmt: skip


def test_it_fills_up(disk: Disk) -> None:
    disk.left = 10
    journal = os.open(disk.folder / "file", os.O_WRONLY | os.O_CREAT)
    assert os.write(journal, b"12345678") == 8
    assert os.write(journal, b"12345678") == 2
    with pytest.raises(OSError, match="No space left") as caught:
        os.write(journal, b"3")
    assert caught.value.errno == errno.ENOSPC
    os.close(journal)


def test_what_lies_elsewhere_is_no_business_of_it(
    disk: Disk, points: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("elsewhere")
    with private_files.whole(other / "file") as stream:
        stream.write(b"data")
    assert points == []
    assert disk.left_of(1.0).files == {"before": b"was there"}
