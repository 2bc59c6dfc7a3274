"""The contract kit: what every bootloader of proxyflash is tested for, as classes that any package subclasses.

A test file of a package of one's own:

    from proxyflash.testing import MemoryContract

    class TestFoo(MemoryContract):
        protocol = "foo"
        bus = {"kind": "serial", "baudrate": 115200}
        emulated = {"part": "foo-1"}

`CONTRACT_VERSION` grows by one when the classes check more than before. docs/contract-tests.md describes the kit.
"""

from __future__ import annotations

import pytest

# Before they are imported, so that a failed assertion of theirs shows its values.
pytest.register_assert_rewrite(f"{__name__}.contract", f"{__name__}.hostile_line", f"{__name__}.rig")

from .contract import Contract, MemoryContract, SlotContract  # noqa: E402
from .cuts import How, WireCut  # noqa: E402
from .hostile_line import HostileLine  # noqa: E402
from .part import NEW, OLD, Part, Sizes  # noqa: E402
from .rig import Rig  # noqa: E402

CONTRACT_VERSION = 1

__all__ = [
    "CONTRACT_VERSION",
    "NEW",
    "OLD",
    "Contract",
    "HostileLine",
    "How",
    "MemoryContract",
    "Part",
    "Rig",
    "Sizes",
    "SlotContract",
    "WireCut",
]
