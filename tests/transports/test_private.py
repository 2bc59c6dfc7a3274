"""Files for their owner alone: whatever the umask is, whatever lies in their place, whatever happens meanwhile."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxyflash.transports.private import make_folder, written


@pytest.fixture(params=[0o000, 0o022, 0o277], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.usefixtures("umask")
def test_a_new_file_and_folder(tmp_path: Path) -> None:
    make_folder(tmp_path / "new")
    with written(tmp_path / "new" / "a") as file:
        file.write(b"x")
        [part] = (tmp_path / "new").iterdir()
        assert mode(part) == 0o600, "from the first moment on"
    assert (mode(tmp_path / "new"), mode(tmp_path / "new" / "a")) == (0o700, 0o600)
    assert (tmp_path / "new" / "a").read_bytes() == b"x"


def test_what_lies_in_its_place_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "a").symlink_to(target)
    (tmp_path / "b").write_text("old")
    (tmp_path / "b").chmod(0o666)
    for name in ("a", "b"):
        with written(tmp_path / name) as file:
            file.write(b"new")
        assert ((tmp_path / name).read_bytes(), mode(tmp_path / name)) == (b"new", 0o600)
    assert target.read_text() == "precious"


def test_a_failure_leaves_all_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def interrupted() -> None:
        with written(tmp_path / "a") as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(0o755)
    (tmp_path / "there").chmod(0o755)
    make_folder(tmp_path / "there")
    assert mode(tmp_path / "there") == 0o755
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")
