"""`Buses`: the buses of one bench file. Each is opened once, when it is first needed, and shared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..flashers.errors import Cancelled
from ..flashers.events import EventSink
from ..transports import clock, plugins
from ..transports.errors import BadSettings
from ..transports.outside import Outside
from .benchfile.schema import BenchFile
from .commands import HostCommands
from .emulation import emulate
from .errors import ComponentUnknown, OneReader
from .probers import Prober
from .state import BenchLock

if TYPE_CHECKING:
    from ..emulators.bench import EmulatedBus
    from ..emulators.device import EmulatedDevice
    from ..emulators.replay.session import Replay
    from ..transports.recording.recorder import Recorder
    from ..transports.transport import Listening, Transport


class Buses:
    """Opens and locks the buses, records them, or has a recording in their place.

    `state`: the folder for what is remembered; `folder`: the part of it that is this bench's.
    """

    def __init__(
        self, file: BenchFile, state: Path, recorder: Recorder | None = None, replay: Replay | None = None
    ) -> None:
        self.file = file
        self.replay = replay
        self._recorder = recorder
        self.outside = Outside(lambda: self._recorder, replay)
        self.commands = HostCommands(file.folder, self.outside)
        self.state = state
        self.watcher: EventSink | None = None
        """Gets the events of every component, whoever works on it."""
        self.folder = file.state_folder(state)
        self._lock: BenchLock | None = None
        self._opening = clock.RLock()
        self._is_closed = False
        self._transports: dict[str, Any] = {}
        self._emulated: dict[str, EmulatedBus] = {}

    @property
    def recorder(self) -> Recorder:
        """Keeps what passes on the buses, from the first time that it is asked for.

        Who asks later waits for no bus that another thread opens or closes: this is asked for the time of each event.
        """
        from ..transports.recording.recorder import Recorder

        if self._recorder is not None:
            return self._recorder
        with self._opening:
            if self._recorder is None:
                self._recorder = Recorder()
                for transport in self._transports.values():
                    transport.recorder = self._recorder
            return self._recorder

    def transport(self, bus: str) -> Any:
        """The open CanBus, SerialPort or UsbBus of this name. Raises TransportError, BenchLocked."""
        with self._opening:
            if bus not in self._transports:
                spec = self.file.spec.bus[bus]
                self.lock()
                if self.replay is not None:
                    settings = self.replay.host_settings(bus, spec.kind, self.file.settings(bus))
                else:
                    settings = self._emulated_bus(bus).host_settings if spec.emulated else self.file.settings(bus)
                try:
                    self._transports[bus] = plugins.load(plugins.TRANSPORTS, spec.kind).open(bus, settings)
                except BadSettings as error:
                    raise error.placed(self.file.at_settings(bus, error)) from error
                if hasattr(self._transports[bus], "outside"):
                    self._transports[bus].outside = self.outside
                if self._recorder is not None:
                    self._transports[bus].recorder = self._recorder
                if self._is_closed:
                    # Meanwhile, by another thread.
                    self._transports.pop(bus).close()
                    raise _closed()
            return self._transports[bus]

    def listening(self, bus: str) -> Listening:
        """How a bus would be opened to hear what passes on it. Opens nothing. Raises OneReader."""
        spec = self.file.spec.bus[bus]
        if spec.emulated:
            raise OneReader(f"the parts of the emulated bus {bus!r} are in the process that uses them")
        listening = self._class(bus).listening(self.file.settings(bus))
        if listening is None:
            raise OneReader(f"bus {bus!r} is of kind {spec.kind}, which can't be heard beside the program that uses it")
        return listening

    def _class(self, bus: str) -> type[Transport]:
        transport: type[Transport] = plugins.load(plugins.TRANSPORTS, self.file.spec.bus[bus].kind)
        return transport

    def listen(self, bus: str, how: Listening) -> Any:
        """Opens a bus to hear what passes on it, and to send nothing. `how`: as `listening` says.

        Raises TransportError, BenchLocked. Takes the lock of the bench only where the bus has one reader.
        """
        if not how.shared:
            self.lock()
        recorder = self.recorder
        with self._opening:
            opened = self._transports[bus] = self._class(bus).open(bus, how.settings)
            opened.recorder = recorder
        return opened

    def reopen(self, bus: str) -> Any:
        """Opens a bus again, once its adapter is back. What was made on it before can't be used any more.

        Raises as `transport`.
        """
        with self._opening:
            if bus in self._transports:
                self._transports.pop(bus).close()
            return self.transport(bus)

    def emulated_device(self, component: str) -> EmulatedDevice:
        """The emulated part behind a component of an emulated bus, for tests: its supply, its flash."""
        return self._emulated_bus(self.file.entries[component].spec.bus).devices[component]

    def emulated_wire(self, bus: str) -> Any:
        """The CanWire, UartWire or UsbWire of an emulated bus, with its parts on it; the host's end stays free."""
        return self._emulated_bus(bus).wire

    def prober(self, bus: str) -> Prober:
        spec = self.file.spec.bus[bus]
        # Opened first: a replay refuses a kind of bus that it doesn't know before anything of that name is imported.
        transport = self.transport(bus)
        prober: Prober = plugins.load(plugins.ENUMERATORS, spec.kind)(bus, spec, transport)
        return prober

    def lock(self) -> None:
        """Keeps other processes from this bench until it is closed. Raises BenchLocked, StateFolder, Cancelled."""
        with self._opening:
            if self._is_closed:
                raise _closed()
            if self._lock is None:
                self._lock = BenchLock(self.folder)

    def hang_up(self) -> None:
        """Closes every bus; each is opened again when it is next needed."""
        with self._opening:
            while self._transports:
                self._transports.popitem()[1].close()

    def close(self) -> None:
        """For good: a thread that is left can't open a bus again, and so does no more to a part."""
        self._is_closed = True
        for transport in list(self._transports.values()):
            transport.close()
        for emulated in list(self._emulated.values()):
            emulated.close()
        self._transports.clear()
        self._emulated.clear()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _emulated_bus(self, bus: str) -> EmulatedBus:
        if self.replay is not None:
            raise ComponentUnknown(
                f"bus {bus!r} is replayed, so none of its parts is emulated", remedy="Open the bench without a replay."
            )
        with self._opening:
            if bus not in self._emulated:
                self.lock()
                self._emulated[bus] = emulate(self.file, bus, self.folder)
            return self._emulated[bus]


def _closed() -> Cancelled:
    return Cancelled("the bench was closed meanwhile", touched=False)
