"""CAN frames as the signals of a DBC file, by cantools, which is an extra of its own: proxyflash[dbc]."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..flashers.describing import EXTENDED, REMOTE, Describer, Line, Said
from ..transports import named_files
from ..transports.errors import ExitStatus, ProxyflashError
from ..transports.plain import plain, quoted
from ..transports.recording.records import CanFrame, Record

MOST_BYTES = 16 << 20
"""Of a DBC file."""
MOST_WORDS = 400
"""Characters of a frame's signals."""


class DbcWrong(ProxyflashError):
    """The file of `monitor --dbc` can't be read as a DBC file, or cantools is not installed. The message says which."""

    code = "E-DBC"
    exit_status = ExitStatus.BAD_FILE
    default_remedy = "Name another file."


class DbcDescriber(Describer):
    """The frames of the messages that a DBC file has. Raises DbcWrong."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._messages: dict[tuple[int, bool], Any] = {}
        for message in _loaded(path).messages:
            self._messages[message.frame_id, message.is_extended_frame] = message

    def take(self, record: Record) -> Iterable[Line] | None:
        if not isinstance(record, CanFrame) or record.flags & REMOTE:
            return None
        message = self._messages.get((record.can_id, bool(record.flags & EXTENDED)))
        if message is None:
            return None
        said = _said(message, record.data)
        return None if said is None else [self.line(record, None, said, record.data)]


def _loaded(path: Path) -> Any:
    try:
        from cantools import database
    except ImportError:
        raise DbcWrong("cantools is not installed", remedy="Run: pip install 'proxyflash[dbc]'") from None
    try:
        data = named_files.read(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        raise DbcWrong(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > MOST_BYTES:
        raise DbcWrong(f"{path}: this has more than {MOST_BYTES:,} bytes")
    try:
        # Vector's tools write this encoding.
        return database.load_string(data.decode("cp1252", "replace"), database_format="dbc", strict=False)
    except Exception as error:  # Whatever a parser of foreign text finds wrong with it.
        raise DbcWrong(f"{path}: {quoted(str(error))}") from error


def _said(message: Any, data: bytes) -> Said | None:
    """The signals with their units; None: the frame does not fit its message."""
    try:
        values = message.decode(data, allow_truncated=True)
        units = {signal.name: signal.unit or "" for signal in message.signals}
        told = ", ".join(f"{name} = {_value(value)} {units.get(name, '')}".rstrip() for name, value in values.items())
    except Exception:  # Whatever a decoder of foreign bytes finds wrong with them: they are shown as bytes.
        return None
    return Said(plain(f"{message.name} {told}".rstrip(), MOST_WORDS))


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
