"""`Deadline`: a point in monotonic time. Every blocking call takes one, so that no call can wait for ever."""

from __future__ import annotations

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
