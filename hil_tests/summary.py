"""What a run of bench tests says at its end: what was skipped and why, and what could not be made safe."""

from __future__ import annotations

import os.path
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ..transports.plain import plain

OTHER = {
    "broken": "because their part broke",
    "bench": "because the bench was out of use",
    "emulated": "that are for emulated parts alone",
    "flash": "without --allow-flash",
    "capability": "because the bootloader of their part can't do what they need",
    "version": "because their part can't be asked for its version",
    "images": "without test images (images of the component, in the bench file)",
}
"""Kinds of skips that no hardware would help."""


def lines(
    kinds: Mapping[str, int],
    recordings: Collection[str],
    unkept: Sequence[str],
    unsafe: Sequence[str],
    times: tuple[float, float],
    absent: Mapping[tuple[str, str], int],
    *,
    idle: bool,
) -> list[str]:
    """`kinds`: how many tests were skipped for each reason. `absent`: how many of them for each component that was not
    there, and its kind of bus. `idle`: whether no test of the bench was run. `recordings`: folders that --record has
    filled. `unkept`: for each test whose recording --record could not keep, why. `unsafe`: what went wrong at the end.
    `times`: simulated and real seconds of the tests on simulated time.
    """
    said = []
    if any(times):
        said.append("{:,.1f} simulated seconds in {:,.1f} real seconds".format(*times))
    hardware = {kind: count for kind, count in sorted(kinds.items()) if kind not in OTHER}
    if hardware:
        each = ", ".join(f"{kind} {count}" for kind, count in hardware.items())
        said.append(f"{sum(hardware.values())} skipped without their hardware: {each}")
    for (name, kind), count in sorted(absent.items()):
        said.append(f"'{name}' is absent: {count} skipped; --require {kind} lets them fail")
    if idle:
        said.append("no test of the bench was run")
    said += [f"{kinds[kind]} skipped {why}" for kind, why in OTHER.items() if kinds.get(kind)]
    if recordings:
        tests = [Path(folder).parent for folder in recordings]
        said.append(f"{len(recordings)} recordings below {os.path.commonpath([test.parent for test in tests])}")
    if unkept:
        said.append(f"{len(unkept)} recordings not kept: {unkept[0]}")
    return [plain(line) for line in (*said, *unsafe)]
