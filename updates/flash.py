"""`proxyflash/flash:1`: flashes the component in context with the step's one file.

handlerProperties: `installedCriteria`, the version that the component reports once it is installed (required);
`address`, where a raw binary goes, as a number or in hex ("0x08000000").
"""

from __future__ import annotations

from ..enumerators.bench import BenchComponent
from ..enumerators.component import Component, Presence
from ..flashers.formats import load
from ..flashers.image import FirmwareImage
from ..transports.errors import ProxyflashError
from .errors import ManifestField
from .handler import StepHandler
from .manifest import InlineStep
from .results import COMPONENT_FLASH_HANDLER, FACILITY_STEP_HANDLERS, ActionResult, ResultCode, extended_code

KEYS = ("installedCriteria", "address")


class FlashHandler(StepHandler):
    """Flashes, verifies and boots in Install; in Apply asks the running application for its version once more."""

    @classmethod
    def check(cls, step: InlineStep, *, on_component: bool, place: str) -> None:
        if not on_component:
            raise ManifestField(
                f"{place}: {step.handler} flashes a component, but this step is for the host",
                remedy="Put it into a child update, and refer to that by a reference step.",
            )
        if len(step.files) != 1:
            raise ManifestField(f"{place}.files: {step.handler} takes one file, not {len(step.files)}")
        for key in step.handlerProperties:
            if key not in KEYS:
                raise ManifestField(f"{place}.handlerProperties.{key}: {step.handler} knows {' and '.join(KEYS)} only")
        criteria = step.handlerProperties.get("installedCriteria")
        if not isinstance(criteria, str) or not criteria:
            raise ManifestField(f"{place}.handlerProperties.installedCriteria: the wanted version, a text, is missing")
        _address(step, place)

    @classmethod
    def seems_installed(cls, step: InlineStep, component: Component) -> bool:
        return component.presence is Presence.OK and component.version == step.handlerProperties["installedCriteria"]

    def download(self) -> ActionResult:
        """Reads the firmware file: a broken one is told before the first component is touched."""
        self._image()
        return ActionResult(ResultCode.DOWNLOAD_SUCCESS)

    def is_installed(self) -> ActionResult:
        installed = self.seems_installed(self.context.step, self._component.look())
        return ActionResult(ResultCode.INSTALLED if installed else ResultCode.NOT_INSTALLED)

    def is_complete(self) -> ActionResult:
        """The version alone doesn't show that the rest was written too: Install compares, and writes what is missing."""
        return ActionResult(ResultCode.NOT_INSTALLED)

    def install(self) -> ActionResult:
        context = self.context
        try:
            result = self._component.flash(
                self._image(),
                expect_version=self._wanted,
                on_event=context.on_event,
                cancelled=context.cancelled,
            )
        except ProxyflashError as error:
            error.component = error.component or self._component.name
            raise
        assert result is not None, "only a refused confirmation gives no result, and none is asked"
        return ActionResult(ResultCode.INSTALL_SUCCESS, details=f"-> {result.version}, verified ({result.verified})")

    def apply(self) -> ActionResult:
        if self.is_installed().code == ResultCode.INSTALLED:
            return ActionResult(ResultCode.APPLY_SUCCESS)
        code = extended_code(FACILITY_STEP_HANDLERS, COMPONENT_FLASH_HANDLER, 1)
        return ActionResult(ResultCode.FAILURE, code, f"{self._component.name} does not report version {self._wanted}")

    def _image(self) -> FirmwareImage:
        step = self.context.step
        return load(self.context.files[step.files[0]], address=_address(step, ""))

    @property
    def _wanted(self) -> str:
        return str(self.context.step.handlerProperties["installedCriteria"])

    @property
    def _component(self) -> BenchComponent:
        component = self.context.component
        assert isinstance(component, BenchComponent), "check() refused a step without a component"
        return component


def _address(step: InlineStep, place: str) -> int | None:
    value = step.handlerProperties.get("address")
    if value is None:
        return None
    try:
        number = value if isinstance(value, int) else int(str(value), 0)
    except ValueError:
        number = -1
    if number < 0 or isinstance(value, bool):
        raise ManifestField(f"{place}.handlerProperties.address: {value!r} is no address")
    return number
