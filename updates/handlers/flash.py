"""`proxyflash/flash:1`: flashes the component in context with the step's one file.

handlerProperties: `installedCriteria`, the version that the component reports once it is installed (required);
`address`, where a raw binary goes, as a number or in hex ("0x08000000"); `format`, the name of the file's format, which is
then not guessed; `only`, a name or a list of names of the part's memories that are written, where the rest is left out.

Backup reads the erase units that Install will erase, where the part lets its memory be read; Restore flashes them back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from ...enumerators.bench_component import BenchComponent
from ...enumerators.component import Component, Presence
from ...enumerators.host import HostComponent
from ...flashers import plan as planning
from ...flashers.errors import ImageFormat, ImageWrongPart, NoResponse, VersionMismatch
from ...flashers.formats import LARGEST_FILE, load, loads
from ...flashers.image import HIGHEST, FirmwareImage, Segment
from ...flashers.memory import MemoryMap
from ...flashers.programmer import FlashResult
from ...transports import clock, plugins
from ...transports.errors import naming
from ...transports.plain import quoted
from ..engine.results import COMPONENT_FLASH_HANDLER, FACILITY_STEP_HANDLERS, ActionResult, ResultCode, extended_code
from ..errors import ManifestField
from ..manifests.manifest import InlineStep
from . import backup_store, properties
from .handler import StepHandler

KEYS = (properties.CRITERIA, "address", "format", "only")
DEAF_SECONDS = 1.0
"""The longest that a part waits in the midst of an exchange that we were cut in (N_Bs of ISO 15765-2:2016, table 16)."""
MEMORY = "memory.bin"
"""In the backup folder: what the part held, its segments one after the other; backup.json says where they lay."""


MOST_SEGMENTS = 100_000
"""More than any part has erase units."""


class _Kept(backup_store.Facts):
    """What the part held: the digest of its bytes, and where they lay, as addresses and sizes, in order and apart.

    That they lie in the part's memory is checked as of every image, before anything is erased.
    """

    sha256: backup_store.Digest
    segments: Annotated[
        list[
            tuple[
                Annotated[int, Field(strict=True, ge=0, lt=HIGHEST)],
                Annotated[int, Field(strict=True, gt=0, le=LARGEST_FILE)],
            ]
        ],
        Field(min_length=1, max_length=MOST_SEGMENTS),
    ]
    version: str
    target: dict[str, int | str] | None = None

    @field_validator("segments")
    @classmethod
    def _apart(cls, segments: list[tuple[int, int]]) -> list[tuple[int, int]]:
        for (low, size), (high, _) in pairwise([*segments, (HIGHEST + 1, 0)]):
            if low + size >= high:
                raise ValueError(f"the segment at {low:#x} does not end before the next")
        if sum(size for _, size in segments) > LARGEST_FILE:
            raise ValueError(f"the segments have more than {LARGEST_FILE:,} bytes")
        return segments


class FlashHandler(StepHandler):
    """Flashes, verifies and boots in Install; in Apply asks the running application for its version again."""

    buses_only = True
    enters_bootloader = True
    tells_changes = True

    @classmethod
    def draft(cls, version: str, files: Sequence[str]) -> dict[str, Any]:
        return {properties.CRITERIA: version}

    @classmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None:
        told = "flashes a component, but this step is for the host"
        properties.for_a_component(told, step, place, on_component=on_component)
        properties.one_file(step, place)
        properties.none_but(KEYS, step, place)
        properties.criteria(step, place)
        _address(step, place)
        _format(step, place)
        _only(step, place)

    @classmethod
    def check_files(cls, step: InlineStep, files: Sequence[Path]) -> None:
        """Raises ImageError for a file that no part takes: cut short, empty, an archive, a web page."""
        _load(step, files)

    @classmethod
    def check_component(cls, step: InlineStep, component: BenchComponent | HostComponent | None, place: str) -> None:
        _flashable(step, component, f"{place}: ")

    @classmethod
    def seems_installed(cls, step: InlineStep, component: Component) -> bool:
        return component.presence is Presence.OK and component.version == step.handlerProperties[properties.CRITERIA]

    @classmethod
    def backup_bytes(cls, step: InlineStep, files: Sequence[Path]) -> int:
        """The image's bytes; Backup rounds them up to erase units, which only the part knows.

        What `only` leaves of them the part alone knows as well: none are counted.
        """
        if _only(step, ""):
            return 0
        return sum(segment.size for segment in _load(step, files).segments)

    @classmethod
    def rollback_blocker(cls, step: InlineStep, component: BenchComponent | HostComponent | None) -> str:
        """As far as the profile says; what a part's protection forbids only the part knows, once it is connected."""
        component = _flashable(step, component)
        return component.entry.flasher.readback_unavailable_reason(component.entry.profile)

    def download(self) -> ActionResult:
        """Reads the firmware file: a broken one is reported before the first component is touched."""
        self._image()
        return ActionResult(ResultCode.DOWNLOAD_SUCCESS)

    def is_installed(self) -> ActionResult:
        installed = self.seems_installed(self.context.step, self._seen())
        return ActionResult(ResultCode.INSTALLED if installed else ResultCode.NOT_INSTALLED)

    def is_complete(self) -> ActionResult:
        """The version alone doesn't show that the rest was written too: Install compares, and writes what is missing."""
        return ActionResult(ResultCode.NOT_INSTALLED)

    def install(self) -> ActionResult:
        with naming(self._component.name), _advice_for_a_step():
            result = self._flash(self._image(), self._wanted)
        version = f"-> {result.version}, " if result.version else ""
        return ActionResult(ResultCode.INSTALL_SUCCESS, details=f"{version}verified ({result.verified})")

    def apply(self) -> ActionResult:
        seen = self._seen()
        if self.seems_installed(self.context.step, seen):
            return ActionResult(ResultCode.APPLY_SUCCESS)
        if seen.presence is Presence.ABSENT:
            raise NoResponse(f"{self._component.name} does not answer")
        code = extended_code(FACILITY_STEP_HANDLERS, COMPONENT_FLASH_HANDLER, 1)
        return ActionResult(ResultCode.FAILURE, code, f"{self._component.name} does not report version {self._wanted}")

    def backup(self) -> ActionResult:
        """Keeps what the units hold that Install will erase. The application runs again afterwards."""
        folder = self.context.backup_folder
        if backup_store.facts(folder, _Kept) is not None:
            return ActionResult(ResultCode.BACKUP_SUCCESS)
        component = self._component
        if reason := component.entry.flasher.readback_unavailable_reason(component.entry.profile):
            return ActionResult(ResultCode.BACKUP_UNSUPPORTED, details=reason)
        seen = self._seen()
        # A part that did not run its application may hold half of one, which would not let it be called into its
        # bootloader any more.
        starts_again = seen.presence is Presence.OK
        with naming(component.name), component.programmer(self.context.run, starts_again=starts_again) as programmer:
            image = self._image()
            segments, reason = programmer.read_replaced(image)
            if reason:
                return ActionResult(ResultCode.BACKUP_UNSUPPORTED, details=reason)
            worth_keeping = _holds_something(segments, programmer.memory_map())
        if not worth_keeping:
            return ActionResult(ResultCode.BACKUP_UNSUPPORTED, details=f"{component.name} holds nothing to bring back")
        found = {
            "sha256": backup_store.write(folder / MEMORY, b"".join(segment.data for segment in segments)),
            "segments": [[segment.address, segment.size] for segment in segments],
            "version": seen.version if seen.presence is Presence.OK else "",
            # What the new file says of the part holds for the old content as well.
            "target": dict(image.target),
        }
        backup_store.keep(folder, found)
        total = sum(segment.size for segment in segments)
        return ActionResult(ResultCode.BACKUP_SUCCESS, details=f"{total:,} bytes read")

    def restore(self) -> ActionResult:
        folder = self.context.backup_folder
        found = backup_store.facts(folder, _Kept)
        if found is None:
            return ActionResult(ResultCode.RESTORE_UNSUPPORTED)
        data = backup_store.read(folder / MEMORY, found.sha256)
        if data is None:
            code = extended_code(FACILITY_STEP_HANDLERS, COMPONENT_FLASH_HANDLER, 2)
            return ActionResult(ResultCode.FAILURE, code, f"{folder / MEMORY} is not any more what was kept")
        if sum(size for _, size in found.segments) != len(data):
            raise backup_store.broken(folder, f"its segments have not the {len(data):,} bytes of {MEMORY}")
        segments = []
        view = memoryview(data)
        for address, size in found.segments:
            segments.append(Segment(address, bytes(view[:size])))
            view = view[size:]
        target = self._image().target if found.target is None else found.target
        image = FirmwareImage(tuple(segments), "memory", str(folder / MEMORY), target=target)
        with naming(self._component.name):
            result = self._flash(image, found.version or None)
        details = f"-> {result.version or 'what it held before'}, verified ({result.verified})"
        return ActionResult(ResultCode.RESTORE_SUCCESS, details=details)

    def _flash(self, image: FirmwareImage, version: str | None) -> FlashResult:
        """Stopped before it erases, it starts no part that may hold half an image: that could not be called back."""
        starts_again = not self.context.changed or self._component.look().presence is Presence.OK
        return self._component.flash(image, expect_version=version, context=self.context.run, starts_again=starts_again)

    def _seen(self) -> Component:
        """Its record. A silent part is asked twice: an interruption may have left it waiting for us, deaf for a second."""
        seen = self._component.look()
        if seen.presence is Presence.ABSENT:
            clock.sleep(DEAF_SECONDS)
            seen = self._component.look()
        return seen

    def _image(self) -> FirmwareImage:
        """Of the bytes that were checked in the same pass."""
        step = self.context.step
        (name,) = step.files
        with _advice_for_a_step():
            image = loads(
                self.context.read(name),
                self.context.files[name],
                address=_address(step, ""),
                format=_format(step, ""),
                as_is=self._component.entry.flasher.is_silent,
            )
        return replace(image, only=_only(step, ""), is_alone=True)

    @property
    def _wanted(self) -> str:
        return str(self.context.step.handlerProperties[properties.CRITERIA])

    @property
    def _component(self) -> BenchComponent:
        return _flashable(self.context.step, self.context.component)


def _flashable(step: InlineStep, component: BenchComponent | HostComponent | None, place: str = "") -> BenchComponent:
    """Raises ManifestField unless the component has a bootloader."""
    if isinstance(component, BenchComponent):
        return component
    name = component.name if component else "the host"
    raise ManifestField(
        f"{place}{step.handler} flashes components on buses, and {name} is none",
        remedy="Parts of the host are updated by proxyflash/partition:1, proxyflash/app:1 or a script.",
    )


@contextmanager
def _advice_for_a_step() -> Iterator[None]:
    """What is an option of `flash` is a property of the step here."""
    try:
        yield
    except ImageFormat as error:
        remedy = error.remedy.replace("--format bin", "manifest create --property format=bin")
        raise error.advised(remedy) from error
    except VersionMismatch as error:
        remedy = "Is it the right file? If it is, make the manifest with the version that its application reports: "
        raise error.advised(f"{remedy}proxyflash manifest create --installed-criteria VERSION") from error


def _load(step: InlineStep, files: Sequence[Path]) -> FirmwareImage:
    """The step's one file, where the component is not known: a bootloader's own container is its matter."""
    (path,) = files
    with _advice_for_a_step():
        return load(path, address=_address(step, ""), format=_format(step, ""), as_is=True)


def _holds_something(segments: Sequence[Segment], memory: MemoryMap) -> bool:
    """Whether it is worth bringing back: neither blank nor without what the processor starts by."""
    try:
        image = planning.place(FirmwareImage(tuple(segments), "memory"), memory)
        for item in memory.regions:
            if item.head is not None:
                item.head.check(image, item)
    except ImageWrongPart:
        return False
    for segment in segments:
        region = memory.region_of(segment.address)
        if region is None or bytes(segment.data).strip(bytes([region.erased_value])):
            return True
    return False


def _format(step: InlineStep, place: str) -> str | None:
    value = step.handlerProperties.get("format")
    if value is not None and value not in (known := plugins.names(plugins.FORMATS)):
        raise ManifestField(
            f"{place}.handlerProperties.format: no firmware file format is called {quoted(value)}",
            remedy=f"One of {', '.join(known)}.",
        )
    return value


def _only(step: InlineStep, place: str) -> tuple[str, ...]:
    value = step.handlerProperties.get("only", [])
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ManifestField(f"{place}.handlerProperties.only: {quoted(value)} is neither a name nor a list of names")
    return tuple(names)


def _address(step: InlineStep, place: str) -> int | None:
    value = step.handlerProperties.get("address")
    if value is None:
        return None
    try:
        number = value if isinstance(value, int) else int(str(value), 0)
    except ValueError:
        number = -1
    if number < 0 or isinstance(value, bool):
        raise ManifestField(f"{place}.handlerProperties.address: {quoted(value)} is not an address")
    return number
