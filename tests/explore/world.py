"""The world of one seed: wires and parts that outlive processes, a host with a disk, and processes that can be killed.

Everything runs on one simulated clock. A process is one call of the command line on simulated threads of its own. Killing
it ends these threads where they are and lets nothing of what they do on their way out count; its parts, wires and the
host's disk stay.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import random
import re
import secrets
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from greenlet import GreenletExit
from proxyflash.emulators.avr.device import AvrDevice
from proxyflash.emulators.bench import EmulatedBus
from proxyflash.emulators.can.python_can import EmulatedCanBus
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.faults import FaultPlan
from proxyflash.emulators.serial.board import Stage
from proxyflash.emulators.serial.protocol_emulated import Serial
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.emulators.usb.backend import EmulatedUsbBackend
from proxyflash.emulators.usb.wire import Port, UsbWire
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.benchfile.schema import load
from proxyflash.enumerators.emulation import emulate
from proxyflash.enumerators.state import bench_folder
from proxyflash.tools.commands import run
from proxyflash.tools.commands.session import Session
from proxyflash.tools.output import Output
from proxyflash.transports import clock
from proxyflash.transports.errors import ProxyflashError
from proxyflash.transports.recording.recorder import Recorder
from proxyflash.transports.simulated_clock import SimulatedClock, SimulatedThread
from proxyflash.updates.engine import restarting

from .disk import Disk, Image
from .draw import NEW, OLD, OTHER, Bus, Case, Part, Trouble

LONGEST = 1e6
"""Simulated seconds that a command may take; a command that takes longer hangs."""
ADDRESS = re.compile(r" at 0x[0-9a-f]+>")
"""Of an object, as Python prints it."""
NOT_OF_A_PROCESS = ("proxyflash.emulators.", "tests.explore.")
"""Modules whose threads are the world's, whoever started them."""


@dataclass(slots=True)
class Ended:
    """How a command ended. `status`: None: it was killed. `errors`: what it showed, the last one last."""

    arguments: tuple[str, ...]
    status: int | None
    output: str
    errors: list[ProxyflashError]
    events: list[Any]
    raised: BaseException | None = None
    """What left the command line, or a thread of it; nothing may."""
    left: list[str] = field(default_factory=list)
    """Threads, locks and descriptors that are left."""
    worked: list[str] = field(default_factory=list)
    """Parts whose flash was worked on meanwhile."""


@dataclass(eq=False)
class Process:
    """One call of the command line."""

    before: set[int]
    """Numbers of the threads that are not this process's."""
    command: str
    operations: dict[str, int]
    """By part, how many flash operations there had been when it began."""
    main: SimulatedThread | None = None
    sessions: list[Session] = field(default_factory=list)
    opened: list[Any] = field(default_factory=list)
    """The adapters that it has opened."""
    errors: list[ProxyflashError] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    points: dict[str, int] = field(default_factory=dict)
    status: int | None = None
    raised: BaseException | None = None
    halted: bool = False
    """Whether Ctrl-C was pressed twice: it waits for nothing any more."""
    image: Image | None = None
    """What the disk holds after it was killed."""
    shielded: dict[SimulatedThread, BaseException | None] = field(default_factory=dict)
    """Threads that are inside of a part's firmware, which runs on its own: what is raised in them once they left it."""

    @property
    def is_dead(self) -> bool:
        return self.image is not None

    def has(self, thread: SimulatedThread) -> bool:
        if thread.number in self.before or thread.name == "main":
            return False
        module = getattr(thread._target, "__module__", "") or ""
        return thread is self.main or not module.startswith(NOT_OF_A_PROCESS)


class WorldBench(Bench):
    """A bench of a process, on wires and parts that are not the process's."""

    world: World

    def _emulated_bus(self, bus: str) -> EmulatedBus:
        with self._opening:
            self.lock()
        found = self.world.buses[bus]
        if isinstance(found.wire, UsbWire):
            # What a process has of the USB's back end goes with it.
            found.host_settings = {**found.host_settings, "backend": EmulatedUsbBackend(found.wire)}
        return found


class World:
    """`folder`: its own, empty. `log`: gets what happens, line by line."""

    def __init__(self, case: Case, folder: Path, *, recorded: bool = False) -> None:
        self.case = case
        self.folder = folder
        self.log: list[str] = []
        self.recorder = Recorder() if recorded else None
        self.images: dict[tuple[str, str], bytes] = {}
        """By part and version."""
        self.buses: dict[str, EmulatedBus] = {}
        self.boot = 1
        self.process: Process | None = None
        self.finished: dict[str, set[str]] = {}
        """By the journal of an update, the steps that were reported as done, as "label component"."""
        self.armed: list[Trouble] = []
        self.hands: list[Any] = []
        """Threads that mend something after a while."""
        self.claims: list[str] = []
        """What was reported of parts and is not so."""
        self.faults: list[str] = []
        """What threads raised that nobody caught."""
        self.chance = random.Random(case.seed)
        self.clock = cast(SimulatedClock, clock.current())
        self._named = bench_folder(self.state, self.bench_file).name

    def tell(self, text: str) -> None:
        self.log.append(f"{self.clock.elapsed:12.6f} {self.plain(text)}")

    def plain(self, text: str) -> str:
        """A text without the names of this run's folders, and without the addresses of its objects."""
        return ADDRESS.sub(">", text.replace(self._named, "bench").replace(str(self.folder), ""))

    # Its making.

    @contextmanager
    def standing(self) -> Iterator[World]:
        with ExitStack() as stack:
            for place, name, value in self._seams():
                stack.enter_context(replaced(place, name, value))
            self._write_files()
            self.state.mkdir()
            self.disk = stack.enter_context(Disk(self.state, lambda what: self.point("disk", what)))
            file = load(self.bench_file)
            for name in file.spec.bus:
                self.buses[name] = emulate(file, name, None)
                stack.callback(self.buses[name].close)
            for bus in self.buses.values():
                if isinstance(bus.wire, UsbWire):
                    self._shield(bus.wire)
                if isinstance(bus.wire, UartWire):
                    self._count_serial(bus.wire)
            self.settle()
            yield self

    def _seams(self) -> list[tuple[Any, str, Any]]:
        random_bytes = random.Random(f"secrets {self.case.seed}").randbytes
        made = random.Random(f"names {self.case.seed}")
        world = self

        def event(session: Session, event: Any) -> None:
            world.event(event)
            see(session, event)

        def send(bus: EmulatedCanBus, message: Any, timeout: float | None = None) -> None:
            world.point("wire", "a CAN frame")
            can_send(bus, message, timeout)

        def opened_can(bus: EmulatedCanBus, *arguments: Any, **settings: Any) -> None:
            if world.process is not None:
                world.process.opened.append(bus)
            open_can(bus, *arguments, **settings)

        def opened_serial(port: Serial) -> None:
            if world.process is not None:
                world.process.opened.append(port)
            open_serial(port)

        def error(output: Output, error: ProxyflashError) -> None:
            world.show(error)
            shown(output, error)

        def fault(output: Output, error: ProxyflashError, indent: str = "") -> None:
            world.show(error)
            faulted(output, error, indent)

        def begun(session: Session) -> None:
            if world.process:
                world.process.sessions.append(session)

        see, can_send, shown, faulted = Session.event, EmulatedCanBus.send, Output.error, Output.fault
        open_can, open_serial = EmulatedCanBus.__init__, Serial.open
        return [
            (Session, "event", event),
            (Session, "catch_interrupts", begun),
            (EmulatedCanBus, "__init__", opened_can),
            (EmulatedCanBus, "send", send),
            (Serial, "open", opened_serial),
            (Output, "error", error),
            (Output, "fault", fault),
            (restarting, "boot_id", lambda: f"boot {world.boot}"),
            (secrets, "token_bytes", lambda count=32: random_bytes(count)),
            (secrets, "token_hex", lambda count=16: random_bytes(count).hex()),
            (uuid, "uuid4", lambda: uuid.UUID(int=made.getrandbits(128), version=4)),
            (threading, "excepthook", self._uncaught),
        ]

    def _uncaught(self, hook: Any) -> None:
        self.faults.append("".join(traceback.format_exception(hook.exc_type, hook.exc_value, hook.exc_traceback)))

    def _write_files(self) -> None:
        case = self.case
        for part in case.parts:
            for version in (OLD, NEW, OTHER):
                shared = part.group if version != OLD else part.name
                data = part.family.firmware(version, part.sizes[version], _number(shared))
                self.images[part.name, version] = data
                (self.folder / f"{shared}-{version}.bin").write_bytes(data)
        self.bench_file.write_text(self._bench_text())
        for version in (NEW, OTHER):
            self._write_update(version)

    def _bench_text(self) -> str:
        case = self.case
        text = "".join(_bus_text(bus, case.parts) for bus in case.buses)
        for part in case.parts:
            body = part.family.component.format(
                number=part.number,
                firmware=f"{part.name}-{OLD}.bin",
                request=0x700 + part.number,
                response=0x780 + part.number,
                product=part.number,
                version_request=0x120 + 2 * part.number,
                version_response=0x121 + 2 * part.number,
            )
            text += f'[[component]]\nname = "{part.name}"\ngroup = "{part.group}"\nbus = "{part.bus}"\n{body.strip()}\n'
        if case.policy:
            text += "[updates]\n" + "".join(f"{key} = {value}\n" for key, value in case.policy.items())
        return text

    def _write_update(self, version: str) -> None:
        groups = list(dict.fromkeys(part.group for part in self.case.parts))
        for group in groups:
            family = next(part.family for part in self.case.parts if part.group == group)
            properties: dict[str, object] = {"installedCriteria": version}
            if family.address:
                properties["address"] = family.start
            if asked := self.case.options.get(group):
                properties["proxyflash"] = asked
            file = f"{group}-{version}.bin"
            step = {"handler": "proxyflash/flash:1", "files": [file], "handlerProperties": properties}
            self._write_manifest(group, version, [step], [{"group": group}], [file])
        steps = [
            {"type": "reference", "updateId": {"provider": "Contoso", "name": group, "version": version}}
            for group in groups
        ]
        self._write_manifest("bench", version, steps, [], [])

    def _write_manifest(
        self, name: str, version: str, steps: list[Any], selectors: list[dict[str, str]], names: list[str]
    ) -> None:
        files = []
        for file in names:
            data = (self.folder / file).read_bytes()
            digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
            files.append({"filename": file, "sizeInBytes": len(data), "hashes": {"sha256": digest}})
        document = {
            "updateId": {"provider": "Contoso", "name": name, "version": version},
            "isDeployable": not selectors,
            "compatibility": selectors or [{"model": "host"}],
            "instructions": {"steps": steps},
            "files": files,
            "createdDateTime": "2026-01-01T00:00:00Z",
            "manifestVersion": "4.0",
        }
        (self.folder / f"{name}-{version}.importmanifest.json").write_text(json.dumps(document))

    @property
    def bench_file(self) -> Path:
        return self.folder / "bench.toml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    # Its parts.

    def device(self, part: Part) -> Any:
        return self.buses[part.bus].devices[part.name]

    def held(self, part: Part) -> str | None:
        """The version whose image a part holds whole; None: none of them."""
        flash = self.device(part).flash
        for version in (NEW, OLD, OTHER):
            image = self.images[part.name, version]
            if flash.read(part.family.start, len(image)) == image:
                return version
        return None

    def _operations(self) -> dict[str, int]:
        return {part.name: self.device(part).supply.operations for part in self.case.parts}

    def settle(self) -> None:
        for bus in self.buses.values():
            for device in bus.devices.values():
                device.settle()
        if any(isinstance(bus.wire, UartWire) and bus.wire.is_usb for bus in self.buses.values()):
            clock.sleep(1.0)  # A part that is its own adapter leaves and comes back when it starts its application.

    # What goes wrong, and its mending.

    def arm(self, troubles: tuple[Trouble, ...]) -> None:
        self.armed = list(troubles)
        for trouble in troubles:
            match trouble.kind:
                case "supply":
                    self._arm_supply(trouble)
                case "wire":
                    self._arm_wire(trouble)
                case "disk":
                    self.disk.left = int(trouble.amount)

    def _arm_supply(self, trouble: Trouble) -> None:
        supply = self.device(self.case.part(trouble.target)).supply
        supply.cut_at(trouble.at)

        def changed(on: bool) -> None:
            if on or trouble not in self.armed:
                return
            self.tell(f"the supply of {trouble.target} is cut")
            if trouble.mends:
                self.hands.append(clock.Timer(trouble.mends, supply.on))
                self.hands[-1].start()

        supply.listen(changed)

    def _arm_wire(self, trouble: Trouble) -> None:
        faults = self.buses[trouble.target].wire.faults
        unit = faults.units + trouble.at
        match trouble.what:
            case "disconnect":
                faults.plan = FaultPlan(disconnect_after=unit)
            case "bus-off":
                faults.plan = FaultPlan(bus_off_after=unit)
            case what:
                plan = FaultPlan(first=unit, last=unit + int(trouble.amount))
                faults.plan = replace(plan, **{what: trouble.chance})  # type: ignore[arg-type]
        faults._random = random.Random(trouble.seed)
        if trouble.what == "disconnect" and trouble.mends:
            self.hands.append(clock.Thread(target=self._plug_in_again, args=(trouble,), name="a hand"))
            self.hands[-1].start()

    def _plug_in_again(self, trouble: Trouble) -> None:
        faults = self.buses[trouble.target].wire.faults
        before = len(faults.done)
        while trouble in self.armed:
            clock.sleep(0.05)
            if len(faults.done) > before:
                clock.sleep(trouble.mends)
                if trouble in self.armed:
                    self.tell(f"{trouble.target} is plugged in again")
                    self._mend_bus(self.buses[trouble.target])
                return

    def mend(self) -> None:
        """Everything that went wrong is over."""
        self.armed = []
        self.disk.left = None
        for hand in self.hands:
            hand.join(LONGEST)
        self.hands.clear()
        for bus in self.buses.values():
            self._mend_bus(bus)
            for device in bus.devices.values():
                device.supply.cut_at(None)
                device.supply.on()
        self.settle()
        for bus in self.buses.values():
            if isinstance(bus.wire, UartWire) and bus.wire.is_usb and bus.wire.gone_at is not None:
                # The part is its own adapter: it is plugged in again as a whole.
                for device in bus.devices.values():
                    device.supply.off()
                    device.supply.on()
        self.settle()
        for bus in self.buses.values():
            for device in bus.devices.values():
                if isinstance(device, AvrDevice) and device.board.stage is Stage.HUNG:
                    # Half an application runs, which no touch reaches: it is reset by hand, as the error advises.
                    device.board.reset()

    def disarm(self) -> None:
        """A trouble that has not happened yet will not happen; a trouble that has, stays."""
        self.armed = [trouble for trouble in self.armed if trouble.kind in ("wire", "disk")]
        for bus in self.buses.values():
            for device in bus.devices.values():
                device.supply.cut_at(None)

    def _mend_bus(self, bus: EmulatedBus) -> None:
        bus.wire.faults.plan = FaultPlan()
        if isinstance(bus.wire, UartWire):
            if bus.wire.gone_at is not None and not bus.wire.is_usb:
                bus.wire.plug()
            # What was delayed has arrived.
            late = max(bus.wire.host.free_at, bus.wire.device.free_at) - clock.monotonic()
            clock.sleep(max(late, 0.0))
        if isinstance(bus.wire, UsbWire):
            for device in bus.devices.values():
                port: Port = device._port  # type: ignore[attr-defined]
                if device.supply.is_on and port.function is None:
                    # It is plugged in again, and has its supply from there.
                    device.supply.off()
                    device.supply.on()

    # Points at which something may happen.

    def point(self, kind: str, what: str) -> None:
        process = self.process
        if process is None or process.is_dead or not process.has(self.clock.running):
            return
        for counted in (kind, "any"):
            process.points[counted] = process.points.get(counted, 0) + 1
        for trouble in self.armed:
            strikes = trouble.kind in ("kill", "power", "stop", "halt", "clock") and trouble.point in (kind, "any")
            if strikes and process.points[trouble.point] == trouble.at:
                self.tell(f"{trouble.kind} at {kind} {trouble.at}: {what}")
                self._strike(process, trouble)

    def event(self, event: Any) -> None:
        if self.process is not None and self.process.has(self.clock.running) and not self.process.is_dead:
            self.process.events.append(event)
            self.point("event", type(event).__name__)

    def show(self, error: ProxyflashError) -> None:
        if self.process is not None and (not self.process.errors or self.process.errors[-1] is not error):
            self.process.errors.append(error)

    def _strike(self, process: Process, trouble: Trouble) -> None:
        match trouble.kind:
            case "kill":
                self._kill(process, self.disk.now())
            case "power":
                chance = random.Random(trouble.seed)
                image = self.disk.after_a_cut(chance)
                journals = [path for path in self.disk.lost(image) if path.endswith("/journal.jsonl")]
                if any(self._announced(path) for path in journals):
                    self.claims.append(f"a journal that announced what was done is lost after a cut: {journals}")
                # What its threads still do while the parts lose their supply is after the cut.
                process.image = image
                self.boot += 1
                if chance.random() < 0.5:
                    self.tell("the parts lose their supply, too")
                    for bus in self.buses.values():
                        for device in bus.devices.values():
                            device.supply.off()
                self._kill(process, image)
            case "stop":
                self._stop(process)
            case "halt":
                process.halted = True
                self._stop(process)
                self._raise_in_main(process, KeyboardInterrupt())
            case "clock":
                self.clock.set_time(self.clock.time() - trouble.amount)

    def _check_announced(self, process: Process, image: Image) -> None:
        """Nothing was done to a part by an update before its journal has that it begins."""
        if process.command not in ("apply", "resume", "rollback"):
            return
        worked = [name for name, count in self._operations().items() if count != process.operations[name]]
        begun = set()
        for path, data in image.files.items():
            if path.endswith("/journal.jsonl"):
                for line in data.splitlines():
                    begins = b'"action":"install"' in line or b'"action":"restore"' in line
                    if begins and b'"kind":"start"' in line and (found := re.search(rb'"task":(\d+)', line)):
                        begun.add((path, found[1]))
        if len(worked) > len(begun):
            self.claims.append(
                f"the flash of {', '.join(worked)} was worked on, and the journal has {len(begun)} begun"
            )

    def _announced(self, path: str) -> bool:
        """Whether a journal has a record of something that was begun."""
        return b'"kind":"start"' in self.disk.now().files[path]

    def _stop(self, process: Process) -> None:
        if not process.sessions:
            self._raise_in_main(process, KeyboardInterrupt())
        for session in process.sessions:
            session.stopping = True

    def _raise_in_main(self, process: Process, error: BaseException) -> None:
        assert process.main is not None
        if process.main in process.shielded:
            process.shielded[process.main] = error
        elif process.main.is_alive():
            self.clock.raise_in(process.main, error)

    def _kill(self, process: Process, image: Image) -> None:
        process.image = image
        self._check_announced(process, image)
        mine = [thread for thread in self.clock.threads() if process.has(thread)]
        for thread in process.shielded:
            process.shielded[thread] = GreenletExit()
        self.clock.kill(thread for thread in mine if thread not in process.shielded)

    # Seams of the wires.

    def _shield(self, wire: UsbWire) -> None:
        """A USB part's firmware runs on the thread of who asks: what ends that thread waits until it is through."""
        control = wire.control

        def shielded(*arguments: Any) -> bytes:
            process = self.process
            thread = self.clock.running
            if process is None or not process.has(thread):
                return control(*arguments)
            if process.is_dead:
                raise GreenletExit
            self.point("wire", "a control transfer")
            process.shielded[thread] = None
            try:
                return control(*arguments)
            finally:
                error = process.shielded.pop(thread)
                if isinstance(error, GreenletExit):
                    self.clock.kill([thread])
                elif error is not None:
                    raise error

        wire.control = shielded  # type: ignore[method-assign,assignment]

    def _count_serial(self, wire: UartWire) -> None:
        send = wire.host.send

        def counted(data: bytes, at: float | None = None) -> None:
            if self.process is not None and self.process.has(self.clock.running):
                if self.process.is_dead:
                    raise GreenletExit
                self.point("wire", f"{len(data)} bytes")
            send(data, at)

        wire.host.send = counted  # type: ignore[method-assign]

    # Processes.

    def run(self, *arguments: str) -> Ended:
        """Runs a command to its end, or until it is killed; what it leaves is tidied up as an operating system does."""
        before, operations = _descriptors(), self._operations()
        process = self.process = Process({thread.number for thread in self.clock.threads()}, arguments[0], operations)
        out = io.StringIO()
        options = ("--bench", str(self.bench_file), "--state", str(self.state))
        self.tell(f"$ proxyflash {' '.join(arguments)}")

        def opener(path: str | None, state: Path | None) -> Bench:
            bench = WorldBench.open(path, state=state, recorder=self.recorder)
            bench.world = self
            return bench

        def call() -> None:
            try:
                process.status = run((*options, *arguments), opener=opener)
            except BaseException as error:
                if not process.is_dead:
                    process.raised = error

        process.main = cast(SimulatedThread, clock.Thread(target=call, name="process"))
        with redirect_stdout(out), redirect_stderr(out):
            process.main.start()
            process.main.join(LONGEST)
            if process.main.is_alive():
                process.raised = process.raised or TimeoutError(f"it hangs: {self._waiting(process)}")
                self._kill(process, self.disk.now())
            if process.is_dead:
                self._bury(process)
            elif process.halted:
                # The process ends with the command, and its threads with it.
                self.clock.kill(thread for thread in self.clock.threads() if process.has(thread))
                self._bury(process)
        output = self.plain(out.getvalue())
        for line in output.splitlines():
            if not line.startswith("part") or "  plan" in line or "  " in line:
                self.tell(f"  {line}")
        status = None if process.is_dead else process.status
        self.tell(f"  ends with {'a kill' if process.is_dead else status}")
        ended = Ended(arguments, status, output, process.errors, process.events, process.raised)
        ended.worked = [name for name, count in self._operations().items() if count != operations[name]]
        if not process.is_dead and not process.halted:
            ended.left = self._left(process, before)
        self.process = None
        return ended

    def _bury(self, process: Process) -> None:
        """Once its threads have ended: the operating system closes what it had open, and the disk is as it was."""
        for thread in self.clock.threads():
            if process.has(thread):
                thread.join(LONGEST)
        for bus in self.buses.values():
            wire = bus.wire
            if isinstance(wire, CanWire):
                for node in list(wire._nodes):
                    if id(node) in wire._hosts:
                        wire.detach(node)
            elif isinstance(wire, UartWire) and wire._claimed:
                wire.release()
        for adapter in process.opened:
            # Nothing is left to be closed when the garbage is collected.
            if isinstance(adapter, EmulatedCanBus):
                adapter._is_shutdown = True
            else:
                adapter.is_open = False
        if process.image is not None:
            self.disk.put(process.image)

    def _waiting(self, process: Process) -> str:
        return "; ".join(f"{thread.name} waits for {thread.waits_for}" for thread in self.clock.threads()
                         if process.has(thread))  # fmt: skip

    def _left(self, process: Process, before: dict[int, str]) -> list[str]:
        left = [f"the thread {thread.name}" for thread in self.clock.threads() if process.has(thread)]
        for lock in list(self.clock.locks):
            owner = lock.owner
            if owner is not None and (not owner.is_alive() or process.has(owner)):
                left.append(f"a lock that {owner.name} holds")
        now = _descriptors()
        return left + [f"the descriptor of {now[number]}" for number in now.keys() - before.keys()]


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return {number: target for number, target in found.items() if not target.startswith("/proc/")}


def _number(name: str) -> int:
    return int("".join(letter for letter in name if letter.isdigit()) or 0)


def _bus_text(bus: Bus, parts: Sequence[Part]) -> str:
    text = f'[bus.{bus.name}]\nkind = "{bus.kind}"\nemulated = true\npace = {bus.pace}\n'
    if bus.kind == "serial":
        text += "baudrate = 115200\ndtr = false\nrts = false\n"
    if bus.kind == "serial" and any(part.family.by_hand for part in parts if part.bus == bus.name):
        text += "probe = true\n"  # Letters of the question for the version are commands of the loader.
    if bus.at_once:
        text += f"at_once = {bus.at_once}\n"
    return text


@contextmanager
def replaced(place: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


Seam = Callable[..., Any]
