"""The parameters of routines, downloads and transfer exits, as a profile lists them, in bytes.

All are big endian (ISO 14229-1:2020, 14.2 and 15.2). What a list names that has nothing to do with the memory at hand,
such as the address in a step that is done once, is that of the whole of what is programmed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .checksums import CHECKSUMS
from .codec import Service
from .profile import UdsProfile


@dataclass(frozen=True, slots=True)
class Subject:
    """What a request is about: bytes at an address, and what the profile says of the memory that they are for."""

    address: int = 0
    size: int = 0
    data: bytes = b""
    id: int = 0
    signature: bytes = b""


def encoded(names: Sequence[str], profile: UdsProfile, subject: Subject) -> bytes:
    """The parameters that the names ask for. A name that is none is literal bytes."""
    return b"".join(_one(name, profile, subject) for name in names)


def block_request(profile: UdsProfile, counter: int, subject: Subject) -> bytes:
    """TransferData with this block. A checksum in it goes over the request up to there."""
    request = bytes((Service.TRANSFER_DATA, counter))
    for name in profile.block:
        if name == "data":
            request += subject.data
        elif name == "length":
            request += bytes((subject.size,))
        else:
            request += _one(name, profile, replace(subject, data=request) if name in CHECKSUMS else subject)
    return request


def most_data(profile: UdsProfile, longest: int, subject: Subject) -> int:
    """Bytes of data that one TransferData of `longest` bytes has room for; 0: none."""
    beside = len(block_request(profile, 0, replace(subject, size=0, data=b"")))
    room = longest - beside
    return min(room, 0xFF) if "length" in profile.block else room


def _one(name: str, profile: UdsProfile, subject: Subject) -> bytes:
    match name:
        case "alfi":
            return bytes((profile.size_length << 4 | profile.address_length,))
        case "address":
            address = subject.id if profile.address_by == "id" else subject.address
            return address.to_bytes(profile.address_length, "big")
        case "size":
            return subject.size.to_bytes(profile.size_length, "big")
        case "region":
            return bytes((subject.id,))
        case "signature":
            return subject.signature
        case _ if name in CHECKSUMS:
            width, compute = CHECKSUMS[name]
            return compute(subject.data).to_bytes(width, "big")
        case _:
            return bytes.fromhex(name)
