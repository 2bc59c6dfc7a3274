"""Components on serial lines: asked by the question that the bench file gives for their application, and, where the
file allows it, by what only their bootloader understands.

A line without a component has an unknown part: it is asked by the protocols that the file lists for the line, in that
order and at those rates, until one answers, each after a quiet time, so that what one made of another's question has
passed. Nothing is ever sent to a port that the file doesn't name, and nothing but what it lists. Of a USB adapter its own
identity is listed with the part's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...flashers.flasher import Bootloader, Identity, ProbeResult, State
from ...flashers.serial.profile import SerialProfile
from ...flashers.settings import Settings
from ...transports import plugins
from ...transports.deadline import Deadline
from ...transports.errors import PluginBroken
from ...transports.serial.host import lasting_name
from ...transports.serial.port import SerialPort
from ...transports.toml_text import toml_text, toml_value
from ..benchfile.schema import AskSpec, BenchEntry, BusSpec, VersionQuestion
from ..component import Unlisted
from . import Prober

if TYPE_CHECKING:
    from serial.tools.list_ports_common import ListPortInfo

ANSWER_LIMIT = 4096
"""Bytes read of an answer, at most."""
ASK_SECONDS = 3.0
"""How long one protocol's question may take."""
QUIET_TIMES = 10
"""A part that talks all the time is asked after this number of quiet times."""


class SerialProber(Prober):
    """One port, with one component on it."""

    transport: SerialPort
    asks = True
    sees_bootloaders = False

    @classmethod
    def attached(cls) -> list[Unlisted]:
        return cls.not_listed([])

    @classmethod
    def not_listed(cls, listed: Sequence[Mapping[str, Any]]) -> list[Unlisted]:
        """The host's USB serial adapters that the bench file has no bus for, by the adapters' own descriptors."""
        from serial.tools import list_ports

        urls = (str(settings.get("url", "")) for settings in listed)
        real = {str(Path(url).resolve()) for url in urls if url.startswith("/")}
        return [
            _bus(port)
            for port in sorted(list_ports.comports(), key=lambda info: info.device)
            if port.vid is not None and str(Path(port.device).resolve()) not in real
        ]

    def probe(self, entry: BenchEntry, deadline: Deadline) -> ProbeResult | None:
        """The loader first, where it may be asked: it takes the first byte that it hears for the one to measure its
        bit rate by, so a loader that heard a question is out of reach until the next reset."""
        return self._beside(super().probe(entry, deadline)) or self.application(entry, deadline)

    def application(self, entry: BenchEntry, deadline: Deadline) -> ProbeResult | None:
        if entry.spec.version is None:
            return self._beside(super().application(entry, deadline))
        version = ask(self.transport, entry.spec.version, deadline)
        return None if version is None else self._beside(ProbeResult(State.RUNNING, Identity(version=version)))

    def can_tell(self, entry: BenchEntry) -> bool:
        """A bootloader that may be asked (`probe`) is silent while the application runs: that says nothing."""
        return entry.flasher.probes_application or entry.spec.version is not None

    def unasked(self, entries: Sequence[BenchEntry]) -> str:
        if entries:
            return ""
        if self.spec.ask:
            left = ", ".join(protocol for protocol, _ in _left(self.spec))
            return f"{left} were not asked, for ask does not list them" if left else ""
        idle = "probe = true does nothing on a line without a component" if self.spec.probe else "nothing was asked"
        return f"{idle}: ask = [...] lists by which protocols scan may ask, such as {_asks()[0][1]}"

    def unasked_of(self, entry: BenchEntry) -> str:
        if entry.flasher.probes_application:
            return ""
        question = "version = {send = ..., match = ...} lets scan ask its application"
        may_ask = entry.flasher.probes_bootloader
        if entry.spec.version is not None:
            return (
                "" if self.spec.probe or not may_ask else "its bootloader was not asked: probe = true lets scan ask it"
            )
        if self.spec.probe and may_ask:
            return f"its application was not asked: {question}"
        if not may_ask:
            return f"nothing was asked: {question}; its bootloader is asked by no scan"
        return f"nothing was asked: {question}, probe = true its bootloader"

    def asked_of(self, entry: BenchEntry) -> str:
        said = []
        if entry.flasher.probes_bootloader and (self.spec.probe or entry.flasher.probes_application):
            said.append(f"{entry.spec.protocol} at {_rate(entry.profile, self.transport)}")
        if entry.spec.version is not None:
            said.append(f"its application's version at {self.transport.rate}")
        return ", ".join(said)

    @classmethod
    def onward(cls, spec: BusSpec, entries: Sequence[BenchEntry]) -> Mapping[str, str]:
        settings = {} if "baudrate" in spec.settings else {"baudrate": "115200"}
        if entries:
            settings |= {} if spec.probe else {"probe": "true"}
        elif left := _left(spec):
            settings |= {"ask": f"[{','.join(item for _, item in left)}]"}
        return settings

    def unlisted(self, entries: Sequence[BenchEntry], deadline: Deadline) -> list[Unlisted]:
        """The part on a line that has no component, by what the file lets it be asked."""
        if entries:
            return []
        port, rate = self.transport, self.transport.baudrate
        asked_by: list[str] = []
        try:
            for asked in self.spec.ask:
                port.set_line(baudrate=asked.baudrate or rate)
                port.until_quiet(self.spec.quiet, Deadline.after(self.spec.quiet * QUIET_TIMES))
                flasher: type[Bootloader] = plugins.load(plugins.FLASHERS, asked.protocol)
                profile = flasher.Profile.model_validate(asked.profile)
                limit = Deadline.after(ASK_SECONDS)
                asked_by.append(f"{asked.protocol} at {_rate(profile, port)}")
                sighting = flasher.probe(port, flasher.Address(), profile, active=True, deadline=limit)
                if sighting is not None:
                    return [_unlisted(self.name, asked, flasher, sighting.identity, adapter(port.url))]
            if asked_by:
                self.asked.append(f"asked by {', '.join(asked_by)}: no answer")
        finally:
            port.set_line(baudrate=rate)
        return []

    def _beside(self, sighting: ProbeResult | None) -> ProbeResult | None:
        """With the adapter's identity beside the part's."""
        if sighting is None or not (found := adapter(self.transport.url)):
            return sighting
        identity = sighting.identity
        return replace(sighting, identity=replace(identity, details={**found, **identity.details}))


def adapter(url: str) -> dict[str, str]:
    """What the USB adapter behind a device says of itself; {} of what is none."""
    from serial.tools import list_ports

    if not url.startswith("/"):
        return {}
    for port in list_ports.comports():
        if port.vid is not None and Path(port.device).resolve() == Path(url).resolve():
            told = {
                "adapter": " ".join(text for text in (port.manufacturer, port.product) if text),
                "adapter_usb": f"{port.vid:04x}:{port.pid:04x}",
                "adapter_serial": port.serial_number or "",
                "adapter_port": port.location or "",
            }
            return {key: value for key, value in told.items() if value}
    return {}


def _unlisted(
    bus: str, asked: AskSpec, flasher: type[Bootloader], who: Identity, behind: Mapping[str, str]
) -> Unlisted:
    profile = dict(asked.profile)
    if asked.baudrate is not None and issubclass(flasher.Profile, SerialProfile):
        profile.setdefault("baudrate", asked.baudrate)
    at = f" at {asked.baudrate} bit/s" if asked.baudrate is not None else ""
    about = " ".join(text for text in (who.manufacturer, who.part, who.bootloader, who.serial) if text)
    through = " ".join(behind[key] for key in ("adapter", "adapter_serial") if key in behind)
    name = re.sub(r"[^a-z0-9]+", "-", (who.part or asked.protocol).lower()).strip("-") or "part"
    lines = [
        f"bus = {toml_text(bus)}",
        f"protocol = {toml_text(asked.protocol)}",
        *([f"profile = {toml_value(profile)}"] if profile else []),
    ]
    title = f"{asked.protocol}{at}  {about}" + (f"  through {through}" if through else "")
    return Unlisted(bus, title.rstrip(), name, "\n".join(lines))


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


def _bus(port: ListPortInfo) -> Unlisted:
    name = re.sub(r"[^a-z0-9]+", "-", (port.product or port.name).lower()).strip("-") or "port"
    url = lasting_name(port.device)
    lines = [
        'kind = "serial"',
        f"url = {toml_text(url)}",
        "baudrate = 115_200",
        "# dtr = false  # where DTR or RTS drive the part's reset: otherwise each opening resets it",
        "# rts = false",
        "# What scan may ask here while there is no component; keep what is likely, the likeliest first:",
        f"# ask = [{', '.join(item for _, item in _asks())}]",
    ]
    about = " ".join(text for text in (port.manufacturer, port.product, port.serial_number) if text)
    return Unlisted("", f"{url}  {about}".rstrip(), name, "\n".join(lines))


def _rate(profile: Settings, port: SerialPort) -> str:
    """At which rate a bootloader with this profile is asked."""
    own = profile.baudrate if isinstance(profile, SerialProfile) else None
    return port.rate if own is None else f"{own:,} bit/s"


def _left(spec: BusSpec) -> list[tuple[str, str]]:
    """What of `_asks` the bus does not list."""
    listed = {item.protocol for item in spec.ask}
    return [one for one in _asks() if one[0] not in listed]


def _asks() -> list[tuple[str, str]]:
    """Each protocol on serial lines that needs no profile to be asked by, and its entry of `ask`.

    First those that a running application answers.
    """
    found: list[type[Bootloader]] = []
    for name in reversed(plugins.names(plugins.FLASHERS)):
        with suppress(PluginBroken):
            found.append(plugins.load(plugins.FLASHERS, name))
    serial = [one for one in found if one.bus_kind == SerialPort.kind and one.probes_bootloader and not one.is_silent]
    serial.sort(key=lambda one: not one.probes_application)
    return [(one.protocol, f"{{protocol = {toml_text(one.protocol)}}}") for one in serial]
