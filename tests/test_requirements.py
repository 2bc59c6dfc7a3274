"""The lock files agree with what setup.cfg and pyproject.toml ask for, and name files by their hashes alone."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCKS = ("build", "run", "dev", "docs", "tools")
COMPILED = ("cbor2", "cffi", "cryptography", "pydantic-core")
"""Packages with files of their own for each processor."""


def text_of(lock: str) -> str:
    return (ROOT / "requirements" / f"{lock}.lock").read_text(encoding="utf-8")


def pins(lock: str) -> dict[str, tuple[str, int]]:
    """By name: the version, and how many hashes there are for it."""
    found: dict[str, tuple[str, int]] = {}
    for block in re.findall(r"^[A-Za-z0-9].*(?:\n +.*)*", text_of(lock), re.MULTILINE):
        name, version = re.match(r"([A-Za-z0-9._-]+)==(\S+)", block).groups()  # type: ignore[union-attr]
        found[canonicalize_name(name)] = version, len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", block))
    return found


def asked() -> dict[str, list[Requirement]]:
    """What each lock file must hold."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")

    def listed(text: str) -> list[Requirement]:
        return [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]

    run = listed(setup["options"]["install_requires"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {
        "build": [Requirement(text) for text in project["build-system"]["requires"]],
        "run": run,
        "dev": run + listed(setup["options.extras_require"]["dev"]),
        "docs": run + listed(setup["options.extras_require"]["docs"]),
        "tools": listed((ROOT / "requirements" / "tools.in").read_text(encoding="utf-8")),
    }


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_has_all_that_is_asked_for_within_its_bounds(lock: str) -> None:
    held = pins(lock)
    wanted = asked()[lock]
    assert len(wanted) > 1
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        name = canonicalize_name(requirement.name)
        assert name in held, f"{requirement} is not locked: make lock"
        assert requirement.specifier.contains(held[name][0]), f"{requirement} is locked to {held[name][0]}: make lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_names_files_by_hash_and_no_place_to_get_them_from(lock: str) -> None:
    assert not re.search(r"://|^-|--(?!hash=sha256:)", text_of(lock), re.MULTILINE)
    for name, (version, hashes) in pins(lock).items():
        assert hashes > 0, f"{name} {version}"
        # One for each processor and system: not those of this machine alone.
        assert hashes > 10 or name not in COMPILED, f"{name} {version}"


def test_an_installation_and_the_tests_have_the_same_releases() -> None:
    run, dev, docs = pins("run"), pins("dev"), pins("docs")
    assert run.items() <= dev.items()
    # The site is built in the environment of the tests.
    assert {name: docs[name] for name in docs.keys() & dev.keys()}.items() <= dev.items()


def test_what_more_is_relied_on_of_than_is_promised_has_an_upper_bound() -> None:
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    reasons = set(re.findall(r"^# ([a-z0-9-]+): ", setup, re.MULTILINE))
    bounded = {
        canonicalize_name(requirement.name)
        for requirement in asked()["dev"]
        if any(one.operator in ("<", "<=", "==", "~=") for one in requirement.specifier)
    }
    assert {"pyusb", "python-can", "can-isotp", "pyserial", "pydantic", "cbor2", "pytest"} <= bounded
    assert bounded == reasons
