"""The state folder is one user's alone, and paths through folders of other users lead nowhere else."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from proxyflash.tests.users import NOBODY, as_nobody, needs_root, shared_folder
from proxyflash.transports import private_files
from proxyflash.transports.errors import ExitStatus, StateFolder, StateUnsafe


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def shared() -> Iterator[Path]:
    with shared_folder() as folder:
        yield folder


@pytest.mark.parametrize("value", [0o000, 0o002, 0o022, 0o077])
def test_what_is_made_is_the_owner_s_alone_whatever_the_umask(tmp_path: Path, value: int) -> None:
    top = tmp_path / "state"
    with umask(value):
        private_files.folder(top / "benches" / "desk")
        private_files.put(top / "benches" / "one.json", b"1")
        with private_files.created(top / "created") as stream:
            stream.write(b"2")
        with private_files.whole(top / "whole") as stream:
            stream.write(b"3")
        os.close(private_files.opened(top / "lock", os.O_RDWR | os.O_CREAT))
        os.close(private_files.fifo(top / "control"))
        private_files.listener(top / "line.sock").close()
    found = {str(path.relative_to(tmp_path)): mode(path) for path in tmp_path.rglob("*")}
    folders = {"state", "state/benches", "state/benches/desk"}
    assert found == {path: 0o700 if path in folders else 0o600 for path in found}
    assert len(found) == 9


def test_what_others_could_read_is_tightened(tmp_path: Path) -> None:
    """An earlier version made folders 0755 and files 0644."""
    folder, file = tmp_path / "desk", tmp_path / "desk" / "lock"
    folder.mkdir(mode=0o755)
    file.write_text("process 1")
    file.chmod(0o644)
    private_files.folder(folder)
    assert private_files.read(file) == b"process 1"
    assert (mode(folder), mode(file)) == (0o700, 0o600)


def test_folders_above_the_state_folder_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "above").mkdir(mode=0o755)
    private_files.folder(tmp_path / "above" / "state")
    assert mode(tmp_path / "above") == 0o755


@pytest.mark.parametrize("bits", [0o777, 0o707, 0o702])
def test_what_others_can_write_to_is_refused(tmp_path: Path, bits: int) -> None:
    folder = tmp_path / "desk"
    folder.mkdir()
    folder.chmod(bits)
    with pytest.raises(StateUnsafe, match=rf"{folder} can be written to by others \(mode {bits:04o}\)") as caught:
        private_files.folder(folder)
    assert f"chmod -R go= {folder}" in caught.value.remedy
    assert caught.value.exit_status is ExitStatus.PERMISSION
    assert mode(folder) == bits
    folder.chmod(0o700)
    (folder / "lock").write_text("")
    (folder / "lock").chmod(0o666)
    with pytest.raises(StateUnsafe, match="lock can be written to by others"):
        private_files.opened(folder / "lock")


@needs_root
def test_a_group_of_the_owner_alone_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each user has a group of the same name, folders are 0775 by default. A group with others in it is refused."""
    folder = tmp_path / "desk"
    folder.mkdir()
    folder.chmod(0o775)
    private_files.folder(folder)
    assert mode(folder) == 0o700
    folder.chmod(0o775)
    others = grp.struct_group(("root", "x", 0, ["root", "nobody"]))
    with monkeypatch.context() as patched:
        patched.setattr(grp, "getgrgid", lambda number: others)
        with pytest.raises(StateUnsafe, match="mode 0775"):
            private_files.folder(folder)
    os.chown(folder, 0, NOBODY)
    folder.chmod(0o770)
    with pytest.raises(StateUnsafe, match="mode 0770"):
        private_files.folder(folder)


@needs_root
def test_a_group_that_another_account_is_in_may_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its primary group, which no list of members has, or by a second name of the group's number."""
    folder, file = tmp_path / "desk", tmp_path / "desk" / "lock"
    accounts, groups = pwd.getpwall(), grp.getgrall()
    private_files.put(file, b"")

    def writable() -> None:
        folder.chmod(0o770)
        file.chmod(0o660)

    def account(name: str, uid: int) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", uid, 0, "", "/", "/bin/sh"))

    monkeypatch.setattr(pwd, "getpwall", lambda: [*accounts, account("toor", 0)])
    writable()
    private_files.folder(folder)
    assert private_files.read(file) == b""
    for others, aliases in (
        ([account("operator", 11)], []),
        ([], [grp.struct_group(("wheel", "x", 0, ["operator"]))]),
    ):
        monkeypatch.setattr(pwd, "getpwall", lambda others=others: [*accounts, *others])
        monkeypatch.setattr(grp, "getgrall", lambda aliases=aliases: [*groups, *aliases])
        writable()
        with pytest.raises(StateUnsafe, match="lock can be written to by others"):
            private_files.read(file)
        with pytest.raises(StateUnsafe, match="desk can be written to by others"):
            private_files.folder(folder)
        with pytest.raises(StateUnsafe, match="who can replace what lies in it"):
            private_files.folder(folder / "below")


@pytest.mark.parametrize("target", ["there", "missing"])
@pytest.mark.parametrize(
    "use",
    [
        lambda path: private_files.opened(path, os.O_RDWR | os.O_CREAT),
        lambda path: private_files.put(path, b"data"),
        private_files.read,
        private_files.own,
    ],
    ids=["opened", "put", "read", "own"],
)
def test_a_link_in_the_place_of_a_file_is_refused(tmp_path: Path, target: str, use: Callable[[Path], object]) -> None:
    (tmp_path / "there").write_bytes(b"precious")
    (tmp_path / "lock").symlink_to(tmp_path / target)
    with pytest.raises(StateUnsafe, match=r"lock is a link of user ") as caught:
        use(tmp_path / "lock")
    assert "Move " in caught.value.remedy
    assert (tmp_path / "there").read_bytes() == b"precious"
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("use", [private_files.created, private_files.whole], ids=["created", "whole"])
def test_a_link_in_the_place_of_a_new_file_is_replaced(tmp_path: Path, use: Callable[[Path], object]) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "file").symlink_to(tmp_path / "precious")
    (tmp_path / ".file.partial").symlink_to(tmp_path / "precious")
    with use(tmp_path / "file") as stream:  # type: ignore[attr-defined]
        stream.write(b"new")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_link_that_appears_in_the_place_of_a_new_file_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after what was there had been removed."""
    (tmp_path / "precious").write_bytes(b"precious")

    def planted(number: int, name: str) -> None:
        (tmp_path / name).symlink_to("precious")

    monkeypatch.setattr(private_files, "remove_at", planted)
    with pytest.raises(FileExistsError), private_files.whole(tmp_path / "file") as stream:
        stream.write(b"new")
    assert (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("how", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_CREAT])
def test_a_fifo_in_the_place_of_a_file_is_refused_without_waiting(tmp_path: Path, how: int) -> None:
    os.mkfifo(tmp_path / "lock", 0o600)
    with pytest.raises(StateUnsafe, match="lock is not a regular file"):
        private_files.opened(tmp_path / "lock", how)


def test_a_socket_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with private_files.listener(tmp_path / "lock"), pytest.raises(StateUnsafe, match="not a regular file"):
        private_files.opened(tmp_path / "lock")


def test_a_second_name_of_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    os.link(tmp_path / "precious", tmp_path / "lock")
    with pytest.raises(StateUnsafe, match="lock is a hard link"):
        private_files.put(tmp_path / "lock", b"data")
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_link_of_this_user_on_the_way_is_followed(tmp_path: Path) -> None:
    """A person may keep the state folder on another disk."""
    (tmp_path / "disk").mkdir(mode=0o700)
    (tmp_path / "state").symlink_to("disk")
    private_files.folder(tmp_path / "state" / "benches")
    assert (tmp_path / "disk" / "benches").is_dir()


def test_links_that_lead_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        private_files.folder(tmp_path / "a" / "state")


def test_an_os_error_is_told_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(StateFolder, match=f"{tmp_path / 'none'}: Is a directory"), private_files.told(tmp_path):
        private_files.opened(tmp_path / "none", os.O_RDWR)


# Two users.


@needs_root
@pytest.mark.parametrize("bits", [0o700, 0o755, 0o777])
def test_a_folder_of_another_user_is_refused(shared: Path, bits: int) -> None:
    shared.chmod(0o1777)
    as_nobody(lambda: (shared / "state").mkdir())
    (shared / "state").chmod(bits)
    with pytest.raises(
        StateUnsafe, match=rf"{shared / 'state'} belongs to user \w+ \({NOBODY}\), and this is user root"
    ):
        private_files.folder(shared / "state")
    # Nor is anything made below it.
    with pytest.raises(StateUnsafe, match=r"belongs to user .*, who can replace what lies in it"):
        private_files.folder(shared / "state" / "benches")
    assert list((shared / "state").iterdir()) == []


@needs_root
def test_a_file_of_another_user_is_refused(shared: Path) -> None:
    private_files.put(shared / "lock", b"old")
    os.chown(shared / "lock", NOBODY, NOBODY)
    for use in (private_files.read, lambda path: private_files.put(path, b"new")):
        with pytest.raises(StateUnsafe, match=rf"lock belongs to user \w+ \({NOBODY}\)"):
            use(shared / "lock")
    assert (shared / "lock").read_bytes() == b"old"


@needs_root
def test_a_folder_above_that_others_can_write_to_is_refused_unless_it_is_sticky(shared: Path) -> None:
    shared.chmod(0o777)
    with pytest.raises(StateUnsafe, match=rf"{shared} can be written to by others \(mode 0777\)") as caught:
        private_files.folder(shared / "state")
    assert f"chmod go-w {shared}" in caught.value.remedy
    assert not (shared / "state").exists()
    shared.chmod(0o1777)
    private_files.folder(shared / "state")
    assert mode(shared / "state") == 0o700


@needs_root
def test_root_s_state_folder_in_the_home_of_another_user_is_refused(shared: Path) -> None:
    """As with sudo where it keeps HOME: the user could exchange the whole folder."""
    home = shared / "home"
    home.mkdir(mode=0o755)
    os.chown(home, NOBODY, NOBODY)
    with pytest.raises(StateUnsafe, match=rf"{home} belongs to user \w+ \({NOBODY}\)") as caught:
        private_files.folder(home / ".local/state/proxyflash/benches/desk")
    assert "--state FOLDER" in caught.value.remedy
    assert list(home.iterdir()) == []
    as_nobody(lambda: private_files.folder(home / ".local/state/proxyflash/benches/desk"))
    assert mode(home / ".local") == 0o700


@needs_root
def test_a_link_of_another_user_on_the_way_is_not_followed(shared: Path) -> None:
    shared.chmod(0o1777)
    (shared / "roots").mkdir(mode=0o700)
    as_nobody(lambda: (shared / "state").symlink_to("roots"))
    with pytest.raises(
        StateUnsafe, match=rf"{shared / 'state'} is a link, and the link belongs to user \w+ \({NOBODY}\)"
    ):
        private_files.folder(shared / "state" / "benches")
    assert list((shared / "roots").iterdir()) == []
    with pytest.raises(OSError, match="the link belongs to user"):
        private_files.reached(shared / "state")


@needs_root
def test_nobody_else_can_connect_to_a_socket(shared: Path) -> None:
    import socket

    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(PermissionError):
            client.connect(str(shared / "line.sock"))

    with umask(0), private_files.listener(shared / "line.sock"):
        as_nobody(connect)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(shared / "line.sock"))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277], ids=oct)
def test_an_output_folder_is_its_owner_s_alone_or_stays_as_it_is(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        private_files.output_folder(tmp_path / "new")
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
        (tmp_path / "new").chmod(0o755)
        private_files.output_folder(tmp_path / "new")
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o755
    finally:
        os.umask(before)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        private_files.output_folder(tmp_path / "file")


def test_a_failure_amid_a_whole_file_leaves_all_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def interrupted() -> None:
        with private_files.whole(tmp_path / "a") as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_ctrl_c_on_the_way_to_a_folder_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes just when a folder on the way was closed: nothing is closed twice, which would hide it, or close another."""
    (tmp_path / "link").symlink_to(tmp_path)
    close, left = os.close, 0

    def interrupted(number: int) -> None:
        nonlocal left
        close(number)
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "close", interrupted)
    closed = 0
    while left <= 0:
        closed += 1
        left = closed
        with suppress(KeyboardInterrupt):
            private_files.folder(tmp_path / "link" / "state")
    assert closed > len(tmp_path.parts)
