"""A cut of the supply at every flash operation, for each bootloader, then the same command again.

After any cut the part runs the old application whole, the new one whole, or sits in its bootloader; and flashing once
more ends with the whole new image.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from proxyflash.tests.flashers.sweeps.rig import KINDS, Rig, course
from proxyflash.tests.thinning import Thinning


@pytest.mark.parametrize("pace", [0, 1])
@pytest.mark.parametrize("name", KINDS)
def test_nothing_is_cut(name: str, pace: int, tmp_path: Path) -> None:
    rig = Rig(KINDS[name], tmp_path, pace=pace)
    with rig.powered() as bench:
        rig.ends_with_the_new_image(bench)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("pace", "share"), [(0, 0), (0, 1), (1, 0)])
@pytest.mark.parametrize("name", KINDS)
def test_a_cut_at_every_flash_operation(
    name: str,
    pace: int,
    share: int,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    thinned: Thinning,
) -> None:
    kind = KINDS[name]
    rig = Rig(kind, tmp_path, pace=pace)
    last = course(rig).operations
    assert last > 40
    operations = thinned(kind.thinned(range(1, last + 1)[share :: 1 if pace else 2], pace), 6)
    for operation in operations:
        with rig.powered() as bench:
            supply = bench.emulated_device("part").supply
            supply.cut_at(operation)
            assert rig.flash(bench) is not None
            assert not supply.is_on
            supply.on()
            rig.ends_well(bench)
    request.node.user_properties.append(("cuts", len(operations)))
