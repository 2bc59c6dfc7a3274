"""`--wait`: a bus or a part that comes later or never, and Ctrl-C meanwhile."""

from __future__ import annotations

import os
import re
import signal
import socket
from typing import Any

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.buses import Buses
from proxyflash.enumerators.state import BenchLock, bench_folder
from proxyflash.flashers.errors import NoResponse
from proxyflash.flashers.events import Event, Phase, PhaseStarted
from proxyflash.tools import commands
from proxyflash.tools.commands.session import Session
from proxyflash.tools.commands.waiting import Wait
from proxyflash.transports import clock
from proxyflash.transports.errors import SerialAbsent
from proxyflash.transports.host_changes import HostChanges
from proxyflash.updates.engine.engine import Engine
from proxyflash.updates.engine.plan import UpdatePlan
from proxyflash.updates.engine.progress import Progress
from proxyflash.updates.engine.report import Outcome
from proxyflash.updates.manifests.resolved_update import load

from ..updates.authoring import Publisher
from .conftest import MANIFEST, Desk, Done
from .test_interrupts import Running, in_phase

LATE = 30.0
LONG, SHORT = "60", "10"


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


class Late:
    """The IMU's port is there after LATE seconds, or its supply is."""

    def __init__(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        self.desk = desk
        self.tries = 0
        self._opened = Buses.transport
        self._patch = monkeypatch

    def port(self) -> None:
        there = clock.monotonic() + LATE

        def transport(buses: Buses, bus: str) -> Any:
            if bus == "imu-uart" and clock.monotonic() < there:
                self.tries += 1
                raise SerialAbsent("no port /dev/imu")
            return self._opened(buses, bus)

        self._patch.setattr(Buses, "transport", transport)

    def supply(self, *arguments: object, capsys: pytest.CaptureFixture[str], part: str = "imu") -> Done:
        def opener(path: str | None, state: Any) -> Bench:
            bench = Bench.open(path, state=state)
            supply = bench.emulated_device(part).supply
            supply.off()
            clock.Timer(LATE, supply.on).start()
            return bench

        capsys.readouterr()
        status = commands.run(self.desk.arguments(*map(str, arguments)), opener=opener)
        return Done(status, *capsys.readouterr())


@pytest.fixture
def late(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Late:
    desk.edit_all("probe = true", "probe = false")
    return Late(desk, monkeypatch)


@pytest.fixture
def manifest(desk: Desk) -> Any:
    folder = desk.folder / "update"
    return Publisher(folder).update("Imus", "1.5", folder / "imu.importmanifest.json")


def commands_of(desk: Desk, manifest: Any) -> dict[str, list[object]]:
    return {
        "flash": ["flash", "imu", desk.image("imu")],
        "read": ["read", "imu", desk.folder / "out.bin", "--start", "0x08000000", "--size", "16"],
        "plan": ["plan", manifest],
        "apply": ["apply", manifest],
        "scan": ["scan"],
    }


@pytest.mark.parametrize("name", ["read", "plan", "scan"])
def test_a_port_that_comes_later(late: Late, desk: Desk, manifest: Any, name: str) -> None:
    command = [str(word) for word in commands_of(desk, manifest)[name]]
    late.port()
    done = desk.run(*command)
    assert (done.status, done.err.count("no port")) == (4, 1)
    began = clock.monotonic()
    done = desk.run(*command, "--wait", SHORT)
    assert done.status == 4
    assert "E-SERIAL-ABSENT" in done.err
    assert clock.monotonic() - began == pytest.approx(float(SHORT), abs=3)
    if name != "scan":
        assert f"waited {SHORT} s: no port" in done.err
    assert late.tries < 20
    done = desk.run(*command, "--wait", LONG)
    assert (done.status, "E-" in done.err) == (0, False), done.err


@pytest.mark.parametrize("name", ["flash", "apply"])
def test_a_part_that_gets_its_supply_later(
    late: Late, desk: Desk, manifest: Any, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = commands_of(desk, manifest)[name]
    assert late.supply(*command, capsys=capsys).status == 4
    done = late.supply(*command, "--wait", 90, capsys=capsys)
    assert (done.status, "E-" in done.err) == (0, False), done.err
    assert "waiting, for up to " in done.err


def test_resume_waits_for_what_is_left(late: Late, desk: Desk, manifest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cut(BaseException):
        pass

    def event(session: Session, event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase is Phase.WRITE:
            raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(Session, "event", event)
        with pytest.raises(Cut):
            desk.run("apply", manifest)
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "resume", interrupt)
        done = desk.run("resume")
    assert (done.status, "nothing was changed by this command" in done.err) == (10, True), done.err
    assert done.err.strip().endswith(" resume")
    late.port()
    done = desk.run("resume", "--wait", SHORT)
    assert (done.status, "resume" in done.err) == (10, True), done.err
    assert desk.run("history", "--json").document["updates"][0]["ending"] == "unfinished"
    done = desk.run("resume", "--wait", LONG)
    assert (done.status, "E-" in done.err) == (0, False), done.err
    assert desk.run("rollback", "--wait", SHORT).status == 0


def test_what_is_lost_amid_a_flash_was_not_waited_for(late: Late, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def event(session: Session, event: Event) -> None:
        session.standing.see(event)
        if isinstance(event, PhaseStarted) and event.phase is Phase.WRITE:
            raise SerialAbsent("no port /dev/imu")

    monkeypatch.setattr(Session, "event", event)
    began = clock.monotonic()
    done = desk.run("flash", "imu", desk.image("imu"), "--wait", "600")
    assert clock.monotonic() - began < 300
    assert ("no port" in done.err, "waited" in done.err) == (True, False), done.err


@pytest.mark.parametrize("amid", ["wait", "work"])
def test_only_the_wait_for_the_rest_of_an_update_is_left_by_ctrl_c(
    late: Late, desk: Desk, manifest: Any, monkeypatch: pytest.MonkeyPatch, amid: str
) -> None:
    """During the work it is an interruption like any other, and no earlier outcome is reported."""

    def halted(engine: Engine, *_: object, **__: object) -> Outcome:
        outcome = Outcome(UpdatePlan(load(manifest), (), ()), Progress(), 1, NoResponse("nothing answers"))
        monkeypatch.setattr(Wait, "may_go_on", interrupt if amid == "wait" else lambda *_: True)
        monkeypatch.setattr(Engine, "resume", interrupt)
        return outcome

    monkeypatch.setattr(Engine, "apply", halted)
    done = desk.run("apply", manifest, "--wait", LONG)
    assert ("nothing answers" in done.err) is (amid == "wait"), done.err
    assert (done.status == NoResponse.exit_status) is (amid == "wait")


def test_a_rollback_waits_for_parts_and_goes_on_without_those_that_do_not_come(
    late: Late, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = desk.folder / "update"
    children = [folder / f"{name}.importmanifest.json" for name in ("camera", "imu")]
    both = Publisher(folder).update("Both", "1.5", *children)
    with pytest.MonkeyPatch.context() as patch:
        assert desk.run("apply", both).status == 0
        Late(desk, patch).port()
        done = desk.run("rollback", "--wait", SHORT)
        assert done.status == 1, done.err
        (row,) = (row for row in desk.run("history", "--json").document["updates"] if row["undoes"])
        assert (row["ending"], row["not_brought_back"]) == ("rolled back in part", ["imu"])
    assert desk.seen()["camera"] == "1.4.2"
    assert desk.run("rollback").status == 0
    assert desk.run("apply", both).status == 0
    done = late.supply("rollback", "--wait", 90, capsys=capsys, part="camera")
    assert (done.status, "camera: not there yet" in done.err) == (0, True), done.err
    assert done.err.splitlines().count("camera is there") == 1
    assert desk.seen()["camera"] == "1.4.2"
    before = desk.run("history", "--json").document
    done = desk.run("rollback", "--yes")
    assert (done.status, done.out) == (0, "nothing to roll back: the last update was rolled back already\n")
    assert desk.run("rollback", "--json").document["verdict"] == "nothing to roll back"
    assert desk.run("history", "--json").document == before


@pytest.mark.parametrize("name", ["plan", "apply", "rollback", "scan"])
def test_all_parts_are_waited_for_and_each_is_told_when_it_comes(
    desk: Desk, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """The camera comes before the radar, which is asked first."""
    folder = desk.folder / "update"
    children = [folder / f"{part}.importmanifest.json" for part in ("radar", "camera")]
    both = Publisher(folder).update("Both", "1.5", *children)
    if name == "rollback":
        assert desk.run("apply", both).status == 0
    capsys.readouterr()

    def opener(path: str | None, state: Any) -> Bench:
        bench = Bench.open(path, state=state)
        for part, seconds in (("front-radar", 50.0), ("camera", 20.0)):
            supply = bench.emulated_device(part).supply
            supply.off()
            clock.Timer(seconds, supply.on).start()
        return bench

    words = [name, *([str(both)] if name in ("plan", "apply") else []), "--wait", "120"]
    # The radar's memory can't be read, so it was not backed up.
    assert commands.run(desk.arguments(*words), opener=opener) == (1 if name == "rollback" else 0)
    told = [line for line in capsys.readouterr().err.splitlines() if re.search("is there$|^waiting", line)]
    assert "front-radar, camera: not there yet" in told[0]
    assert [line for line in told if line.endswith("is there")] == ["camera is there", "front-radar is there"]


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "soon"])
def test_no_seconds(desk: Desk, seconds: str) -> None:
    assert desk.run("info", "imu", "--wait", seconds).status == 2


def test_ctrl_c_ends_the_wait_at_once(late: Late, desk: Desk) -> None:
    late.port()
    began = clock.monotonic()
    clock.Timer(5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    done = desk.run("flash", "imu", desk.image("imu"), "--wait", LONG)
    assert done.status == 130
    assert clock.monotonic() - began < 8


@pytest.mark.real_time("a socket of the kernel")
def test_a_change_of_this_host_wakes() -> None:
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    with HostChanges() as changes:
        changes._sockets.append(ours)  # As if the kernel's were this one.
        for _ in range(12):
            kernels.send(b"add@/devices/pci0000:00/usb1/1-1/ttyUSB0")
        began = clock.monotonic()
        changes.wait(20)
        assert clock.monotonic() - began < 10
    kernels.close()


def test_a_rollback_of_what_has_changed_nothing_waits_for_nothing(
    desk: Desk, manifest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(BaseException):
        pass

    def event(session: Session, event: Event) -> None:
        if isinstance(event, PhaseStarted):
            raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(Session, "event", event)
        with pytest.raises(Cut):
            desk.run("apply", manifest)
    done = desk.run("rollback", "--wait", SHORT)
    assert (done.status, "E-" in done.err) == (0, False), done.err


def test_no_part_is_called_there_when_the_bus_of_another_is_lost(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The IMU's port goes while the camera, which has no supply, is waited for."""
    folder = desk.folder / "update"
    children = [folder / f"{part}.importmanifest.json" for part in ("imu", "camera")]
    both = Publisher(folder).update("Both", "1.5", *children)
    opened, began = Buses.transport, clock.monotonic()
    lost = []

    def transport(buses: Buses, bus: str) -> Any:
        if bus == "imu-uart" and 10 < clock.monotonic() - began < 20:
            lost.append(bus)
            raise SerialAbsent("no port /dev/imu")
        return opened(buses, bus)

    def opener(path: str | None, state: Any) -> Bench:
        bench = Bench.open(path, state=state)
        for part, seconds in (("imu", 40.0), ("camera", 60.0)):
            supply = bench.emulated_device(part).supply
            supply.off()
            clock.Timer(seconds, supply.on).start()
        return bench

    monkeypatch.setattr(Buses, "transport", transport)
    capsys.readouterr()
    assert commands.run(desk.arguments("apply", str(both), "--wait", "120"), opener=opener) == 0
    told = capsys.readouterr().err.splitlines()
    assert lost
    assert [line for line in told if line.endswith("is there")] == ["imu is there", "camera is there"]


@pytest.mark.parametrize("name", ["flash", "read", "plan", "apply", "scan", "resume", "rollback"])
def test_a_bench_that_another_process_has(late: Late, desk: Desk, manifest: Any, name: str) -> None:
    """As two timers of one gateway have it: the second waits."""
    command = [
        str(word) for word in (commands_of(desk, manifest) | {"resume": ["resume"], "rollback": ["rollback"]})[name]
    ]
    assert desk.run("apply", manifest).status == 0
    with BenchLock(bench_folder(desk.state, desk.bench)) as lock:
        done = desk.run(*command)
        assert (done.status, done.err.split()[0]) == (6, "E-BENCH-LOCKED")
        assert "--wait SECONDS" in done.err
        began = clock.monotonic()
        done = desk.run(*command, "--wait", SHORT)
        assert done.status == 6
        assert clock.monotonic() - began == pytest.approx(float(SHORT), abs=1)
        said = done.err.splitlines()[-1]
        assert said.startswith("E-BENCH-LOCKED ")
        assert f"waited {SHORT} s: this bench is in use by process {os.getpid()} since " in said
        assert "--wait" not in said
        assert "Stop that process" in said
        clock.Timer(LATE, lock.close).start()
        began = clock.monotonic()
        done = desk.run(*command, "--wait", LONG)
        assert done.status == 0, done.err
        assert clock.monotonic() - began >= LATE
        assert done.err.count("waiting, for up to 60 s: this bench is in use by process ") == 1


@pytest.mark.real_time("two programs on one bench")
def test_an_apply_waits_for_another(make_desk: Any) -> None:
    desk: Desk = make_desk(pace=0.1)
    first = Running(desk, "apply", MANIFEST)
    first.until(in_phase("imu", "write"))
    for command in (
        ["plan", desk.manifest],
        ["apply", desk.manifest],
        ["apply", desk.manifest, "--abandon"],
        ["resume"],
        ["rollback"],
    ):
        done = desk.run(*command)
        assert (done.status, done.out) == (6, ""), done
        assert f"in use by process {first.process.pid} since " in done.err
    second = desk.start("apply", MANIFEST, "--wait", "600")
    assert second.stderr is not None
    assert f"in use by process {first.process.pid} since " in second.stderr.readline()
    status, last, _ = first.end()
    assert (status, last["ending"]) == (0, "succeeded")
    out, said = second.communicate(timeout=600)
    assert second.returncode == 0, said
    assert "imu  OK  installed already" in out
