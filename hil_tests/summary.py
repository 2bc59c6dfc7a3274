"""What a run of bench tests says at its end: what was skipped for want of what, and what could not be made safe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OTHER = {
    "broken": "because their part broke",
    "flash": "for want of --allow-flash",
    "capability": "because the bootloader of their part can't do what they need",
    "images": "for want of test images (images of the component, in the bench file)",
}
"""Kinds of skips that no hardware would help."""


def lines(kinds: Mapping[str, int], unsafe: Sequence[str]) -> list[str]:
    """`kinds`: how many tests were skipped for want of what. `unsafe`: what went wrong at the end."""
    said = []
    hardware = {kind: count for kind, count in sorted(kinds.items()) if kind not in OTHER}
    if hardware:
        each = ", ".join(f"{kind} {count}" for kind, count in hardware.items())
        said.append(f"{sum(hardware.values())} skipped for want of hardware: {each}")
    said += [f"{kinds[kind]} skipped {why}" for kind, why in OTHER.items() if kinds.get(kind)]
    return [*said, *unsafe]
