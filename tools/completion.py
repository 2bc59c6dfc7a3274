"""Completion of targets: protocols, the places that this host has, the keys of the bench file and the words they take.

bash takes ":" and "=" for ends of words (COMP_WORDBREAKS), so it gets only what follows the last of them; `BashTargets`
is click's completion for bash with this difference, and with no space after a word that goes on.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator

from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

from ..enumerators import target_keys
from ..enumerators.target import Target, taken_apart
from ..transports import plugins
from ..transports.errors import PluginBroken, ProxyflashError
from ..transports.transport import Transport

SAFE = re.compile(r"[A-Za-z0-9:=?&./_+@,-]+")
"""The characters of what is offered: a shell puts it on the command line as it is, and some names come from devices."""
GOES_ON = (":", "=", "?", "&")


def targets(start: str, *, whole_bus: bool = False) -> list[CompletionItem]:
    """The targets that begin so. `whole_bus`: also buses without a component."""
    try:
        words = [*_places(start, whole_bus), *_settings(start, whole_bus)]
    except ProxyflashError:
        return []
    return [CompletionItem(word) for word in words if word.startswith(start) and SAFE.fullmatch(word)]


def _places(start: str, whole_bus: bool) -> Iterator[str]:
    protocol, colon, _ = start.partition(":")
    if "?" in start:
        return
    protocols = plugins.names(plugins.FLASHERS)
    if not colon:
        yield from (f"{name}:" for name in protocols)
    elif protocol in protocols:
        kind = plugins.load(plugins.FLASHERS, protocol).bus_kind
        yield from (f"{protocol}:{where}" for where in plugins.load(plugins.TRANSPORTS, kind).wheres())
    if whole_bus:
        for kind in plugins.names(plugins.TRANSPORTS):
            yield from _buses(kind)


def _buses(kind: str) -> Iterator[str]:
    try:
        transport: type[Transport] = plugins.load(plugins.TRANSPORTS, kind)
    except PluginBroken:
        return
    if transport.where("") is not None:
        yield kind
    for text in transport.wheres():
        if (where := transport.where(text)) is not None and not where.address:
            yield text


def _settings(start: str, whole_bus: bool) -> Iterator[str]:
    head, mark, settings = start.partition("?")
    if not mark:
        return
    before, _, last = settings.rpartition("&")
    begun = f"{head}?{before}&" if before else f"{head}?"
    key, equals, _ = last.partition("=")
    for name, words in target_keys.all_keys(taken_apart(Target(head, whole_bus=whole_bus)).keys):
        if not equals:
            yield f"{begun}{name}="
        elif name == key:
            yield from (f"{begun}{name}={word}" for word in words)


class BashTargets(BashComplete):
    """click's completion for bash, where words hold ":" and "="."""

    source_template = BashComplete.source_template.replace(
        "env COMP_WORDS=", 'env COMP_LINE="${COMP_LINE:0:$COMP_POINT}" COMP_WORDS='
    ).replace("COMPREPLY+=($value)", 'COMPREPLY+=("$value"); [[ $value == *[:=] ]] && compopt -o nospace 2>/dev/null')
    _there = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ.get("COMP_LINE", "")
        if not line:
            return super().get_completion_args()
        # The mark makes a word of nothing, where a new word begins.
        *words, last = split_arg_string(f"{line}\0")
        incomplete = last[:-1]
        if not _in_quotes(line):
            self._there = incomplete[: max(incomplete.rfind(":"), incomplete.rfind("=")) + 1]
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.type},{str(item.value).removeprefix(self._there)}"


def _in_quotes(line: str) -> bool:
    try:
        shlex.split(line)
    except ValueError:
        return not line.endswith("\\")
    return False


def register() -> None:
    """Has click answer bash by this module."""
    add_completion_class(BashTargets)
