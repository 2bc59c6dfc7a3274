"""The folder of an application, which another user may own: nothing below it is reached through a link.

Each folder on the way to a file is opened from the one above, without following links, and the file is handled by that
descriptor. What the folder's owner exchanges in the meantime changes nothing of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ...transports import private_files
from ...transports.private_files import ForeignLink
from ..errors import StepFailed

NEW_FOLDER_MODE = 0o755


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file of the application is, or goes."""

    path: Path
    """For messages."""
    _folder: int | None
    """Open; None: the folder is not there."""

    def opened(self) -> BufferedReader | None:
        """The file that is there, for reading. Raises StepFailed for a link, and for anything else that is not a file."""
        if self._folder is None:
            return None
        try:
            number = private_files.file_at(self._folder, self.path.name)
        except OSError as error:
            reason = error.strerror if isinstance(error, PermissionError) else "a link or no file"
            raise StepFailed(f"{self.path} is {reason}") from error
        return None if number is None else os.fdopen(number, "rb")

    def tidy(self) -> None:
        """Removes what an interrupted `put` may have left. Raises OSError."""
        if self._folder is not None:
            private_files.remove_at(self._folder, private_files.partial_name(self.path.name))

    def put(self, pour: Callable[[BinaryIO], object], *, mode: int, owner: tuple[int, int] | None) -> None:
        """A whole file or none, on the disk when this returns. `pour` writes the contents. Raises what it does, OSError."""
        assert self._folder is not None, "it was asked for with make"
        with private_files.whole_at(self._folder, self.path.name) as out:
            pour(out)
            if owner is not None:
                os.fchown(out.fileno(), *owner)
            os.fchmod(out.fileno(), mode)

    def remove(self) -> None:
        """On the disk when this returns. Raises OSError."""
        if self._folder is not None:
            private_files.remove_at(self._folder, self.path.name)
            os.fsync(self._folder)


@contextmanager
def reached(root: Path, target: PurePosixPath, *, make: bool = False) -> Iterator[Place]:
    """The place of `target` below the application's folder. `make`: folders on the way that are missing.

    Raises StepFailed for what leads out of the folder.
    """
    try:
        number = private_files.reached(root)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StepFailed(f"{root}, the application's folder, is not there") from error
    except ForeignLink as error:
        raise StepFailed(f"{root}, the application's folder: {error.filename}: {error.strerror}") from error
    except OSError as error:
        raise StepFailed(f"{root}, the application's folder: {error.strerror}") from error
    here, is_there = root, True
    try:
        for part in target.parts[:-1]:
            here = here / part
            found = _folder(number, part, here, make=make)
            if found is None:
                is_there = False
                break
            os.close(number)
            number = found
        yield Place(root / target, number if is_there else None)
    finally:
        os.close(number)


def _folder(number: int, name: str, path: Path, *, make: bool) -> int | None:
    """One on the way, opened, and on the disk when this returns. Raises StepFailed."""
    try:
        if make:
            with suppress(FileExistsError):
                os.mkdir(name, NEW_FOLDER_MODE, dir_fd=number)
            os.fsync(number)
        return private_files.folder_at(number, name)
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise StepFailed(f"{path} is a link or no folder") from error
    except OSError as error:
        raise StepFailed(f"{path}: {error.strerror}") from error
