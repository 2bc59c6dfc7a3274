"""Two cuts in one update: the command that repeats the first one is cut too, in another way.

All pairs are too many. The first cut is the supply's, at every so many-th flash operation; the second one is at a unit of
the wire that a generator chooses, the supply's and the host's in turn.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from proxyflash.tests.flashers.sweeps.rig import KINDS, NEW, OLD, How, Rig, course, settled, wire_cut

MOST = 40
"""First cuts of one kind of part."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", KINDS)
def test_two_cuts(name: str, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    rig = Rig(KINDS[name], tmp_path, is_short=True)
    whole = course(rig)
    chosen = random.Random(name)
    operations = range(1, whole.operations + 1)[:: -(-whole.operations // MOST)]
    seconds = 0
    for number, operation in enumerate(operations):
        with rig.powered() as bench:
            device = bench.emulated_device("part")
            device.supply.cut_at(operation)
            assert rig.flash(bench) is not None
            device.supply.on()
            assert settled(bench) in (OLD, NEW, None)
            rig.by_hand(device)
            cut = wire_cut(bench, chosen.choice(chosen.choice(whole.writes)), list(How)[number % 2])
            rig.flash(bench)
            seconds += cut.is_done
            cut.mend()
            rig.ends_well(bench)
    # What the first command has written need not be sent again, so some commands are over before the second cut.
    assert seconds > len(operations) / 2
    record_property("cases", len(operations))
