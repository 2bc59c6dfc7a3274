"""Our own DFU flasher through libusb and the kernel: scan, flash, and the errors that a real bus has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import usb.core
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.component import Presence
from proxyflash.flashers import events as ev
from proxyflash.hil_tests.kernel.conftest import LONG
from proxyflash.hil_tests.kernel.usb_lab import NEW, OLD, SLOT, ST, Emulation, bench_text, emulations, run
from proxyflash.transports.errors import UsbBusy, UsbGone

NOBODY = 65534
HOLDER = """
import sys, usb.core, usb.util
device = usb.core.find(idVendor=0x1209, idProduct=2)
usb.util.claim_interface(device, 0)
print("claimed", flush=True)
sys.stdin.read()
"""
THREE_COMMANDS = """
import sys
from proxyflash.tools.commands import run
bench, state, parts, name, image = sys.argv[1:]
words = ["--bench", bench, "--state", state]
statuses = run([*words, "flash", "--yes", name, image]), run([*words, "doctor"])
emulate = run(["--bench", parts, "--state", state, "emulate", "--vhci", "usb"])
print("flash %d, doctor %d, emulate %d" % (*statuses, emulate))
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Emulation]]:
    with emulations(tmp_path_factory.mktemp("usb"), ST, SLOT) as made:
        yield made


@pytest.fixture
def st(parts: list[Emulation]) -> Emulation:
    return parts[0]


@pytest.fixture
def slot(parts: list[Emulation]) -> Emulation:
    return parts[1]


@pytest.fixture
def make_bench(parts: list[Emulation], tmp_path: Path) -> Callable[..., Bench]:
    """A bench of real USB with the parts that are named."""

    def make(*listed: Emulation) -> Bench:
        file = tmp_path / "bench.toml"
        file.write_text(bench_text(list(listed)))
        return Bench.open(file)

    # libusb's context, with its descriptors, is this process's from here on.
    usb.core.find()
    return make


def test_scan_and_flash(make_bench: Callable[..., Bench], st: Emulation, slot: Emulation, nothing_left: None) -> None:
    with make_bench(st, slot) as bench:
        before = {component.name: component for component in bench.scan().components}
        assert {name: (component.presence, component.version) for name, component in before.items()} == {
            ST.part: (Presence.OK, OLD),
            SLOT.part: (Presence.OK, OLD),
        }
        assert before[ST.part].id == st.serial
        for part, file in ((st, st.file(NEW, "dfuse")), (slot, slot.file(NEW, "dfu"))):
            result = bench.component(part.kind.part).flash(file)
            assert result is not None
            assert (result.version, result.verified) == (NEW, "read back")
            part.wait_running(NEW)


def test_scan_sees_dfu_mode_and_what_is_not_listed(
    make_bench: Callable[..., Bench], st: Emulation, slot: Emulation, nothing_left: None
) -> None:
    run("dfu-util", "-E", "0", "-d", slot.kind.both_ids, "-p", slot.place, "-e")
    slot.wait_dfu()
    with make_bench(slot) as bench:
        scan = bench.scan()
        (component,) = scan.components
        assert component.presence is Presence.BOOTLOADER
        assert f"dfu 1209:0001  port {st.place}  Acme part" in [item.title for item in scan.unlisted]
        result = bench.component(slot.kind.part).flash(slot.file(OLD, "dfu"))
        assert result is not None
    slot.wait_running(OLD)


def test_unplugged_in_the_middle(make_bench: Callable[..., Bench], st: Emulation, nothing_left: None) -> None:
    pulled: list[float] = []

    def pull(event: ev.Event) -> None:
        if isinstance(event, ev.Progress) and event.phase is ev.Phase.WRITE and event.done >= 4096 and not pulled:
            st.detach()
            pulled.append(time.monotonic())

    with make_bench(st) as bench:
        component = bench.component(st.kind.part)
        with pytest.raises(UsbGone):
            component.flash(st.file(OLD), on_event=pull, address=ST.start, compare=False)
        # Not by a request's time-out, which is 5 s.
        assert time.monotonic() - pulled[0] < 4
        st.supply("off")
        st.supply("on")
        st.wait_dfu()
        result = component.flash(st.file(OLD), address=ST.start)
        assert result is not None
    st.wait_running(OLD)


def test_held_by_another_program(make_bench: Callable[..., Bench], slot: Emulation, nothing_left: None) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "claimed\n"
        with make_bench(slot) as bench, pytest.raises(UsbBusy):
            bench.component(slot.kind.part).flash(slot.file(NEW, "dfu"))
        holder.communicate(timeout=LONG)
    with make_bench(slot) as bench:
        result = bench.component(slot.kind.part).flash(slot.file(NEW, "dfu"))
        assert result is not None
    slot.wait_running(NEW)


def test_a_user_who_may_not(slot: Emulation) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("util-linux is not installed")
    # Not below pytest's own folder, which is this user's alone.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench, parts = folder / "bench.toml", folder / "parts.toml"
        bench.write_text(bench_text([slot]))
        parts.write_text(bench_text([slot], f'emulated = {{part = "{slot.kind.part}"}}\n', "emulated = true\n"))
        shutil.copy(slot.file(NEW, "dfu"), folder / "new.dfu")
        for path in (folder, *folder.iterdir()):
            os.chown(path, NOBODY, NOBODY)
        words = [str(bench), str(folder / "state"), str(parts), slot.kind.part, str(folder / "new.dfu")]
        # It may read all files, as this checkout may lie in a folder of root's.
        user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        said = run("setpriv", *user, *reads, sys.executable, "-c", THREE_COMMANDS, *words)
    assert "E-USB-FORBIDDEN" in said
    assert 'SUBSYSTEM=="usb", ATTR{idVendor}' in said
    assert "E-VHCI-FORBIDDEN" in said
    assert "flash 7, doctor 0, emulate 7" in said
