"""What a scan of a CAN bus finds: the file's ECUs, and ECUs that it does not mention, as lines to paste."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import can
import pytest
from proxyflash.emulators import application
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.benchfile.schema import load
from proxyflash.enumerators.component import Presence
from proxyflash.flashers.uds.profile import UdsProfile

LISTED = """
[bus.b]
kind = "can"
emulated = true
pace = 0
probe = {probe}
fd = {fd}
[[component]]
name = "radar"
bus = "b"
protocol = "uds"
address = {{request = 0x7E0}}
emulated = {{serial = "RA-1", firmware = "old.bin", mute = {mute}}}
"""
UNLISTED = """
[[component]]
name = "eleven"
bus = "b"
protocol = "uds"
address = {request = 0x7E3}
emulated = {serial = "a serial number that needs several frames", firmware = "old.bin"}
[[component]]
name = "twenty-nine"
bus = "b"
protocol = "uds"
address = {addressing = "normal-fixed", target = 0x2A}
emulated = {serial = "0029"}
[[component]]
name = "mute"
bus = "b"
protocol = "uds"
address = {request = 0x7E5}
emulated = {mute = true}
"""


@contextmanager
def scanned(
    folder: Path, *, probe: bool = True, fd: bool = False, mute: bool = False, deaf_to_classic: bool = False
) -> Iterator[Bench]:
    """A bench whose file does not mention UNLISTED, on a bus that has it. `deaf_to_classic`: the ECU `eleven` hears CAN FD
    frames only."""
    (folder / "old.bin").write_bytes(application.make("1.4.2", "radar", "Acme", 1000, start=0x10000))
    words = {"probe": str(probe).lower(), "fd": str(fd).lower(), "mute": str(mute).lower()}
    (folder / "all.toml").write_text(LISTED.format(**words) + UNLISTED)
    (folder / "bench.toml").write_text(LISTED.format(**words))
    with Bench.open(folder / "all.toml", state=folder / "state") as bench:
        for name in ("radar", "eleven", "twenty-nine", "mute"):
            bench.emulated_device(name).settle()
        if deaf_to_classic:
            node = bench.emulated_device("eleven").board.link.node  # type: ignore[attr-defined]
            node.receive = partial(_fd_only, node.receive)
        for name in ("eleven", "twenty-nine", "mute"):
            del bench.file.entries[name]
        yield bench


def _fd_only(receive: Callable[[can.Message], None], message: can.Message) -> None:
    if message.is_fd:
        receive(message)


@pytest.mark.parametrize("fd", [False, True], ids=["classic", "fd"])
def test_ecus_that_the_file_lacks_are_found(tmp_path: Path, fd: bool) -> None:
    with scanned(tmp_path, fd=fd) as bench:
        scan = bench.scan()
    frames = "classic and CAN FD frames" if fd else "classic frames"
    assert scan.asked == (("b", f"asked every ECU by a UDS TesterPresent to 0x7DF and 0x18DB33F1, in {frames}"),)
    assert scan.faults == ()
    assert [(item.name, item.id, item.version, item.presence) for item in scan.components] == [
        ("radar", "RA-1", "1.4.2", Presence.OK)
    ]
    assert [item.title for item in scan.unlisted] == [
        "uds 0x7E3/0x7EB  serial a serial number that needs several frames",
        "uds 0x18DA2AF1/0x18DAF12A  serial 0029",
    ]


def test_their_lines_can_be_pasted(tmp_path: Path) -> None:
    with scanned(tmp_path) as bench:
        lines = [item.lines for item in bench.scan().unlisted]
    pasted = tmp_path / "pasted.toml"
    pasted.write_text('[bus.b]\nkind = "can"\nemulated = true\n' + "\n".join(lines))
    entries = load(pasted).entries
    found = {
        name: {key: entry.address.model_dump()[key] for key in ("request", "response")}
        for name, entry in entries.items()
    }
    assert found == {
        "ecu-7eb": {"request": 0x7E3, "response": 0x7EB},
        "ecu-2a": {"request": 0x18DA2AF1, "response": 0x18DAF12A},
    }


def test_nothing_is_sent_to_others_where_the_file_does_not_allow_it(tmp_path: Path) -> None:
    with scanned(tmp_path, probe=False) as bench:
        wire = bench.emulated_wire("b")
        seen: list[int] = []
        wire.attach("listener", lambda message: seen.append(message.arbitration_id))
        scan = bench.scan()
    assert scan.unlisted == ()
    assert set(seen) == {0x7E0, 0x7E8}


@pytest.mark.parametrize("fd", [False, True], ids=["classic", "fd"])
def test_a_scan_changes_nothing(tmp_path: Path, fd: bool) -> None:
    """Reading identifiers and TesterPresent, nothing else (ISO 14229-1:2020, 10.7, 11.2). Only an ECU that is not known yet is
    asked in CAN FD frames, and only on a CAN FD bus."""
    with scanned(tmp_path, fd=fd) as bench:
        wire = bench.emulated_wire("b")
        seen: list[can.Message] = []
        wire.attach("listener", seen.append)
        bench.scan()
        assert bench.emulated_device("radar").application_version == "1.4.2"
    asked = [item for item in seen if item.arbitration_id in (0x7E0, 0x7E3, 0x7DF, 0x18DB33F1, 0x18DA2AF1)]
    assert {message.data[1] for message in asked if message.data[0] >> 4 == 0} == {0x22, 0x3E}
    assert {message.arbitration_id for message in asked if message.is_fd} == ({0x7DF, 0x18DB33F1} if fd else set())


def test_an_ecu_that_hears_can_fd_frames_only_is_found(tmp_path: Path) -> None:
    with scanned(tmp_path, fd=True, deaf_to_classic=True) as bench:
        eleven = next(item for item in bench.scan().unlisted if "0x7E3" in item.title)
    assert eleven.title == "uds 0x7E3/0x7EB  serial a serial number that needs several frames"
    pasted = tmp_path / "pasted.toml"
    pasted.write_text('[bus.b]\nkind = "can"\nfd = true\nemulated = true\n' + eleven.lines)
    profile = load(pasted).entries["ecu-7eb"].profile
    assert isinstance(profile, UdsProfile)
    assert profile.iso_tp.tx_dl == 64


def test_a_mute_ecu_is_absent(tmp_path: Path) -> None:
    with scanned(tmp_path, mute=True) as bench:
        scan = bench.scan()
    assert [item.presence for item in scan.components] == [Presence.ABSENT]


def test_one_without_an_application_is_in_its_bootloader(tmp_path: Path) -> None:
    with scanned(tmp_path) as bench:
        device = bench.emulated_device("radar")
        device.supply.off()
        device.flash.load(0x10000, b"\xff" * 1000)
        device.supply.on()
        device.settle()
        assert [item.presence for item in bench.scan().components] == [Presence.BOOTLOADER]


def test_a_bus_without_anybody(tmp_path: Path) -> None:
    (tmp_path / "bench.toml").write_text('[bus.b]\nkind = "can"\nemulated = true\nprobe = true\n')
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as bench:
        scan = bench.scan()
    assert scan.components == ()
    assert scan.unlisted == ()
