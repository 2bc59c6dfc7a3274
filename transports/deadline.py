"""`Deadline`: a point in monotonic time. Every blocking call takes one, so that no call can wait for ever.

The calls of buses, ports and devices also take a plain number: seconds from now.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from . import clock


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time on `time.monotonic`'s clock, in seconds."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline that lies `seconds` from now."""
        return cls(clock.monotonic() + seconds)

    @classmethod
    def of(cls, deadline: Deadline | float) -> Deadline:
        """The deadline itself; of a plain number the deadline that many seconds from now. Raises TypeError for anything else,
        and for a number that is not finite."""
        if isinstance(deadline, cls):
            return deadline
        if isinstance(deadline, bool) or not isinstance(deadline, int | float) or not math.isfinite(deadline):
            raise TypeError(
                f"a deadline is a Deadline, such as Deadline.after(1), or seconds from now, not {deadline!r}"
            )
        return cls.after(deadline)

    @property
    def remaining(self) -> float:
        """Seconds left; 0.0 once it has passed, never negative."""
        return max(0.0, self.at - clock.monotonic())

    @property
    def expired(self) -> bool:
        return clock.monotonic() >= self.at

    def sooner(self, seconds: float) -> Deadline:
        """This deadline, or the one `seconds` from now if that comes first."""
        return Deadline(min(self.at, clock.monotonic() + seconds))
