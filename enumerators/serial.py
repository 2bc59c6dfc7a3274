"""Components on serial lines: asked by the question that the bench file gives for their application, and, where the
file allows it, by what only their bootloader understands. Nothing is ever sent to a port that the file doesn't name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..flashers.base import Identity, Sighting, State
from ..transports.deadline import Deadline
from ..transports.serial import SerialPort
from .benchfile import Entry, VersionQuestion
from .component import Unlisted, toml_text
from .probers import Prober

ANSWER_LIMIT = 4096
"""Bytes read of an answer, at most."""


class SerialProber(Prober):
    """One port, with one component on it."""

    transport: SerialPort

    def sight(self, entry: Entry, deadline: Deadline) -> Sighting | None:
        """The loader first, where it may be asked: it takes the first byte that it hears for the one to measure its
        bit rate by, so a loader that heard a question is out of reach until the next reset."""
        return super().sight(entry, deadline) or self.application(entry, deadline)

    def application(self, entry: Entry, deadline: Deadline) -> Sighting | None:
        if entry.spec.version is None:
            return super().application(entry, deadline)
        version = ask(self.transport, entry.spec.version, deadline)
        return None if version is None else Sighting(State.RUNNING, Identity(version=version))

    def can_tell(self, entry: Entry) -> bool:
        return self.spec.probe or entry.flasher.answers_running or entry.spec.version is not None

    def unlisted(self, entries: Sequence[Entry], deadline: Deadline) -> list[Unlisted]:
        return []


def ask(port: SerialPort, question: VersionQuestion, deadline: Deadline) -> str | None:
    """Sends the question, and reads until the answer matches or the question's time-out has passed.

    What matches at the very end of what came may still grow, "1.5" to "1.5.0": what ends it is waited for, and if
    nothing does until the time-out, it counts as it is. Raises TransportError.
    """
    port.drain()
    limit = deadline.sooner(question.timeout)
    port.write(question.send.encode(), limit)
    pattern = re.compile(question.match.encode())
    answer = b""
    version = None
    while len(answer) < ANSWER_LIMIT:
        piece = port.read_some(limit, ANSWER_LIMIT - len(answer))
        if not piece:
            break
        answer += piece
        found = pattern.search(answer)
        if found and found[1] is not None:
            version = found[1].decode("ascii", "replace")
            if found.end(1) < len(answer):
                break
    return version


def ports_not_listed(listed: Sequence[str]) -> list[Unlisted]:
    """The host's USB serial adapters that the bench file has no bus for, by the adapters' own descriptors."""
    from serial.tools import list_ports

    real = {str(Path(url).resolve()) for url in listed if url.startswith("/")}
    found = []
    for port in sorted(list_ports.comports(), key=lambda info: info.device):
        if port.vid is None or str(Path(port.device).resolve()) in real:
            continue
        name = re.sub(r"[^a-z0-9]+", "-", (port.product or port.name).lower()).strip("-") or "port"
        url = _lasting_name(port.device)
        body = f'kind = "serial"\nurl = {toml_text(url)}\nbaudrate = 115_200'
        about = " ".join(text for text in (port.manufacturer, port.product, port.serial_number) if text)
        found.append(Unlisted("", f"{url}  {about}".rstrip(), name, body))
    return found


def _lasting_name(device: str) -> str:
    """The name under /dev/serial/by-id that stays with the adapter, where udev made one."""
    folder = Path("/dev/serial/by-id")
    if folder.is_dir():
        for link in sorted(folder.iterdir()):
            if link.resolve() == Path(device).resolve():
                return str(link)
    return device
