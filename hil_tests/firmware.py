"""Firmware for tests: the releases that the bench file knows to be good, and made ones for emulated parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from ..enumerators.bench_component import BenchComponent
from ..enumerators.target import TargetFile
from ..flashers.formats import load
from ..flashers.image import FirmwareImage

SIZE = 20_000
"""Bytes of a made firmware, by default."""
OLD, NEW = "1.4.2", "1.5.0"
"""Versions that are made for an emulated part whose bench file has no images."""


@dataclass(frozen=True)
class TestImage:
    """One release. `version`: what the application reports, "" where the bench file doesn't say. `as_is`: its component's
    bootloader judges files itself."""

    __test__ = False

    path: Path
    version: str
    address: int | None = None
    as_is: bool = False

    @cached_property
    def image(self) -> FirmwareImage:
        """Raises ImageError."""
        return load(self.path, address=self.address, as_is=self.as_is)


class Firmware:
    """The releases of one component.

    `folder`: for made files. `lacks`: called with what is missing in the bench file; it doesn't return. `used`: called
    with each release that is handed out.
    """

    def __init__(
        self,
        component: BenchComponent,
        folder: Path,
        lacks: Callable[[str], NoReturn],
        used: Callable[[TestImage], None] = lambda image: None,
    ) -> None:
        self._component = component
        self._folder = folder
        self._lacks = lacks
        self._used = used

    @cached_property
    def images(self) -> tuple[TestImage, ...]:
        """All, oldest first; of an emulated part without any two that are made."""
        known = listed(self._component)
        if not known and self._component.emulated:
            return (self._make(OLD, SIZE, "", 0), self._make(NEW, SIZE, "", 0))
        return known

    @property
    def old(self) -> TestImage:
        """The oldest. The test is skipped where the bench file has none."""
        return self._handed_out(self._at_least(1)[0])

    @property
    def new(self) -> TestImage:
        """The newest. The test is skipped where the bench file has less than two."""
        return self._handed_out(self._at_least(2)[-1])

    def made(self, *, version: str, size: int = SIZE, product: str = "", seed: int = 0) -> TestImage:
        """A firmware of `size` bytes that an emulated part runs; skips the test on hardware, whose maker alone can.

        `size`: 400 at least. `seed`: another one gives other bytes. `product`: by default the component's model.
        """
        if not self._component.emulated:
            name = self._component.name
            self._lacks(
                f"firmware can be made for emulated parts only, and '{name}' is hardware; "
                'mark the test: needs("emulated")'
            )
        return self._handed_out(self._make(version, size, product, seed))

    def _make(self, version: str, size: int, product: str, seed: int) -> TestImage:
        component = self._component
        spec = component.entry.spec
        device = component.bench.emulated_device(component.name)
        data = device.make_firmware(version, product or spec.model or spec.name, spec.manufacturer, size, seed=seed)
        path = self._folder / f"{component.name}-{version}-{size}-{seed}.bin"
        path.write_bytes(data)
        return TestImage(path, version, as_is=component.entry.flasher.is_silent)

    def _handed_out(self, image: TestImage) -> TestImage:
        self._used(image)
        return image

    def _at_least(self, count: int) -> tuple[TestImage, ...]:
        if len(self.images) < count:
            name, wanted = self._component.name, f"{count} release{'s' if count > 1 else ''}"
            file, images = self._component.bench.file, 'images = [{file = "...", version = "..."}]'
            where, remedy = "the bench file", f"add {images} to it in {file.path.name}"
            if isinstance(file, TargetFile):
                where, remedy = "the target", f"give it the setting {images.replace(' ', '')}"
            self._lacks(f"{wanted} wanted to test '{name}' with, {where} has {len(self.images)}; {remedy}")
        return self.images


def listed(component: BenchComponent) -> tuple[TestImage, ...]:
    """The releases that the bench file has for a component, oldest first."""
    folder, as_is = component.bench.file.folder, component.entry.flasher.is_silent
    return tuple(
        TestImage(folder / spec.file, spec.version, spec.address, as_is) for spec in component.entry.spec.images
    )
