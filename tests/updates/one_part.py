"""A bench of one part of any family, and an update of it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers.errors import Cancelled
from proxyflash.flashers.events import Event, Phase, Progress, RunContext
from proxyflash.tests.explore.families import Family
from proxyflash.updates.manifests.resolved_update import Update, load

from .authoring import Publisher

SIZE = 1500


class OnePart:
    """One part, whose bus asks no bootloader, with version 1.0.0, and an update to 1.1.0."""

    def __init__(self, folder: Path, family: Family, stack: ExitStack, *, more: str = "", profile: str = "") -> None:
        self.family = family
        (folder / "old.bin").write_bytes(family.firmware("1.0.0", SIZE, 1))
        self.new = folder / "new.bin"
        self.new.write_bytes(family.firmware("1.1.0", SIZE, 2))
        bus = "baudrate = 115200\ndtr = false\nrts = false\n" if family.kind == "serial" else ""
        bus += "probe = true\n" if family.by_hand else ""
        text = (
            f'[bus.line]\nkind = "{family.kind}"\nemulated = true\npace = 0.0\n{bus}'
            f'[[component]]\nname = "part"\ngroup = "parts"\nbus = "line"\n{more}'
            + family.component.format(
                number=1,
                firmware="old.bin",
                request=0x700,
                response=0x701,
                version_request=0x120,
                version_response=0x121,
                product=0x5711,
            )
            + profile
        )
        (folder / "bench.toml").write_text(text)
        self.bench = stack.enter_context(Bench.open(folder / "bench.toml", state=folder / "state"))
        self.folder = folder

    @property
    def update(self) -> Update:
        publisher = Publisher(self.folder)
        child = publisher.component_update("parts", "1.1.0", given=(self.new,))
        if self.family.address:
            text = child.read_text()
            child.write_text(
                text.replace('"installedCriteria"', f'"address": {self.family.start}, "installedCriteria"', 1)
            )
        return load(publisher.update("all", "1.1.0", child))

    def interrupt(self) -> None:
        """A flash that is interrupted during its writing."""
        events: list[Event] = []
        amid = RunContext(
            events.append, lambda: any(isinstance(e, Progress) and e.phase is Phase.WRITE for e in events)
        )
        with pytest.raises(Cancelled):
            self.bench.component("part").flash(self.new, address=self.address, context=amid)

    @property
    def address(self) -> int | None:
        return self.family.start if self.family.address else None
