"""The order of versions, for floors, downgrades and conditions.

A version is numbers with dots between, of any count, as updateId has it and most parts report; a leading "v" and what
Semantic Versioning 2.0.0 (sections 9 to 11) puts behind are understood: "1.2.0-rc.1" is before "1.2.0", and what follows
a "+" does not count. Missing numbers are zeros. A text of another form has no place in the order.
"""

from __future__ import annotations

import re

FORM = re.compile(
    r"v?(?P<numbers>[0-9]{1,20}(?:\.[0-9]{1,20}){0,9})"
    r"(?:-(?P<before>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?",
    re.ASCII,
)
LONGEST = 200
"""Characters of a version."""

Key = tuple[tuple[int, ...], int, tuple[tuple[int, int, str], ...]]


def key(text: str) -> Key | None:
    """What sorts versions; None: the text is not a version."""
    found = FORM.fullmatch(text.strip()) if len(text) <= LONGEST else None
    if found is None:
        return None
    numbers = [int(number) for number in found["numbers"].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    before = found["before"]
    # Without a pre-release it is the later one; of identifiers, numbers sort as such and before words.
    words = [(0, int(word), "") if word.isdecimal() else (1, 0, word) for word in before.split(".")] if before else []
    return tuple(numbers), 0 if before else 1, tuple(words)


def older(version: str, than: str) -> bool | None:
    """Whether `version` comes before `than`; None: one of them is not a version."""
    first, second = key(version), key(than)
    return None if first is None or second is None else first < second
