"""What the engine's tests share."""

from .lab import lab

__all__ = ["lab"]
