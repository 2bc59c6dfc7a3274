"""`Session`: what one call of the command line shares: its global options, its output, its bench, its Ctrl-C."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ...flashers import events as ev
from ...flashers.errors import Cancelled
from ...flashers.events import RunContext
from ...transports import clock
from ...transports.errors import ExitStatus, NextAction, ProxyflashError, naming
from ...transports.quoting import shell_line
from ..interrupt_status import Standing
from ..output import Mode, Output, open_log

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ...enumerators.bench import Bench
    from ...enumerators.bench_component import BenchComponent
    from ...enumerators.target import Target
    from ...flashers.programmer import Programmer
    from ...report_page.collecting import Collector

F = TypeVar("F", bound=Callable[..., Any])
Opener = Callable[[Any, "Path | None"], "Bench"]
"""Opens a bench: a bench file's path or None for the usual one, or a target; and the state folder."""
CLOSE_SECONDS = 5.0
"""How long closing may take once a second Ctrl-C has ended everything."""
SAFE_POINT_SECONDS = 3.0
"""How long a safe point may be away while nothing has been changed yet; then the command is stopped at once."""
SWALLOWED_SECONDS = 0.05
"""How long after a signal was lost in a finaliser it is raised again."""
RELEASE_SECONDS = 10.0
"""How long a part that was only looked at may take to run its application again, once its command was stopped at once."""


class LogFile(ProxyflashError):
    """The file of `--log-file` or `--trace` can't be opened, or is there and is not a log or a trace."""

    code = "E-LOG"
    exit_status = ExitStatus.USAGE
    default_remedy = "Name another file."


@dataclass
class Session:
    """Global options may stand before the command or after it; the later one counts."""

    arguments: tuple[str, ...]
    output: Output
    bench_path: str | None = None
    state: Path | None = None
    owns_output: bool = True
    """Whether closing this also closes the output; not so for a command that another command runs."""
    ends_process: bool = False
    """Whether the process ends with this: a Ctrl-C that comes when all is done then changes nothing any more."""
    stopping: bool = False
    begun: bool = False
    """Whether an engine works on the parts."""
    _safely: bool = False
    standing: Standing = field(default_factory=Standing)
    _asking: bool = False
    _handlers: dict[int, Any] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)
    """Set when no signal is to be raised again."""
    _unraisable: Callable[[Any], Any] | None = None
    """The hook of others, while ours is in its place."""
    opener: Opener | None = None
    """Opens the bench in a way of its own: recorded, or replayed."""
    trace: Path | None = None
    """Where a trace of the run goes."""
    profile: Path | None = None
    """The profile of the component that a target names."""
    watcher: Collector | None = None
    """Collects what happens, for a page."""
    _bench: Bench | None = None
    _target: Target | None = None
    """In the place of a component's name."""
    _more: list[Bench] = field(default_factory=list)
    """Of further targets."""
    _one_by_one: clock.SomeLock = field(default_factory=clock.RLock)
    """Held while an event or a message is shown: each component of an update may have a thread of its own."""

    @property
    def bench(self) -> Bench:
        """The bench of this call, read when it is first asked for."""
        if self._bench is None:
            self._bench = self._opened(self.bench_path)
        return self._bench

    def component(self, name: str, file: Path | None = None) -> BenchComponent:
        """The component of this name, or of a target. Raises ComponentUnknown, TargetWrong, BenchError.

        `file`: the word after it, which is refused where both were swapped.
        """
        from ...enumerators.errors import BenchMissing, ComponentUnknown
        from ...enumerators.target import Target, is_target, refuse_file, refuse_swapped

        if file is not None:
            refuse_swapped(name, str(file))
        if not is_target(name):
            self._refuse_profile()
            try:
                return self.bench.component(name)
            except (BenchMissing, ComponentUnknown) as error:
                refuse_file(name, file)
                if isinstance(error, ComponentUnknown) or self.bench_path is not None:
                    raise
                other = "Or name the part by its protocol and place, such as stm32-uart:/dev/ttyUSB0: proxyflash help targets"
                raise error.advised(f"{error.remedy}. {other}") from error
        if ":" not in name:
            refuse_file(name, file)
        if self._bench is None:
            self._target = Target(name, self.profile)
            self._bench = self._opened(self._target)
        return self._bench.only

    def benches(self, targets: Sequence[str]) -> list[Bench]:
        """A bench for each target; the bench of this call, if there is none. Raises TargetWrong, BenchError."""
        from ...enumerators.target import Target

        if not targets:
            self._refuse_profile()
        if targets and not self._more:
            for text in dict.fromkeys(targets):
                self._more.append(self._opened(Target(text, self.profile, whole_bus=True)))
        return self._more or [self.bench]

    def _refuse_profile(self) -> None:
        if self.profile is not None:
            raise click.UsageError("--profile goes with a target; a component's profile is in the bench file")

    def hang_up(self) -> None:
        """Closes every bus; each is opened again when it is next needed."""
        for bench in self._more or [self.bench]:
            bench.hang_up()

    def _opened(self, which: str | Target | None) -> Bench:
        from ...enumerators.bench import Bench

        opener = self.opener or (lambda path, state: Bench.open(path, state=state))
        bench = opener(which, self.state)
        if self.output.wants_messages:
            from ..messages import tell_messages

            tell_messages(bench, self.output, self._one_by_one)
        if self.watcher is not None:
            self.watcher.open(bench)
        return bench

    def watch(self, title: str) -> None:
        """From now on what happens is collected, for a page with this title."""
        from ...report_page.collecting import Collector

        self.watcher = self.watcher or Collector(title)

    def told(self, component: str, text: str, *facts: tuple[str, str]) -> None:
        """The verdict of work that ended well, for the page if there is to be one."""
        if self.watcher is not None:
            self.watcher.tell(component, text, facts)

    @property
    def goes_on(self) -> str:
        """The call that goes on with what this one has left: without --full, which begins again."""
        return shell_line(("proxyflash", *(word for word in self.arguments if word != "--full")))

    def worded(self, error: ProxyflashError) -> ProxyflashError:
        """The error, whose remedy names commands as they can be typed for this bench, or for the bus of this target."""
        from ...enumerators.target import scan_of

        def command(action: NextAction) -> str:
            if action is NextAction.SCAN and self._target is not None:
                return self.command_for(*scan_of(self._target))
            return self.command_for(*action.split())

        return error.worded(command)

    def command_for(self, *words: str) -> str:
        """Another command on the same bench, as it can be typed."""
        options = [] if self.bench_path is None else ["--bench", self.bench_path]
        options += [] if self.state is None else ["--state", str(self.state)]
        return shell_line(("proxyflash", *options, *words))

    def catch_interrupts(self) -> None:
        """From now on a Ctrl-C, SIGTERM or SIGHUP stops the command at once, or, while an engine works on the parts, at its
        next safe point; the second Ctrl-C or SIGTERM stops at once in any case.

        While nothing has been changed, one signal is enough: if the safe point doesn't come in time, the command is
        stopped at once as well.
        """
        if threading.current_thread() is not threading.main_thread():
            return

        answering, again = False, False

        def stop(signum: int, frame: object) -> None:
            nonlocal answering, again
            if signum == signal.SIGHUP and self.stopping:
                # Of a terminal that is closed the kernel and the shell tell, each by a signal of its own.
                return
            if answering:
                # Raised in here, it would leave the locks held that starting a thread takes.
                again = True
                return
            first, self.stopping = not self.stopping, True
            answering = True
            waits = first and self._safely and not self._asking and (self.begun or self.standing.touched)
            if waits:
                # A thread of its own: what the signal came into may hold the very stream that this is printed on. A real
                # one: it uses no clock, and a simulated thread can't be started within a signal.
                said = "stopping at the next safe point; Ctrl-C again stops now"
                threading.Thread(target=self.output.alarm, args=(said,), daemon=True).start()
            if not self.standing.touched:
                self._once_more(SAFE_POINT_SECONDS if waits else RELEASE_SECONDS)
            answering = False
            if again or not waits:
                raise KeyboardInterrupt

        def swallowed(told: Any) -> None:
            """A finaliser or a weak reference's callback: what a signal raises in there, Python reports and drops."""
            nonlocal answering
            if not issubclass(told.exc_type, KeyboardInterrupt):
                before(told)
                return
            answering = True
            self._once_more(SWALLOWED_SECONDS, always=True)
            answering = False

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # A shell's background job ignores Ctrl-C, which is for the job at the terminal, and nohup has SIGHUP ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers.setdefault(number, signal.signal(number, stop))
        before = sys.unraisablehook
        if self._unraisable is None:
            self._unraisable, sys.unraisablehook = before, swallowed

    def stop_safely(self) -> None:
        """Says that the engine of this command looks at `stopping`, and stops at its next safe point."""
        self._safely = True

    def _once_more(self, seconds: float, *, always: bool = False) -> None:
        """Raises the signal again, unless the command ends before, or something was changed after all.

        `always`: also then.
        """

        def send() -> None:
            if not ended.wait(seconds) and (always or not self.standing.touched):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        self._ended.set()
        ended = self._ended = threading.Event()
        threading.Thread(target=send, name="one more signal", daemon=True).start()

    def answer(self, question: str) -> str:
        """Asks on stderr; the line that a person types, "" for Ctrl-C and for the end of the input.

        `input` misses a Ctrl-C that comes just before it begins to read, until another key is pressed; hence the pipe
        that signals are written to.
        """
        woken, waker = os.pipe()
        os.set_blocking(waker, False)
        before = signal.set_wakeup_fd(waker)
        self._asking = True
        try:
            if self.stopping:
                return ""
            self.output.question(question)
            typed = sys.stdin.readline() if sys.stdin in select.select([sys.stdin, woken], [], [])[0] else ""
        except KeyboardInterrupt:
            typed = ""
        finally:
            self._asking = False
            signal.set_wakeup_fd(before)
            os.close(woken)
            os.close(waker)
        if not typed.endswith("\n"):
            self.output.end_question()
        return typed.strip()

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Nothing is under way in the block: a signal ends the command there at once."""
        self._asking = True
        try:
            if self.stopping:
                raise KeyboardInterrupt
            yield
        finally:
            self._asking = False

    def begin_trace(self, path: Path) -> None:
        """Raises LogFile."""
        from ..trace import opened

        try:
            self.output.trace = opened(path)
        except OSError as error:
            raise LogFile(f"{path}: {error.strerror}") from error

    def event(self, event: ev.Event) -> None:
        """Shows an event of an engine, and keeps what it says of the parts' state."""
        with self._one_by_one:
            self.begun = True
            self.standing.see(event)
            if self.watcher is not None:
                self.watcher.see(event)
            self.output.event(event)

    @contextmanager
    def working_on(self, name: str) -> Iterator[None]:
        """Names the component in errors, and the command by which one goes on that was stopped."""
        ended: ProxyflashError | None = None
        try:
            with naming(name):
                yield
        except ProxyflashError as error:
            ended = error
            again = f"It goes on with what is missing: {self.goes_on}"
            if isinstance(error, Cancelled):
                if error.touched:
                    raise error.advised(again) from error
            elif error.exit_status is ExitStatus.RESUMABLE and error.left is not None:
                raise error.advised((*error.advice, " ", again) if error.remedy else again) from error
            raise
        finally:
            self.output.ended(name, ended)
        self.standing.finish()

    @contextmanager
    def programmer(self, name: str) -> Iterator[Programmer]:
        """The engine for one component. Whatever ends it, a part that was only looked at runs its application again."""
        component = self.component(name)
        with self.working_on(component.name), component.programmer(self.context) as programmer:
            try:
                yield programmer
            finally:
                if self.watcher is not None:
                    self.watcher.identities[component.name] = programmer.identity

    @property
    def context(self) -> RunContext:
        """The engine's events go to the output, and a Ctrl-C stops it at its next safe point."""
        return RunContext(self.event, lambda: self.stopping)

    def stopped(self) -> Cancelled:
        """What is said when a second Ctrl-C ended everything."""
        touched = self.standing.touched or self.standing.is_unfinished
        remedy = self.standing.remedy or f"It goes on with what is missing: {self.goes_on}" if touched else ""
        return Cancelled(self.standing.sentence(), touched=touched, remedy=remedy)

    def close(self, *, interrupted: bool = False) -> None:
        """`interrupted`: a Ctrl-C ended it at any point, perhaps with a lock held: what waits for that is not waited for."""
        self._ended.set()
        if self._unraisable is not None:
            sys.unraisablehook, self._unraisable = self._unraisable, None
        opened = [*self._more, *([self._bench] if self._bench is not None else [])]
        self._more, self._bench = [], None
        for bench in opened:
            if interrupted:
                closing = clock.Thread(target=bench.close, name="closing")
                closing.start()
                closing.join(CLOSE_SECONDS)
            else:
                bench.close()
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_IGN if self.ends_process else handler)
        self._handlers.clear()


def _set(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """A callback that keeps a global option in the session, if it was given."""

    def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        session = context.find_object(Session)
        if session is None or value in (None, False, 0):
            return
        match name:
            case "bench":
                session.bench_path = value
            case "state":
                session.state = value
            case "profile":
                session.profile = value
            case "json":
                session.output.mode = Mode.JSON
            case "jsonl":
                session.output.mode = Mode.JSONL
            case "quiet":
                session.output.quiet = True
            case "verbose":
                session.output.verbosity = value
            case "trace":
                session.trace = value
            case "log":
                try:
                    session.output.log = open_log(value)
                except OSError as error:
                    raise LogFile(f"{value}: {error.strerror}", remedy="Name another file.") from error

    return keep


_OPTIONS = (
    click.option("--bench", metavar="FILE", expose_value=False, callback=_set("bench"), help="The bench file."),
    click.option("--state", metavar="FOLDER", type=click.Path(path_type=Path), expose_value=False,
                 callback=_set("state"), help="Where locks and emulated flash are kept."),
    click.option("--json", is_flag=True, expose_value=False, callback=_set("json"), help="One JSON document."),
    click.option("--jsonl", is_flag=True, expose_value=False, callback=_set("jsonl"), help="Events as JSON lines."),
    click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=_set("quiet"), help="No progress."),
    click.option("-v", "--verbose", count=True, expose_value=False, callback=_set("verbose"), help="More."),
    click.option("--log-file", metavar="FILE", type=click.Path(path_type=Path), expose_value=False,
                 callback=_set("log"), help="Everything, with times, into a file."),
)  # fmt: skip


def global_options(function: F) -> F:
    """Adds the options that every command takes."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


class Group(click.Group):
    """Commands of one subject. A wrong word gets a near one, and no command's help is cut."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args and args[0] not in names and (near := get_close_matches(args[0], names, n=1)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, item.get_short_help_str(limit=1000)) for name, item in found if item])


def group(name: str) -> Callable[[Callable[[], None]], Group]:
    """A group of commands, whose help is the function's docstring."""
    return click.group(name, cls=Group, context_settings={"help_option_names": ["-h", "--help"]})


def command(name: str, **settings: Any) -> Callable[[Callable[..., int | None]], click.Command]:
    """A command whose function gets the Session first."""

    def wrap(function: Callable[..., int | None]) -> click.Command:
        def call(**values: Any) -> int | None:
            session = click.get_current_context().find_object(Session)
            if session is not None and session.trace is not None:
                session.begin_trace(session.trace)
            return function(session, **values)

        # update_wrapper brings along the options that decorators left on `function`.
        listed = global_options(update_wrapper(call, function))
        make: Any = click.command(name, context_settings={"help_option_names": ["-h", "--help"]}, **settings)
        made: click.Command = make(listed)
        return made

    return wrap


def _named_in_bench(context: click.Context, names: Callable[[dict[str, Any]], Iterator[str]], start: str) -> list[str]:
    """Names of the bench file that begin so; it needs to be TOML for that, and no more.

    Only what may be a name is offered: a shell puts it on the command line as it is.
    """
    import re
    import tomllib

    from ...enumerators.bench import find_file
    from ...enumerators.benchfile.schema import MOST_BYTES
    from ...enumerators.benchfile.schema import NAME as FORM
    from ...transports import named_files

    session = context.find_object(Session)
    try:
        file = find_file(session.bench_path if session else None)
        found = names(tomllib.loads(named_files.read(file, MOST_BYTES).decode()))
        return [name for name in found if name.startswith(start) and re.fullmatch(FORM, name)]
    except (OSError, ValueError, AttributeError, TypeError, ProxyflashError):
        return []


def component_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Completion: the names of the bench file's components."""
    return _named_in_bench(
        context, lambda file: (str(item["name"]) for item in file.get("component", []) if "name" in item), incomplete
    )


def bus_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Completion: the names of the bench file's buses."""
    return _named_in_bench(context, lambda file: iter(file.get("bus", {})), incomplete)


def target_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completion: targets."""
    from ..completion import targets

    return targets(incomplete)


def target_words(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completion: targets, and buses alone."""
    from ..completion import targets

    return targets(incomplete, whole_bus=True)


def _name_words(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completion: the names of the bench file's components, and targets."""
    from click.shell_completion import CompletionItem

    names = component_names(context, parameter, incomplete)
    return [*map(CompletionItem, names), *target_names(context, parameter, incomplete)]


PROFILE = click.option("--profile", metavar="FILE", type=click.Path(path_type=Path), expose_value=False,
                       callback=_set("profile"), help="A TOML file with the profile of the TARGET's component.")  # fmt: skip


TRACE = click.option("--trace", metavar="FILE", type=click.Path(path_type=Path), expose_value=False, callback=_set("trace"),
                     help="What happens when, for the viewers of Perfetto and speedscope.")  # fmt: skip


def NAME(function: F) -> F:
    """A component's name, or a target."""
    argument = click.argument("name", metavar="NAME|TARGET", shell_complete=_name_words)
    return argument(PROFILE(function))


class _Number(click.ParamType[int]):
    name = "number"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        try:
            number = value if isinstance(value, int) else int(str(value).replace("_", ""), 0)
        except ValueError:
            number = -1
        if number < 0:
            self.fail(f"{value!r} is not a number; write 4096, 0x1000", parameter, context)
        return number


NUMBER = _Number()
"""An address or a size: decimal, or hex with 0x."""
