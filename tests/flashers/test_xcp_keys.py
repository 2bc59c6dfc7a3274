"""XCP's keys by a library with XCP_ComputeKeyFromSeed (ASAM MCD-1 XCP, part 1, 8.2), in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from proxyflash.flashers.errors import KeyLibraryFailed, ProfileWrong, SecurityDenied
from proxyflash.tests.flashers.test_uds_keys import compiled
from proxyflash.tests.flashers.test_xcp import OPENBLT, rig

pytestmark = pytest.mark.real_time("a library is called in a process of its own")

LIBRARY = """
#include <stdint.h>
uint32_t XCP_ComputeKeyFromSeed(uint8_t privilege, uint8_t size, uint8_t *seed, uint8_t *key_size, uint8_t *key) {
    if (privilege != 0x10) return 1;
    if (*key_size < size) return 3;
    BODY
    for (int i = 0; i < size; i++) key[i] = seed[i] ^ 0x5a;
    *key_size = size;
    return 0;
}
"""
PROFILE = OPENBLT + 'security = {key = "library", library = {file = "keys.so", seconds = 2}}\n'
SECRET = ', secret = "5a"'


def test_a_library(tmp_path: Path) -> None:
    compiled(tmp_path, "keys.so", LIBRARY.replace("BODY", ""))
    with rig(tmp_path, "openblt-f103", PROFILE, emulated=SECRET) as it:
        assert it.flash().version == "1.5.0"


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("*(volatile int *)0 = 1;", KeyLibraryFailed, "crashed in XCP_ComputeKeyFromSeed"),
        ("for (;;);", KeyLibraryFailed, "did not return"),
        ("return 2;", KeyLibraryFailed, "seed length wrong"),
        ("seed[0] ^= 1;", SecurityDenied, "not accepted"),
    ],
)
def test_a_library_that_makes_no_good_key(
    body: str, kind: type[KeyLibraryFailed | SecurityDenied], words: str, tmp_path: Path
) -> None:
    compiled(tmp_path, "keys.so", LIBRARY.replace("BODY", body))
    with rig(tmp_path, "openblt-f103", PROFILE, emulated=SECRET) as it:
        assert words in it.refusal(kind).cause


def test_a_dll_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "keys.so").write_bytes(b"MZ" + bytes(100))
    with rig(tmp_path, "openblt-f103", PROFILE, emulated=SECRET) as it:
        before = it.bench.emulated_wire("b").busy_seconds
        assert "Windows DLL" in it.refusal(ProfileWrong).cause
        assert it.bench.emulated_wire("b").busy_seconds == before
