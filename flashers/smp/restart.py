"""`Restarting`: has a part that speaks SMP restart, and waits for what comes back: the application, an image, recovery."""

from __future__ import annotations

from contextlib import suppress

from ...transports import clock
from ...transports.deadline import Deadline
from ...transports.errors import NextAction, Remedy
from ..errors import NoResponse, PartError, PartWrongMode, RebootFailed, Step, VerifyMismatch, silence
from ..formats.mcuboot import McubootImage
from . import boot_log
from .client import SmpClient
from .codec import SILENCES
from .link import TRIES, Wire
from .profile import SmpProfile
from .slots import LARGER_BUFFER, Slots

POLL_SECONDS = 0.5
"""How long a part that restarts has for an answer before it is asked again; the next times twice as long as before, up to its
usual time."""
RESET_SECONDS = 3.0
"""How long after it acknowledged a reset a part may still answer as before."""
RESETS = 3
"""How often a part is asked to restart that still waits to try its new image: a request may get lost."""
LOG_FACTOR = 5
"""A starting part's log may go on for this factor times the silence that the part is left, before it is asked anyway."""
START_SECONDS = 10.0
"""How long an image may be silent that its bootloader has started where the image is not linked for."""
Advice = tuple[str | NextAction, ...]
BROUGHT_BACK: Advice = (
    "If the new image does not work, the next reset brings the old one back. Cut its supply, and see: ",
    NextAction.SCAN,
)
OVERWRITTEN: Advice = (
    "If the new image does not work, no other one is there. Cut its supply, and see: ",
    NextAction.SCAN,
    ". If it is still silent, bring it into serial recovery by its pin or button, and flash an image that is linked for it.",
)
"""What to do about a part that is silent after its reset: with the old image in another slot, and without."""


class Restarting:
    """`moved`: whether the part was brought into recovery, and has not left it since."""

    def __init__(self, wire: Wire, client: SmpClient, slots: Slots, profile: SmpProfile) -> None:
        self._wire = wire
        self._client = client
        self._slots = slots
        self._profile = profile
        self._polls = 0
        """How often a part that restarts was asked."""
        self._misses: Deadline | None = None
        """Until when an image may be silent that is not linked for where its bootloader has started it."""
        self.moved = False

    def restart(self, *, recovery: bool = False, quiet: float | None = None) -> None:
        self._polls, self._misses = 0, None
        self._wire.follow(Deadline.after(self._profile.swap))
        self._client.reset(recovery=recovery)
        self._wire.speak_to(recovery=recovery)
        self._leave_alone(self._profile.quiet if quiet is None else quiet)

    def greet(self, seconds: float, tries: int) -> None:
        """Asks whether the part is there; where serial recovery has a bit rate of its own, at both. Raises NoResponse."""
        try:
            self._slots.greet(seconds, tries)
        except NoResponse:
            if not self._wire.turn():
                raise
            try:
                self._slots.greet(seconds, tries)
            except NoResponse:
                self._wire.turn()
                raise

    def _leave_alone(self, quiet: float) -> None:
        """Waits until a part that starts has said what it has to say.

        A bootloader that waits for recovery's first request must not take a question for it, and some UART drivers
        never hear again if something came in while they started.
        """
        self._wire.await_silence(quiet, Deadline.after(LOG_FACTOR * quiet))

    def await_application(self) -> None:
        """Waits until a part that was reset answers again. Raises RebootFailed."""
        self.await_answer()
        self._slots.look()
        if self._slots.recovery:
            cause = "the part stays in serial recovery: its bootloader finds no image that it would start"
            raise RebootFailed(cause).answers()
        self.moved = False
        self._wire.follow(None)

    def await_answer(self) -> None:
        """Waits until a part that restarts answers, whatever runs on it. Raises NoResponse."""
        deadline = Deadline.after(self._profile.swap)
        while True:
            with suppress(NoResponse):
                seconds, tries = self._poll()
                self.greet(seconds, tries)
                return
            if deadline.expired:
                raise self._silence()
            self._refuse_to_wait()
            self._leave_alone(self._profile.quiet)

    def _silence(self, remedy: Remedy | None = None) -> PartError:
        cause = f"the part did not answer within {self._profile.swap:g} s after its reset{self._slots.held()}"
        return silence(SILENCES[Step.START], cause, remedy)

    def _refuse_to_wait(self, goal: McubootImage | None = None, remedy: Advice = ()) -> None:
        """Raises RebootFailed where the bootloader's log says that it starts nothing, or that it has started the image where
        that is not linked for. `goal`: the image that it is to start; `remedy`: what helps where that does not run.
        """
        if boot_log.NOTHING_TO_START in self._wire.log:
            raise RebootFailed(
                f'the bootloader says "{boot_log.NOTHING_TO_START.decode()}": it takes no image in its slots{self._slots.held()}',
                remedy="Is the image signed with this part's key, and for its slot? Bring the part into serial recovery by its "
                "pin or button, and flash an image that is.",
            ).answers()
        missed = boot_log.missed(self._wire.log, goal) if goal is not None and not self._slots.image else ""
        if missed and self._misses is None:
            self._misses = Deadline.after(START_SECONDS)
        elif missed and self._misses is not None and self._misses.expired:
            linked = "Link the image for the slot that it runs in. "
            raise RebootFailed(f"{missed}. Nothing has answered since", remedy=(linked, *remedy)).answers()

    def _advice(self, goal: McubootImage, *, in_place: bool) -> Advice:
        """What to do about an image that does not answer. `in_place`: it has replaced the old one."""
        advice = OVERWRITTEN if in_place else BROUGHT_BACK
        start = boot_log.unchecked_start(goal.reset_vector, goal.load_address, self._profile.run_address)
        if start is None or not goal.is_cortex_m:
            return advice
        linked = (
            f"The image's program starts at 0x{start:08X}: if that is not in the slot that it runs in, set run_address in its "
            "profile, so that such an image is refused before it is sent. "
        )
        return linked, *advice

    def _poll(self) -> tuple[float, int]:
        """Seconds for an answer, and tries: a part whose every answer takes longer than the first polls is there all the same."""
        seconds = min(POLL_SECONDS * 2**self._polls, self._profile.answer)
        self._polls = min(self._polls + 1, 8)
        return seconds, TRIES if seconds == self._profile.answer else 1

    def enter_recovery(self) -> None:
        """Raises PartWrongMode, SerialSettings where the port can't do the bit rate of recovery."""
        # A bit rate that the port can't do is refused here, while the application still runs.
        self._wire.speak_to(recovery=True)
        self._wire.speak_to(recovery=False)
        reset = clock.monotonic()
        self.moved = True
        self.restart(recovery=True)
        again = True
        while True:
            self.await_answer()
            self._slots.look()
            if self._slots.recovery:
                self._wire.follow(None)
                return
            if clock.monotonic() - reset > RESET_SECONDS and again:
                again, reset = False, clock.monotonic()  # The request may have been lost.
                self.restart(recovery=True)
            elif clock.monotonic() - reset > RESET_SECONDS:
                raise PartWrongMode(
                    "the part was asked to restart into serial recovery, and runs its application",
                    remedy="Was it built with a boot mode (retention)? If not, bring it there by hand.",
                )
            clock.sleep(0.1)

    def await_image(self, goal: McubootImage) -> None:
        """Waits until an image runs. Raises RebootFailed where nothing does, VerifyMismatch where another one does.

        Serial recovery writes where the bootloader starts from: an application that then runs, and can't list
        its images, is the new one, if no other waited to be tried.
        """
        reset = clock.monotonic()
        deadline = Deadline.after(self._profile.swap)
        again = self._slots.recovery
        resets = 1
        in_place = self._slots.recovery and not any(image.pending for image in self._slots.own())
        while True:
            try:
                seconds, tries = self._poll()
                self._slots.images = self._client.images(seconds=seconds, tries=tries)
            except NoResponse:
                advice = self._advice(goal, in_place=in_place)
                if deadline.expired:
                    raise self._silence(advice) from None
                self._refuse_to_wait(goal, advice)
                self._wire.turn()
                self._leave_alone(self._profile.quiet)
                continue
            slot = self._slots.slot_of(goal.hash)
            if slot is not None and slot.active and not self._slots.in_recovery_now():
                self.moved = False
                self._wire.follow(None)
                return
            if clock.monotonic() - reset < RESET_SECONDS:
                # It may not have restarted yet.
                clock.sleep(0.1)
                continue
            if (
                slot is not None
                and slot.pending
                and not self._slots.recovery
                and resets < RESETS
                and not deadline.expired
            ):
                # A bootloader that starts tries the image or takes the wish back: the request to restart was lost.
                resets, reset = resets + 1, clock.monotonic()
                self.restart()
                continue
            if self._slots.in_recovery_now() and again:
                again, reset = False, clock.monotonic()
                self.restart(quiet=RESET_SECONDS)
                continue
            break
        if not in_place or self._slots.recovery or self._slots.untold is None:
            raise self._other_image(goal)
        self.moved = False
        self._wire.follow(None)

    def _other_image(self, goal: McubootImage) -> VerifyMismatch:
        if self._slots.untold is not None and not self._slots.recovery:
            return VerifyMismatch(
                f"after its reset the part does not tell which image it runs: {self._slots.untold}",
                remedy=f"{LARGER_BUFFER}."
                if self._slots.untold.too_long
                else "Is the image built with image management?",
            )
        running = self._slots.running()
        what = (
            "stays in serial recovery"
            if self._slots.recovery
            else f"runs {running}"
            if running
            else "runs something else"
        )
        return VerifyMismatch(
            f"after its reset the part {what}: its bootloader does not take {goal.version} ({goal.hash.hex()[:16]}...)",
            remedy="Is the image signed with this part's key, and for its slot?",
        )
