"""Files and folders that are one user's alone, and paths that lead through folders of other users.

This module is the only way to the files of the state folder. Folders are made with mode 0700 and files with 0600, whatever
the umask is. What another user owns, what others can write to, and a link in the place of a file are refused: `StateUnsafe`.
What is ours and readable to others is tightened.

A path is walked by folder descriptors, one name at a time. A symbolic link is followed only if it belongs to root or to
this user. A folder on the way to the state folder must belong to root or to this user, and nobody else may rename what
lies in it. (OpenSSH asks the same of the folders above a user's keys.)
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from . import named_files
from .errors import StateFolder, StateUnsafe

if TYPE_CHECKING:
    import socket

FOLDER_MODE = 0o700
FILE_MODE = 0o600
FULL = (errno.ENOSPC, errno.EDQUOT)
"""A full disk, and a quota that is used up."""
MAKE_ROOM = "Make room on that disk"
MOST_LINKS = 40
"""Links that one path may lead through, as in Linux."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NAME = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class ForeignLink(OSError):
    """A link that neither root nor this user made. `filename` and `strerror` say which, and whose it is."""

    def __init__(self, path: Path, owner: int) -> None:
        super().__init__(errno.ELOOP, f"the link belongs to {user_name(owner)}", str(path))


# Folders and files of the state folder.


def folder(path: Path) -> None:
    """Makes a folder for its owner alone, or checks the folder that is there. A new folder's name is on the disk.

    Raises StateUnsafe, and OSError when the folder can't be made.
    """
    number = _folder_number(path)
    os.close(number)


def own(path: Path) -> None:
    """Checks a folder that lies in a checked one. Raises StateUnsafe, OSError."""
    try:
        number = os.open(path, _FOLDER)
    except OSError as error:
        raise _unsafe_kind(path, error) from error
    try:
        _checked(number, path)
    finally:
        os.close(number)


def opened(path: Path, flags: int = os.O_RDONLY) -> int:
    """Opens a regular file in a checked folder; with O_CREAT a new one gets mode 0600.

    Raises StateUnsafe, and what os.open raises.
    """
    try:
        number = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise _unsafe_kind(path, error) from error
    try:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise StateUnsafe(f"{path} is not a regular file", remedy=_move_away(path))
        if status.st_nlink > 1:
            raise StateUnsafe(f"{path} is a hard link: the file has a second name", remedy=_move_away(path))
        _checked(number, path)
        if flags & os.O_CREAT:
            os.fchmod(number, FILE_MODE)
    except BaseException:
        os.close(number)
        raise
    return number


def reading(path: Path) -> BinaryIO:
    """A file of the state folder, for reading. Raises StateUnsafe, OSError."""
    return os.fdopen(opened(path), "rb")


def read(path: Path) -> bytes:
    """All of a file of the state folder. Raises StateUnsafe, OSError."""
    with reading(path) as stream:
        return stream.read()


def put(path: Path, data: bytes) -> None:
    """Overwrites a file in place, or makes it, and its folder. Raises StateUnsafe, StateFolder."""
    with told(path):
        folder(path.parent)
        with os.fdopen(opened(path, os.O_WRONLY | os.O_CREAT), "wb") as stream:
            stream.write(data)
            stream.truncate()


def created(path: Path) -> BinaryIO:
    """A new file. What was there under this name is removed, also a link. Raises OSError."""
    path.unlink(missing_ok=True)
    return os.fdopen(_new(path, FILE_MODE), "wb")


@contextmanager
def whole(path: Path, mode: int = FILE_MODE) -> Iterator[BinaryIO]:
    """A file that replaces what was there at the end of the block: whole, and on the disk. `mode`: less the umask, but for 0600.

    A link that lies in its place is replaced, not followed; a FIFO, a socket or a device stays. Raises OSError.
    """
    number = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(FileNotFoundError):
            kind = stat.S_IFMT(os.stat(path.name, dir_fd=number, follow_symlinks=False).st_mode)
            if kind not in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR):
                raise FileExistsError(errno.EEXIST, "there is something that is not a regular file", str(path))
        with whole_at(number, path.name, mode) as stream:
            yield stream
    finally:
        os.close(number)


def output_folder(path: Path) -> None:
    """Makes a folder that the user named, for its owner alone; an existing folder stays as it is. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(FOLDER_MODE)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    path.chmod(FOLDER_MODE)


def fifo(path: Path) -> int:
    """Makes a FIFO for its owner alone, open for reading and writing. Raises OSError when something is there."""
    os.mkfifo(path, FILE_MODE)
    number = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(number)
    if not stat.S_ISFIFO(status.st_mode) or status.st_uid != os.geteuid():
        os.close(number)
        raise FileExistsError(errno.EEXIST, "somebody has replaced the FIFO", str(path))
    return number


def listener(path: Path) -> socket.socket:
    """A Unix socket that only its owner can connect to; its folder is made. Raises StateUnsafe, OSError."""
    import socket

    if not path.parent.exists():
        folder(path.parent)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
        # Linux takes the mode of the path from the unbound socket: there is no moment at which others can connect.
        os.fchmod(made.fileno(), FILE_MODE)
        made.bind(str(path))
        made.listen()
    except BaseException:
        made.close()
        raise
    return made


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turns an OSError into StateFolder, which names the file. Where the disk is full, another folder is not advised."""
    try:
        yield
    except OSError as error:
        remedy = f"{MAKE_ROOM}, then run the same command again." if error.errno in FULL else None
        raise StateFolder(f"{error.filename or path}: {error.strerror}", remedy=remedy) from error


# By descriptors, in folders of any owner.

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _new(path: Path | str, mode: int, folder: int | None = None) -> int:
    """A descriptor of a new file. A umask may take from a mode that lets others in, not from the owner's own."""
    number = os.open(path, _NEW, mode, dir_fd=folder)
    if mode == FILE_MODE:
        os.fchmod(number, mode)
    return number


@contextmanager
def whole_at(number: int, name: str, mode: int = FILE_MODE) -> Iterator[BinaryIO]:
    """As `whole`, in an open folder."""
    partial = partial_name(name)
    remove_at(number, partial)
    stream = os.fdopen(_new(partial, mode, folder=number), "wb")
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(partial, name, src_dir_fd=number, dst_dir_fd=number)
    except BaseException:
        remove_at(number, partial)
        raise
    os.fsync(number)


def partial_name(name: str) -> str:
    """What a file is called until it is whole."""
    return f".{name}.partial"


def remove_at(number: int, name: str) -> None:
    """Removes a file or a link from an open folder, if there is one. Raises OSError."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=number)


def folder_at(number: int, name: str) -> int:
    """Opens a folder in an open folder. Raises OSError: NotADirectoryError for a link, whoever made it."""
    return os.open(name, _FOLDER, dir_fd=number)


def file_at(number: int, name: str) -> int | None:
    """Opens a file in an open folder for reading; None: there is none. Raises OSError, also for a link or a device."""
    try:
        found = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=number)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return found


def regular(path: Path) -> BinaryIO:
    """A file that a program left in a folder of ours: neither a link nor a FIFO. Raises OSError."""
    number = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = file_at(number, path.name)
    finally:
        os.close(number)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return os.fdopen(found, "rb")


def reached(path: Path) -> int:
    """Opens the folder at `path`. Follows links of root and of this user only. Raises ForeignLink, OSError."""
    number = _walked(path, make=False, safe=False)
    try:
        return os.open(".", _FOLDER, dir_fd=number)
    finally:
        os.close(number)


def named(path: Path) -> int:
    """A descriptor (O_PATH) of the file, folder or device at `path`; links as in `reached`. Raises OSError."""
    return _walked(path, make=False, safe=False, is_folder=False)


def named_file(path: Path) -> BinaryIO:
    """The regular file at `path`, for reading; links as in `reached`. Never waits for a FIFO. Raises OSError."""
    number = named(path)
    try:
        return named_files.opened_again(number, path)
    finally:
        os.close(number)


def code(path: Path, most: int) -> bytes:
    """A file of code that is about to be run, one byte more than `most` if it is longer; links as in `reached`.

    Raises OSError: PermissionError when another user than root and this one owns it, or may write to it.
    """
    with named_file(path) as stream:
        status = os.fstat(stream.fileno())
        if status.st_uid not in _trusted():
            raise PermissionError(errno.EPERM, f"it belongs to {user_name(status.st_uid)}", str(path))
        if status.st_mode & _OTHERS_WRITE and not _own_group_alone(status):
            raise PermissionError(errno.EPERM, f"it can be written to by others (mode {_mode(status)})", str(path))
        return stream.read(most + 1)


def user_name(number: int) -> str:
    """For messages: a name if this host has one, and the number."""
    with suppress(KeyError):
        return f"user {pwd.getpwuid(number).pw_name} ({number})"
    return f"user {number}"


# The walk.


def _folder_number(path: Path) -> int:
    try:
        named_only = _walked(path, make=True, safe=True)
    except ForeignLink as error:
        raise StateUnsafe(f"{error.filename} is a link, and {error.strerror}", remedy=_move_away(path)) from error
    try:
        number = os.open(".", _FOLDER, dir_fd=named_only)
    finally:
        os.close(named_only)
    try:
        _checked(number, path)
    except BaseException:
        os.close(number)
        raise
    return number


def _walked(path: Path, *, make: bool, safe: bool, is_folder: bool = True) -> int:
    """A descriptor (O_PATH) of what `path` names. `make`: folders that are missing. `safe`: checks those on the way.

    A Ctrl-C may come between any two lines: `number` is never a descriptor that is closed.
    """
    left = [*reversed(path.absolute().parts[1:])]
    number, here, links = os.open("/", _NAME | os.O_DIRECTORY), Path("/"), 0
    try:
        while left:
            if safe:
                _check_above(number, here)
            part = left.pop()
            found = _entry(number, part, make=make, is_folder=is_folder or bool(left), path=here / part)
            status = os.fstat(found)
            if not stat.S_ISLNK(status.st_mode):
                passed, number, here = number, found, here / part
                os.close(passed)
                continue
            links += 1
            try:
                if status.st_uid not in _trusted():
                    raise ForeignLink(here / part, status.st_uid)
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
                target = Path(os.readlink("", dir_fd=found))
            finally:
                os.close(found)
            if target.is_absolute():
                passed, number, here = number, os.open("/", _NAME | os.O_DIRECTORY), Path("/")
                os.close(passed)
            left += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    except BaseException:
        os.close(number)
        raise
    return number


def _entry(number: int, name: str, *, make: bool, is_folder: bool, path: Path) -> int:
    """A folder or a link, or whatever is there, in an open folder."""
    try:
        try:
            # The kernel mounts an automounted folder for those that ask for a folder.
            found = os.open(name, _NAME | os.O_DIRECTORY, dir_fd=number)
        except FileNotFoundError:
            if not make:
                raise
            with suppress(FileExistsError):
                os.mkdir(name, FOLDER_MODE, dir_fd=number)
            _sync_names(number)
            return os.open(name, _NAME | os.O_DIRECTORY, dir_fd=number)
        except NotADirectoryError:
            found = os.open(name, _NAME, dir_fd=number)
            if is_folder and not stat.S_ISLNK(os.fstat(found).st_mode):
                os.close(found)
                raise
            return found
        if make and _is_empty(found):
            # Whoever made it may have been stopped before its name was on the disk.
            _sync_names(number)
        return found
    except OSError as error:
        error.filename = str(path)
        raise


def _is_empty(number: int) -> bool:
    """Whether an open folder (O_PATH) is seen to have nothing in it."""
    with suppress(PermissionError), _readable(number) as readable, os.scandir(readable) as entries:
        return not any(entries)
    return False


def _sync_names(number: int) -> None:
    """Has the names in an open folder (O_PATH) on the disk: what is synced in a new folder is lost with its name."""
    with suppress(PermissionError), _readable(number) as readable:
        os.fsync(readable)


@contextmanager
def _readable(number: int) -> Iterator[int]:
    """The same folder (O_PATH), open for reading. Raises PermissionError."""
    opened = os.open(".", _FOLDER, dir_fd=number)
    try:
        yield opened
    finally:
        os.close(opened)


def _check_above(number: int, path: Path) -> None:
    """Nobody but root and this user may replace what lies in a folder above. Raises StateUnsafe."""
    status = os.fstat(number)
    if status.st_uid not in _trusted():
        raise StateUnsafe(
            f"{path} belongs to {user_name(status.st_uid)}, who can replace what lies in it",
            remedy="Name a state folder elsewhere: --state FOLDER, or PROXYFLASH_STATE.",
        )
    if status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX and not _own_group_alone(status):
        raise StateUnsafe(
            f"{path} can be written to by others (mode {_mode(status)}), who can replace what lies in it",
            remedy=f"chmod go-w {shlex.quote(str(path))}, or name another state folder: --state FOLDER.",
        )


def _checked(number: int, path: Path) -> None:
    """A file or folder is this user's alone; what others may only read is tightened. Raises StateUnsafe, OSError."""
    status = os.fstat(number)
    if status.st_uid != os.geteuid():
        raise StateUnsafe(
            f"{path} belongs to {user_name(status.st_uid)}, and this is {user_name(os.geteuid())}",
            remedy=_move_away(path),
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode & _OTHERS_WRITE and not _own_group_alone(status):
        raise StateUnsafe(
            f"{path} can be written to by others (mode {_mode(status)}): what it holds may be theirs",
            remedy=f"If nobody else wrote to it: chmod -R go= {shlex.quote(str(path))}. Otherwise: {_move_away(path)}",
        )
    if mode & 0o077:
        try:
            os.fchmod(number, mode & FOLDER_MODE)
        except OSError as error:
            # Where nothing can be written, what is there may still be looked at.
            if error.errno != errno.EROFS:
                raise


def _own_group_alone(status: os.stat_result) -> bool:
    """Whether only the owner's group can write, and nobody but the owner is in it: many systems make a group a user.

    A group is in two files: its members in one, and in the other the accounts that have it as their primary group. One
    number may have several names.
    """
    if status.st_mode & stat.S_IWOTH:
        return False
    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    if owner.pw_gid != group.gr_gid or owner.pw_name != group.gr_name:
        return False
    members = {name for entry in (group, *grp.getgrall()) if entry.gr_gid == group.gr_gid for name in entry.gr_mem}
    members |= {one.pw_name for one in pwd.getpwall() if one.pw_gid == group.gr_gid and one.pw_uid != owner.pw_uid}
    return members <= {owner.pw_name}


def _trusted() -> set[int]:
    """Users that can do what they like anyway: root, this user, and who owns / (in a container, root by another number)."""
    return {0, os.geteuid(), Path("/").stat().st_uid}


def _unsafe_kind(path: Path, error: OSError) -> OSError | StateUnsafe:
    """What an open that follows no link and waits for nothing failed for."""
    with suppress(OSError):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            owner = user_name(status.st_uid)
            return StateUnsafe(f"{path} is a link of {owner}, not a file or folder", remedy=_move_away(path))
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            return StateUnsafe(f"{path} is not a regular file", remedy=_move_away(path))
    return error


def _move_away(path: Path) -> str:
    return f"Move {path} away, or name another state folder: --state FOLDER, or PROXYFLASH_STATE."


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"
