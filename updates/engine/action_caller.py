"""`ActionCaller`: calls the handler of one task. Each action gives a result, and the error behind a failure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ...flashers.errors import Cancelled
from ...transports.errors import ProxyflashError, naming
from ...transports.outside import Outside
from ..errors import StepFailed, StepHangs, StepTimeout
from ..handlers.handler import StepContext, StepHandler
from .action import Action
from .plan import Task
from .results import FACILITY_STEP_HANDLERS, ActionResult, ResultCode, asked, extended_code
from .time_limits import ActionTimeout

FAILED, LATE = 1, 2
"""Values of extended codes: an error of this program was the reason; the action took longer than it may."""

Ended = tuple[ActionResult, ProxyflashError | None]
"""What an action came to: its result, and the error if it failed."""


class ActionCaller:
    """`timeout`: over each action. `outside`: records or replays actions that reach more than the bench's buses."""

    def __init__(self, task: Task, handler: StepHandler, timeout: ActionTimeout, outside: Outside) -> None:
        self.task = task
        self.handler = handler
        self._timeout = timeout
        self._outside = outside

    @property
    def context(self) -> StepContext:
        return self.handler.context

    @property
    def is_late(self) -> bool:
        """Whether the last action's time was over, and nobody asked the update to stop."""
        return self._timeout.expired and not self._timeout.stops

    def call(self, action: Action, *, after_cut: bool = False) -> Ended:
        """An error that the action raises becomes a failed result.

        Args:
            after_cut: Ask `is_complete` in the place of `is_installed`.

        Raises:
            StepHangs: The action does not return.
            Cancelled: The action stopped, because it was asked to or because its time was over.
        """
        method = self.handler.is_complete if after_cut else action.method_of(self.handler)
        try:
            with naming(self.task.target):
                result = self._called(action, method)
        except (StepHangs, Cancelled):
            raise
        except ProxyflashError as error:
            return self.late(action, error) if self._timeout.expired else (failure(error), error)
        except Exception as error:
            wrong = self._failed(f": {type(error).__name__}: {error}")
            wrong.__cause__ = error
            return failure(wrong), wrong
        if result.succeeded:
            return result, None
        details = result.details or f"result code {result.code}"
        if self._timeout.expired:
            return self.late(action, StepFailed(details))
        return result, self._failed(f" failed: {result.details or f'{details}, extended {result.extended:08X}'}")

    def late(self, action: Action, error: ProxyflashError) -> Ended:
        """Of an action that ended with a failure once its time was over, which is why it did."""
        late = StepTimeout(
            f"step {self.task.label}: {action} took longer than {self._timeout.seconds:g} s: {error.cause}",
            component=self.task.target,
        )
        late.__cause__ = error
        return failure(late, LATE), late

    def cancel(self) -> ActionResult:
        """The handler's clean-up. Raises StepHangs when it doesn't return."""
        try:
            with naming(self.task.target):
                return self._called(Action.CANCEL, self.handler.cancel)
        except StepHangs:
            raise
        except Exception as error:
            return ActionResult(ResultCode.CANCEL_UNABLE, details=f"{type(error).__name__}: {error}")

    def _called(self, action: Action, method: Callable[[], ActionResult]) -> ActionResult:
        question = f"step {self.task.label} on {self.task.target}: {action}"
        work = method if self.handler.buses_only else partial(asked, self._outside, question, method)
        return self._timeout.call(work, f"step {self.task.label}: {action}")

    def _failed(self, what: str) -> StepFailed:
        return StepFailed(f"step {self.task.label} ({self.task.step.handler}){what}", component=self.task.target)


def failure(error: ProxyflashError, value: int = FAILED) -> ActionResult:
    """The result of what an error ended."""
    code = extended_code(FACILITY_STEP_HANDLERS, 0, value)
    return ActionResult(ResultCode.FAILURE, code, f"{error.code} {error.cause}")
