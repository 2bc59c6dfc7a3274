"""Keys for SecurityAccess (ISO 14229-1:2020, 10.4): what each step of a profile's order unlocks the ECU by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...transports.outside import Outside
from ..keys.making import KeyFunction, key_file, recorded_keys
from .profile import Security, UdsProfile


def keys_of(profile: UdsProfile, outside: Outside | None) -> dict[str, tuple[Security, KeyFunction | None]]:
    """What each step of the profile's order that unlocks the ECU does so by; see `recorded_keys`."""
    return {name: (security, recorded_keys(security, outside)) for name, security in _levels(profile).items()}


def key_files(profile: UdsProfile) -> Iterator[Path]:
    """The files of the key libraries, and of the key functions beside the bench file."""
    yield from filter(None, map(key_file, _levels(profile).values()))


def _levels(profile: UdsProfile) -> dict[str, Security]:
    levels = {"key": profile.security}
    return levels | {name: profile.access(step) for name, step in profile.own_steps.items() if step.level is not None}
