"""`Outside`: what a bench asks outside of its buses: commands of its file, files of the host, keys, steps of an update.

The rule: whatever is neither traffic nor a file that the user named is asked through here. So it is in a recording, and a
replay takes the recorded answer instead of asking.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .recording.recorder import Recorder

_PASSWORD = r"(?<=://)[^\s/\"']*@"
"""User and password of a URL (RFC 3986, 3.2.1), up to the last "@": many programs take one in a password as it is."""
_TOKEN = r"(?i)([?&][\w.-]*(?:token|secret|passw|passwd|password|pwd|key|sig|signature|auth|code)=)[^\s&\"'#]+"
"""A field of a URL's query whose name says that it is a secret."""

_NAME = r"\b(?:(?:Proxy-)?Authorization|(?:Set-)?Cookie|[\w-]{1,40}-(?:Auth|Token|Key|Secret))"
_WORD = r"""(?:\\.|"(?:\\.|[^"\\])*"|'[^']*'|[^\s"'\\]|["'\\][^\n]*)+"""
_HEADER = (
    # In quotes: to their end, and on to the end of the shell's word. Else the word, or after a blank the line.
    rf"""(?is)(["'])({_NAME}\s*:\s*)(?:\\.|(?!\1)[^\\])*(\1?)(?:{_WORD})?"""
    rf"""|({_NAME}(?:["']\s*:\s*|:(?=\S))){_WORD}|({_NAME}\s*:\s*)[^\r\n]+"""
)
"""A header of HTTP whose name says that it holds a secret (RFC 9110, 11.6.2; RFC 6265), as a command or a message has it."""


_KEY_FOR = "UDS key of level {} for the seed {}"
_ASKS_FOR_KEY = re.compile(_KEY_FOR.format(r"\d+", "[0-9a-f]*"))


class OutsideFailed(Exception):
    """What was asked outside of the buses has no answer; the text says why."""


class Answers(Protocol):
    """Where recorded answers come from."""

    def answer(self, question: str) -> tuple[str, bool]:
        """The recorded answer, and whether it is the reason of a failure. Raises ProxyflashError where there is none."""


def without_passwords(text: str) -> str:
    """The text without the user, password and tokens of each URL in it, and without the secrets in headers of HTTP.

    The same text again if it has none.
    """
    text = re.sub(_TOKEN, r"\1left-out", re.sub(_PASSWORD, "left-out@", text))
    return re.sub(_HEADER, r"\1\2\4\5left-out\3", text)


def key_question(level: int, seed: bytes) -> str:
    """What is asked for the key of a seed."""
    return _KEY_FOR.format(level, seed.hex())


def without_key(question: str, answer: str) -> tuple[str, str]:
    """A question and its answer as they may be shown and logged: without a seed, and without its key."""
    if _ASKS_FOR_KEY.fullmatch(question) is None:
        return question, answer
    return question.partition(" for the seed ")[0], f"{len(answer) // 2} bytes"


class Outside:
    """Asks, records what came of it, or takes the recorded answer."""

    def __init__(self, recorder: Callable[[], Recorder | None], answers: Answers | None = None) -> None:
        self._recorder = recorder
        self._answers = answers

    @property
    def replayed(self) -> bool:
        """Whether nothing is asked, and every answer comes from a recording."""
        return self._answers is not None

    def ask(self, question: str, look: Callable[[], str]) -> str:
        """What `look` returns, under a text that says what is asked. Raises OutsideFailed, and under replay also an error
        that says that the answer is not in the recording."""
        from .recording.recorder import LONGEST_QUESTION

        question = without_passwords(question)[:LONGEST_QUESTION]
        if self._answers is not None:
            text, failed = self._answers.answer(question)
            if failed:
                raise OutsideFailed(text)
            return text
        recorder = self._recorder()
        try:
            text = look()
        except OutsideFailed as error:
            if recorder is not None:
                recorder.answer(question, without_passwords(str(error)), failed=True)
            raise
        if recorder is not None:
            recorder.answer(question, text)
        return text
