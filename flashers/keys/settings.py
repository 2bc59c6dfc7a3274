"""What a bench file says of the keys of a part, and the types of values that go with it."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from ..settings import SECRET, After, Before, Field, Settings, bench_folder, in_words


def from_hex(value: object) -> object:
    if isinstance(value, bytes):
        return value
    try:
        return bytes.fromhex(value if isinstance(value, str) else "-")
    except ValueError:
        raise ValueError("it takes hexadecimal bytes in quotes, two digits each, such as 'DE AD BE EF'") from None


Hex = Annotated[bytes, Before(from_hex)]


def _from_folder(value: str) -> str:
    """A file, from the bench file's folder on; a file that goes by the image's name is found later."""
    folder = bench_folder()
    return value if not value or not folder or value.startswith("{") else str(folder / value)


BenchPath = Annotated[str, Field(max_length=4096), After(_from_folder)]
"""A file beside the bench file or, with {image} for the image's path without its ending, beside the image."""
KeyName = Annotated[
    str,
    Field(pattern=r"^(none|xor|library|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$"),
    in_words("'none', 'xor', 'library', or a Python function, written 'package.module:function'"),
]


class KeyLibrary(Settings):
    """A shared library that makes keys. It is called in a process of its own, which may crash or hang."""

    file: BenchPath
    """Path of the library. Relative paths start at the bench file's folder."""
    call: Literal["GenerateKeyEx", "GenerateKeyExOpt", "XCP_ComputeKeyFromSeed"] = "GenerateKeyEx"
    """The library's function: `"GenerateKeyEx"`, `"GenerateKeyExOpt"`, or `"XCP_ComputeKeyFromSeed"` (ASAM XCP)."""
    level: int | None = Field(default=None, ge=0, le=0xFF)
    """The level, access type or privilege that the function gets. Default: that of the seed."""
    variant: str = Field(default="", max_length=256)
    """The variant text that the function gets."""
    options: Annotated[str, SECRET] = Field(default="", max_length=4096)
    """The options text that `GenerateKeyExOpt` gets."""
    seconds: float = Field(default=5.0, gt=0, le=60)
    """Seconds that one call may take."""


class KeySource(Protocol):
    """A table of the bench file that says how keys are made. `folder`: the bench file's, where the module of a key function may
    lie; "": there is no bench file."""

    @property
    def key(self) -> str: ...
    @property
    def library(self) -> KeyLibrary | None: ...
    @property
    def folder(self) -> str: ...


def check_source(source: KeySource, secret: bytes) -> None:
    """Raises ValueError."""
    if source.key == "xor" and not secret:
        raise ValueError('key = "xor" needs a secret')
    if (source.key == "library") != (source.library is not None):
        raise ValueError('key = "library" goes with the table library')
