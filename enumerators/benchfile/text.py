"""A bench file's text as recordings have it: without its secrets and its comments.

Left out are settings that a protocol marks as `SECRET`, values in any part of the file whose key's name says secret, the
password and the tokens of each URL, and every comment. What stands there instead is of the same form, so that the text
still is a bench file: hexadecimal digits become zeros.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any, get_args

from ...flashers.settings import SECRET, Settings, is_settings
from ...transports import plugins
from ...transports.outside import without_passwords
from ...transports.toml_text import toml_lines
from .schema import BenchFile

LEFT_OUT = "left-out"
_SAYS_SECRET = re.compile(
    r"secret|passw|passphrase|token|credential|private.?key|api.?key|sec.?key|psk|bearer|(^|[_-])(pin|pw|pwd|auth)($|[_-])",
    re.IGNORECASE,
)
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2}[ :-]?)+")


def without_secrets(file: BenchFile) -> str:
    """The text of a bench file that says the same, less its secrets and comments."""
    marked = {name for model in _models(file) for name in _marked(model)}
    return "".join(f"{line}\n" for line in toml_lines(_masked(tomllib.loads(file.text), marked)))


def _models(file: BenchFile) -> Iterator[type[Settings]]:
    for entry in file.entries.values():
        yield type(entry.address)
        yield type(entry.profile)
    for bus in file.spec.bus.values():
        for asked in bus.ask:
            yield plugins.load(plugins.FLASHERS, asked.protocol).Profile


def _marked(model: type[Settings]) -> Iterator[str]:
    """The names of the fields of a model, and of the models in it, that are marked as secrets."""
    for name, key in model.keys_declared.items():
        if SECRET in key.marks:
            yield name
        for inner in _inner(key.annotation):
            yield from _marked(inner)


def _inner(annotation: Any) -> Iterator[type[Settings]]:
    if is_settings(annotation):
        yield annotation
    for argument in get_args(annotation):
        yield from _inner(argument)


def _masked(value: Any, marked: set[str], *, secret: bool = False) -> Any:
    match value:
        case dict():
            return {
                key: _masked(item, marked, secret=secret or key in marked or _says_secret(key, item))
                for key, item in value.items()
            }
        case list():
            return [_masked(item, marked, secret=secret) for item in value]
        case str() if secret:
            return re.sub("[0-9A-Fa-f]", "0", value) if _HEX.fullmatch(value) else LEFT_OUT
        case str():
            return without_passwords(value)
        case bool():
            return value
        case int() | float() if secret:
            return 0
    return value


def _says_secret(key: str, value: Any) -> bool:
    """A table may be named after a component or a bus, which says nothing of what is in it."""
    return not isinstance(value, dict) and bool(_SAYS_SECRET.search(key))
