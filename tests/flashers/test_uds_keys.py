"""Keys of a maker's shared library: called in a process of its own, and looked at before the ECU is touched.

The libraries are compiled here, by the declarations that their callers agree on.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from proxyflash.flashers.errors import KeyLibraryFailed, ProfileWrong
from proxyflash.flashers.keys.making import check_class, library_keys
from proxyflash.flashers.keys.settings import KeyLibrary
from proxyflash.flashers.uds.keys import keys_of
from proxyflash.flashers.uds.profile import UdsProfile

pytestmark = pytest.mark.real_time("a library is called in a process of its own")

SEED = bytes.fromhex("11223344")
SOURCE = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int GenerateKeyEx(const uint8_t *seed, uint32_t size, uint32_t level, const char *variant,
                  uint8_t *key, uint32_t most, uint32_t *actual) {
    puts("a dongle's greeting"); fflush(stdout);
    if (!strcmp(variant, "crash")) *(volatile int *)0 = 1;
    if (!strcmp(variant, "hang")) for (;;) pause();
    if (!strcmp(variant, "exit")) exit(3);
    if (!strcmp(variant, "long")) { *actual = most + 1; return 0; }
    if (!strcmp(variant, "refuse")) return 2;
    if (most < size) return 1;
    for (uint32_t i = 0; i < size; i++) key[i] = seed[i] + level + variant[0];
    *actual = size;
    return 0;
}
int GenerateKeyExOpt(const uint8_t *seed, uint32_t size, uint32_t level, const char *variant, const char *options,
                     uint8_t *key, uint32_t most, uint32_t *actual) {
    if (most < 2) return 1;
    key[0] = options[0]; key[1] = level;
    *actual = 2;
    return 0;
}
uint32_t XCP_ComputeKeyFromSeed(uint8_t privilege, uint8_t size, uint8_t *seed, uint8_t *key_size, uint8_t *key) {
    if (*key_size < size) return 3;
    for (int i = 0; i < size; i++) key[i] = seed[i] ^ privilege;
    *key_size = size;
    return 0;
}
"""
OTHER = "int other(void) { return 0; }"


def compiled(folder: Path, name: str, source: str) -> Path:
    made = folder / name
    command = ["cc", "-shared", "-fPIC", "-O0", "-w", "-x", "c", "-", "-o", str(made)]
    subprocess.run(command, input=source, text=True, check=True)
    return made


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("keys"), "keys.so", SOURCE)


Table = Callable[..., KeyLibrary]


@pytest.fixture
def table(built: Path) -> Table:
    def make(**keys: Any) -> KeyLibrary:
        return KeyLibrary.model_validate({"file": str(built)} | keys)

    return make


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"variant": "\x02"}, "14253647"),
        ({"variant": "\x02", "level": 5}, "18293a4b"),
        ({"call": "GenerateKeyExOpt", "options": "A", "level": 9}, "4109"),
        ({"call": "XCP_ComputeKeyFromSeed", "level": 0x10}, "01322354"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_call(table: Table, keys: dict[str, Any], key: str) -> None:
    assert library_keys(table(**keys))(SEED, b"", 1).hex() == key


@pytest.mark.parametrize(
    ("variant", "told"),
    [
        ("crash", r"keys\.so crashed in GenerateKeyEx \(SIGSEGV\)"),
        ("hang", r"did not return from GenerateKeyEx within 0\.5 s"),
        ("exit", "ended its process in GenerateKeyEx, with status 3"),
        ("long", "a key of 256 bytes"),
        ("refuse", r"returned 2 \(SecurityLevelInvalid\)"),
    ],
)
def test_what_goes_wrong_in_a_library_ends_nothing_here(table: Table, variant: str, told: str) -> None:
    keys = library_keys(table(variant=variant, seconds=0.5 if variant == "hang" else 10))
    with pytest.raises(KeyLibraryFailed, match=told) as caught:
        keys(SEED, b"", 1)
    assert SEED.hex() not in str(caught.value)


def elf(bits: int, machine: int) -> bytes:
    return b"\x7fELF" + bytes((bits // 32, 1, 1)) + bytes(9) + struct.pack("<HH", 3, machine)


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (b"MZ\x90\x00" + bytes(60), "is a Windows DLL"),
        (elf(32, 3), "is for 32-bit x86"),
        (elf(32, 40), "is for 32-bit ARM"),
        (elf(64, 243 if sys.byteorder == "little" else 62), "is for RISC-V"),
        (b"\x7fELF", "is not a shared library"),
        (b"", "is not a shared library"),
        (b"#!/bin/sh\n" + bytes(20), "is not a shared library"),
    ],
)
def test_a_file_of_another_class_is_told_before_it_is_loaded(head: bytes, told: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.dll"
    file.write_bytes(head)
    with pytest.raises(ProfileWrong, match=told):
        check_class(file)


def test_a_library_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileWrong, match=r"keys\.so can't be read"):
        check_class(tmp_path / "keys.so")


def test_one_that_others_may_write_to_is_not_loaded(tmp_path: Path) -> None:
    file = compiled(tmp_path, "other.so", OTHER)
    file.chmod(0o666)
    with pytest.raises(ProfileWrong, match="is not taken: it can be written to by others") as refused:
        library_keys(KeyLibrary(file=str(file)))
    assert "chown, chmod go-w" in refused.value.remedy


def test_one_without_the_function(tmp_path: Path) -> None:
    library = KeyLibrary(file=str(compiled(tmp_path, "other.so", OTHER)))
    with pytest.raises(ProfileWrong, match="has no function GenerateKeyEx"):
        library_keys(library)


def test_one_whose_own_libraries_are_not_there(tmp_path: Path) -> None:
    library = KeyLibrary(file=str(compiled(tmp_path, "needy.so", "extern int absent(void); int (*f)(void) = absent;")))
    with pytest.raises(ProfileWrong, match=r"can't be loaded: .*absent"):
        library_keys(library)


def test_the_levels_of_a_profile(built: Path) -> None:
    """What a step does not say of its level is as in security; a library gets the level of the step."""
    profile = UdsProfile.model_validate(
        {
            "security": {"level": 1, "key": "library", "library": {"file": str(built), "variant": "\x00"}},
            "order": ["early", "programming", "key", "own", "download"],
            "steps": [{"name": "early", "level": 3}, {"name": "own", "level": 5, "key": "xor", "secret": "ff"}],
        }
    )
    made = {}
    for name, (security, key) in keys_of(profile, None).items():
        assert key is not None
        made[name] = key(SEED, security.secret, security.level).hex()
    assert made == {"key": "12233445", "early": "14253647", "own": "eeddccbb"}
