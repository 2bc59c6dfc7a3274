"""Files that the user names: regular ones alone, whatever is put in their place."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from proxyflash.tests.processes import descriptors
from proxyflash.tests.users import NOBODY, as_nobody, needs_root, shared_folder
from proxyflash.transports import named_files

pytestmark = pytest.mark.timeout(60)


def test_a_file_is_read_through_links(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert named_files.read(tmp_path / "link") == b"12345"
    # One byte more says that there are more.
    assert [len(named_files.read(tmp_path / "file", most)) for most in (0, 3, 4, 5, 9)] == [1, 4, 5, 5, 5]


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(OSError, match="not a regular file") as caught:
            named_files.opened(path)
        assert caught.value.filename == str(path)
    with pytest.raises(IsADirectoryError):
        named_files.opened(tmp_path)
    with pytest.raises(FileNotFoundError):
        named_files.opened(tmp_path / "none")
    with pytest.raises(ValueError, match="null"):
        named_files.opened("a\0b")


def test_a_device_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watchdog starts when it is opened, and a serial port pulls DTR."""
    flags = []
    real = os.open

    def spy(path: str, how: int, *more: int) -> int:
        flags.append(how)
        return real(path, how, *more)

    monkeypatch.setattr(os, "open", spy)
    with pytest.raises(OSError, match="not a regular file"):
        named_files.opened("/dev/zero")
    assert flags == [os.O_PATH | os.O_CLOEXEC]


def test_descriptors_are_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    before = descriptors()
    named_files.read(tmp_path / "file")
    with pytest.raises(IsADirectoryError):
        named_files.opened(tmp_path)
    assert descriptors() == before


def test_a_file_to_write(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    opener = named_files.opener(0o600)
    with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
        opener(str(tmp_path / "fifo"), os.O_WRONLY)
    with open(tmp_path / "file", "w", opener=opener) as stream:
        assert os.get_blocking(stream.fileno())
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_a_file_is_replaced_as_a_whole_and_keeps_who_may_read_it(tmp_path: Path) -> None:
    there, link = tmp_path / "there", tmp_path / "link"
    there.write_bytes(b"old")
    there.chmod(0o640)
    link.symlink_to(there)
    with suppress(ZeroDivisionError), named_files.whole(link) as stream:
        stream.write(b"half")
        raise ZeroDivisionError
    assert there.read_bytes() == b"old"
    with named_files.whole(link) as stream:
        stream.write(b"new")
    assert (there.read_bytes(), there.stat().st_mode & 0o777, link.is_symlink()) == (b"new", 0o640, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]


@needs_root
@pytest.mark.parametrize(("owner", "groups", "kept"), [(0, [1], (1, 0o660)), (NOBODY, [], (NOBODY, 0o600))])
def test_a_file_of_a_group_stays_with_it_and_opens_to_no_other(
    owner: int, groups: list[int], kept: tuple[int, int]
) -> None:
    with shared_folder() as folder:
        folder.chmod(0o777)
        there = folder / "there"
        there.write_bytes(b"old")
        os.chown(there, owner, 1)
        there.chmod(0o660)

        def work() -> None:
            with named_files.whole(there) as stream:
                stream.write(b"new")

        as_nobody(work, groups)
        found = there.stat()
        assert (there.read_bytes(), found.st_uid) == (b"new", NOBODY)
        assert (found.st_gid, found.st_mode & 0o777) == kept
