"""Our own DFU flasher through libusb and the kernel: scan, flash, and the errors that a real bus has."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import tempfile
from pathlib import Path

import pytest
from proxyflash.enumerators.component import Presence
from proxyflash.hil_tests.kernel.usb_lab import SLOT, ST, Kind, MakeBench, Part, bench_text, component_text, run, start
from proxyflash.hil_tests.kernel.waiting import LONG
from proxyflash.transports.errors import ExitStatus, UsbBusy

NEW, LATER, LAST = "2.0.0", "2.1.0", "2.2.0"

NOBODY = 65534
CLAIM_INTERFACE = 0x8004550F
"""USBDEVFS_CLAIMINTERFACE (linux/usbdevice_fs.h)."""
KEEP_CAPABILITIES = 8
"""PR_SET_KEEPCAPS (linux/prctl.h)."""
CAPABILITY_VERSION, DAC_READ_SEARCH = 0x2008_0522, 2
"""linux/capability.h."""


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
    holder = os.open(f"/dev/bus/usb/{int(slot.place.partition('-')[0]):03}/{slot.number():03}", os.O_RDWR)
    try:
        fcntl.ioctl(holder, CLAIM_INTERFACE, struct.pack("I", 0))
        with make_bench(slot) as bench, pytest.raises(UsbBusy):
            bench.component(slot.kind.part).flash(slot.file(LAST, "dfu"))
    finally:
        os.close(holder)
    with make_bench(slot) as bench:
        result = bench.component(slot.kind.part).flash(slot.file(LAST, "dfu"))
        assert result is not None
    slot.wait_running(LAST)


def test_a_user_who_may_not(slot: Part) -> None:
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
        said = {}
        for file, words, status in (
            (bench, ["flash", "--yes", slot.kind.part, str(folder / "new.dfu")], ExitStatus.PERMISSION),
            (bench, ["doctor"], ExitStatus.DONE),
            (parts, ["emulate", "--vhci", "usb"], ExitStatus.PERMISSION),
        ):
            process = start(["--bench", str(file), "--state", str(folder / "state"), *words], folder, become_nobody)
            process.join(LONG)
            said[words[0]] = "".join((folder / name).read_text() for name in ("out", "err"))
            assert process.exitcode == status, said[words[0]]
    assert "E-USB-FORBIDDEN" in said["flash"]
    assert 'SUBSYSTEM=="usb", ATTR{idVendor}' in said["doctor"]
    assert "E-VHCI-FORBIDDEN" in said["emulate"]


def become_nobody() -> None:
    """For good; but it may read all files, as this checkout may lie in a folder of root's."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(KEEP_CAPABILITIES, 1, 0, 0, 0) == 0
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    may = 1 << DAC_READ_SEARCH
    # Effective, permitted and inheritable; then the same of the upper 32.
    assert libc.capset(struct.pack("Ii", CAPABILITY_VERSION, 0), struct.pack("6I", may, may, 0, 0, 0, 0)) == 0
