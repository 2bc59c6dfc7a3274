"""Checks of a step's fields that several handlers make. Each raises ManifestField, which names `place`."""

from __future__ import annotations

from collections.abc import Sequence

from ...transports.plain import meant, quoted
from ..errors import ManifestField
from ..manifests.manifest import InlineStep

CRITERIA = "installedCriteria"
REMEDY = "What each handler takes: proxyflash help step-handlers"


def one_file(step: InlineStep, place: str) -> None:
    if len(step.files) != 1:
        raise ManifestField(f"{place}.files: {step.handler} takes one file, not {len(step.files)}", remedy=REMEDY)


def one_of_the_files(name: object, step: InlineStep, place: str) -> None:
    """`place`: that of the name."""
    if name not in step.files:
        near = meant(str(name), step.files)
        raise ManifestField(f"{place}: {quoted(name)} is none of the step's files{near}")


def none_but(keys: Sequence[str], step: InlineStep, place: str) -> None:
    known = " and ".join(keys) if len(keys) < 3 else ", ".join(keys)
    for key in step.handlerProperties:
        if key not in keys:
            near = meant(key, keys)
            raise ManifestField(
                f"{place}.handlerProperties.{key}: {step.handler} knows {known} only{near}", remedy=REMEDY
            )


def criteria(step: InlineStep, place: str, *, what: str = "the wanted version, a text,") -> None:
    """By which the step counts as installed: a text that is there."""
    found = step.handlerProperties.get(CRITERIA)
    if not isinstance(found, str) or not found:
        raise ManifestField(f"{place}.handlerProperties.{CRITERIA}: {what} is missing", remedy=REMEDY)


def for_a_component(told: str, step: InlineStep, place: str, *, on_component: bool) -> None:
    """`told`: what a step for the host alone gets wrong."""
    if not on_component:
        raise ManifestField(
            f"{place}: {step.handler} {told}",
            remedy="Put it into a child update, and refer to that by a reference step.",
        )
