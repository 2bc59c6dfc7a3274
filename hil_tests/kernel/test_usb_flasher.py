"""Our own DFU flasher through libusb and the kernel: scan, flash, and the errors that a real bus has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from proxyflash.enumerators.component import Presence
from proxyflash.hil_tests.kernel.conftest import LONG
from proxyflash.hil_tests.kernel.usb_lab import SLOT, ST, Kind, MakeBench, Part, bench_text, component_text, run
from proxyflash.transports.errors import UsbBusy

NEW, LATER, LAST = "2.0.0", "2.1.0", "2.2.0"

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


@pytest.fixture
def st(usb_parts: dict[Kind, Part]) -> Part:
    return usb_parts[ST]


@pytest.fixture
def slot(usb_parts: dict[Kind, Part]) -> Part:
    return usb_parts[SLOT]


def test_scan_and_flash(make_bench: MakeBench, st: Part, slot: Part, nothing_left: None) -> None:
    with make_bench(st, slot) as bench:
        before = {component.name: component for component in bench.scan().components}
        assert {name: (component.presence, component.version) for name, component in before.items()} == {
            ST.part: (Presence.OK, st.running()),
            SLOT.part: (Presence.OK, slot.running()),
        }
        assert before[ST.part].id == st.serial
        for part, file in ((st, st.file(NEW, "dfuse")), (slot, slot.file(NEW, "dfu"))):
            result = bench.component(part.kind.part).flash(file)
            assert result is not None
            assert (result.version, result.verified) == (NEW, "read back")
            part.wait_running(NEW)


def test_scan_sees_dfu_mode_and_what_is_not_listed(
    make_bench: MakeBench, st: Part, slot: Part, nothing_left: None
) -> None:
    run("dfu-util", "-E", "0", "-d", slot.kind.both_ids, "-p", slot.place, "-e")
    slot.wait_dfu()
    with make_bench(slot) as bench:
        scan = bench.scan()
        (component,) = scan.components
        assert component.presence is Presence.BOOTLOADER
        assert f"dfu 1209:0001  port {st.place}  Acme part" in [item.title for item in scan.unlisted]
        result = bench.component(slot.kind.part).flash(slot.file(LATER, "dfu"))
        assert result is not None
    slot.wait_running(LATER)


def test_held_by_another_program(make_bench: MakeBench, slot: Part, nothing_left: None) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "claimed\n"
        with make_bench(slot) as bench, pytest.raises(UsbBusy):
            bench.component(slot.kind.part).flash(slot.file(LAST, "dfu"))
        holder.communicate(timeout=LONG)
    with make_bench(slot) as bench:
        result = bench.component(slot.kind.part).flash(slot.file(LAST, "dfu"))
        assert result is not None
    slot.wait_running(LAST)


def test_a_user_who_may_not(slot: Part) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("util-linux is not installed")
    # Not below pytest's own folder, which is this user's alone.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench, parts = folder / "bench.toml", folder / "parts.toml"
        bench.write_text(bench_text([slot]))
        emulated = f'emulated = {{part = "{slot.kind.part}"}}\n'
        parts.write_text(f'[bus.usb]\nkind = "usb"\nemulated = true\n{component_text(slot.kind)}{emulated}')
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
