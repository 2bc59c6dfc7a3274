"""A cut at the units of the wire: CAN frames, serial bytes, USB control transfers; then the same command again.

Every CAN frame and every control transfer is tried. Of a serial line's bytes, of which an update has thousands, every
write of the host and of the part is tried, at bytes that a generator chooses (`Kind.each`). Without --every-cut each
test tries some of these.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from proxyflash.tests.flashers.sweeps.rig import KINDS, How, Rig, course, wire_cut
from proxyflash.tests.thinning import Thinning


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", How)
@pytest.mark.parametrize("pace", [0, 1])
@pytest.mark.parametrize("name", KINDS)
def test_a_cut_at_the_units_of_the_wire(
    name: str,
    pace: int,
    how: How,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    thinned: Thinning,
) -> None:
    kind = KINDS[name]
    rig = Rig(kind, tmp_path, pace=pace, is_short=True)
    units = thinned(kind.thinned(course(rig).units(kind.each, f"{name} {how} {pace}"), pace), 6)
    for unit in units:
        with rig.powered() as bench:
            cut = wire_cut(bench, unit, how)
            rig.flash(bench)
            assert cut.is_done
            cut.mend()
            rig.ends_well(bench)
    request.node.user_properties.append(("cuts", len(units)))
