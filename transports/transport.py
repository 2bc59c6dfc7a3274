"""`Transport`: what a bench and its commands need of any kind of bus. What is said on it, each kind has of its own.

Registered under the entry-point group `proxyflash.transports` by the kind of bus.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from .outside import Outside

if TYPE_CHECKING:
    from .recording.recorder import Recorder


@dataclass(frozen=True, slots=True)
class HostCheck:
    """One thing that keeps this host from using its buses, or doesn't. `fix`: what to do about it.

    `passed` None: neither good nor bad without a bench that needs it.
    """

    title: str
    passed: bool | None
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Where:
    """A place that a target names, in the words of the bench file.

    `settings`: keys of the bus. `address`: keys of the component's address, on a bus whose name alone is not enough.
    `label`: the place in short, of which a name is made; one place has one. `left_out`: keys of the bus that belong to the
    place as well, and that the target leaves to its settings or to the protocol. `known_as`: what takes the place of `settings`
    where several names mean this place; None: none do.
    """

    settings: Mapping[str, Any]
    label: str
    address: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    known_as: Mapping[str, Any] | None = None


class Listening(NamedTuple):
    """How a bus is opened to hear what passes, and to send nothing.

    `shared`: whether a program that uses the bus works on undisturbed; if not, the bus has one reader. `silent`: whether the
    listener acknowledges nothing; `effect`: what it does on the wire, in words, "" where there is nothing to say.
    """

    settings: Mapping[str, Any]
    shared: bool
    silent: bool = True
    effect: str = ""


class Transport(ABC):
    """One bus, opened once and shared by everything that talks on it."""

    kind: ClassVar[str]
    """The `kind` of the bench file, and the entry point."""
    shared_wire: ClassVar[bool] = True
    """Whether the parts share one wire and one adapter.

    An update then works on one component of the bus at a time, and an adapter that is gone takes all parts with it.
    """
    steers_parts: ClassVar[bool] = False
    """Whether lines beside the data, such as modem lines, may hold a part in its bootloader until the bus is opened again."""

    settings_schema: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """The library's keys that are worth a description in an editor, each with its JSON Schema. Others may be given too."""

    where_form: ClassVar[str] = ""
    """How a target says where on such buses its part is, with words in capitals for what isn't fixed; "": by no target."""

    name: str
    recorder: Recorder | None
    """Keeps what passes; None: nobody does."""
    outside: Outside | None = None
    """Asks what a flasher needs from outside of the bus, as a key."""

    @classmethod
    @abstractmethod
    def open(cls, name: str, settings: Mapping[str, Any]) -> Self:
        """`settings`: the keys of the bus in the bench file that are not proxyflash's own.

        Raises TransportError; BadSettings for a key that does not hold.
        """

    @classmethod  # noqa: B027 - some kinds leave it to `open`
    def check(cls, name: str, settings: Mapping[str, Any]) -> None:
        """Raises what `open` has against the settings themselves; opens nothing."""

    @classmethod
    def where(cls, text: str) -> Where | None:
        """The place that a target names by this text; None: it names none on a bus of this kind. Opens nothing."""
        return None

    @classmethod
    def nearly(cls, text: str) -> str:
        """The place that is probably meant by a text that names none: an interface's bare name, say; "": none is seen."""
        return ""

    @classmethod
    def misplaced(cls, text: str) -> tuple[str, str] | None:
        """The place, and a setting of the bus, of a WHERE that says both in a way that targets don't; None: it does not."""
        return None

    @classmethod
    def place(cls, address: Mapping[str, Any]) -> str:
        """The reverse of `where`, on a bus whose name alone is not enough: of a component's address; "": the bus's own."""
        return ""

    @classmethod
    def wheres(cls) -> Iterator[str]:
        """The places of this kind that this host has, as `where` reads them, to choose from. Opens none of them."""
        yield from ()

    @classmethod
    def keys(cls, settings: Mapping[str, Any]) -> Iterable[str]:
        """The library's own keys for a bus with these settings, for targets; the bench file may hold more."""
        return ()

    @classmethod
    def surprises(cls, settings: Mapping[str, Any]) -> Iterator[str]:
        """What these settings come to that is likely not meant, and the key that says it otherwise. Opens nothing."""
        yield from ()

    @classmethod
    def default_rate(cls, settings: Mapping[str, Any]) -> tuple[str, str]:
        """What is said where the settings have no bit rate and the library's own is taken, and KEY=VALUE that sets one."""
        return "", ""

    @classmethod
    def listening(cls, settings: Mapping[str, Any]) -> Listening | None:
        """How a bus with these settings is heard without disturbing its parts; None: that can't be done. Opens nothing."""
        return None

    @property
    def lost(self) -> int:
        """Messages that came in and were lost since the bus was opened, as far as that is known."""
        return 0

    def drain(self) -> object:  # noqa: B027 - most keep nothing that nobody waits for
        """Forgets what came in and nobody has read. Raises TransportError."""

    @classmethod
    def no_load(cls, name: str, settings: Mapping[str, Any]) -> str:
        """Why `load` can't tell how busy a bus with these settings is; "": it can."""
        return f"{name} is a bus of kind {cls.kind}, whose load can't be measured"

    def load(self, seconds: float) -> float | None:
        """The share of time, 0.0 to 1.0, for which the bus is busy, measured over `seconds`; None: not known.

        Raises what ended the bus.
        """
        return None

    @classmethod
    def host_checks(cls) -> Iterator[HostCheck]:
        """What this host has for buses of this kind: drivers, adapters, permissions. Opens none of them."""
        yield from ()

    @abstractmethod
    def close(self) -> None:
        """A second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
