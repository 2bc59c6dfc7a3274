"""XCP's flasher on emulated parts: what OpenBLT needs, what slaves offer and lack, keys, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import can
import pytest
from proxyflash.emulators.replay.session import Replay
from proxyflash.emulators.xcp.can import XcpCanDevice
from proxyflash.emulators.xcp.parts import firmware, parts
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers.errors import (
    NoResponse,
    PartError,
    PartRefused,
    SecurityDenied,
    Unsupported,
    VerifyMismatch,
)
from proxyflash.testing.rig import Rig as FlashRig
from proxyflash.testing.rig import settled
from proxyflash.tests.flashers.test_contract import KINDS
from proxyflash.transports import clock
from proxyflash.transports.can.bus import CanBus
from proxyflash.transports.errors import ProxyflashError
from proxyflash.transports.recording.formats import Recording
from proxyflash.transports.recording.recorder import Recorder

VERSION = 'version = {send = "01", match = "FW ([0-9.]+)"}'
OPENBLT = f"""
loader = "openblt"
memory = [{{start = 0x08006000, size = 0x1A000, erase_unit = 0x2000}}]
checksum_offset = 0x150
{VERSION}
"""
ECU = f"""
memory = [{{start = 0x20000, size = 0x38000, erase_unit = 0x4000}}]
write_alignment = 8
{VERSION}
"""
WORDS = f"""
memory = [{{start = 0x10000, size = 0x10000, erase_unit = 0x10000}}]
write_alignment = 4
functional = 2
{VERSION}
"""
IDS = "request = 0x667, response = 0x7E1"
FD = "fd = true\nbitrate = 500_000\ndata_bitrate = 2_000_000\n"


class Rig:
    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench = bench
        self.folder = folder
        self.component = bench.component("part")
        device = bench.emulated_device("part")
        assert isinstance(device, XcpCanDevice)
        self.device = device

    def image(self, version: str, size: int, name: str) -> Path:
        path = self.folder / name
        path.write_bytes(self.device.make_firmware(version, "part", "Acme", size))
        return path

    def flash(self, size: int = 5_000, **keys: Any) -> Any:
        new = self.image("1.5.0", size, "new.bin")
        return self.component.flash(new, address=self.device.application_start, **keys)

    def refusal(self, kind: type[ProxyflashError], **keys: Any) -> ProxyflashError:
        """Of a flash, which must not change the part's memory."""
        operations = self.device.supply.operations
        with pytest.raises(kind) as caught:
            self.flash(**keys)
        assert self.device.supply.operations == operations
        return caught.value


@contextmanager
def rig(
    folder: Path, part: str, profile: str, *, emulated: str = "", bus: str = "", ids: str = IDS, new: bool = True
) -> Iterator[Rig]:
    folder.mkdir(exist_ok=True)
    file = folder / "bench.toml"
    file.write_text(f"""
[bus.b]
kind = "can"
emulated = true
pace = 0.0
{bus}
[[component]]
name = "part"
bus = "b"
protocol = "xcp-can"
address = {{{ids}, version_request = 0x120, version_response = 0x121}}
emulated = {{part = "{part}"{emulated}}}
[component.profile]
{profile}
""")
    with Bench.open(file, state=folder / "state") as bench:
        yield Rig(bench, folder)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the host sends."""
    found: list[bytes] = []
    send = CanBus.send

    def noted(self: CanBus, message: can.Message, deadline: Any) -> None:
        found.append(bytes(message.data))
        send(self, message, deadline)

    monkeypatch.setattr(CanBus, "send", noted)
    return found


class TestOpenBlt:
    def test_the_verdict_names_the_bytes_that_were_not_compared(self, tmp_path: Path) -> None:
        with rig(tmp_path, "openblt-f103", OPENBLT) as it:
            new = it.image("1.5.0", 5_000, "new.bin")
            data = bytearray(new.read_bytes())
            data[0x150:0x154] = b"\xee\x11\xaa\x55"
            new.write_bytes(data)
            result = it.component.flash(new, address=0x08006000, boot=False)
            assert result.verified == ("read back, without the 4 bytes at 0x08006150 that the bootloader writes")
            held = it.device.flash.read(0x08006000, 5_000)
            assert held[:0x150] + held[0x154:] == data[:0x150] + data[0x154:]
            assert sum(int.from_bytes(held[at : at + 4], "little") for at in (*range(0, 28, 4), 0x150)) % (1 << 32) == 0

    def test_another_byte_is_a_mismatch(self, tmp_path: Path) -> None:
        with rig(tmp_path, "openblt-f103", OPENBLT.replace("0x150", "0x154")) as it:
            new = it.image("1.5.0", 5_000, "new.bin")
            data = bytearray(new.read_bytes())
            data[0x150:0x154] = b"\xee\x11\xaa\x55"
            new.write_bytes(data)
            with pytest.raises(VerifyMismatch, match="0x08006150"):
                it.component.flash(new, address=0x08006000)

    def test_the_packets_of_an_image(self, tmp_path: Path, sent: list[bytes]) -> None:
        """As LibOpenBLT: what is over goes first, by PROGRAM, then PROGRAM_MAX alone. All is erased before data is sent; the
        first 512 bytes, with the vector table, come last, after one byte for a blank block."""
        with rig(tmp_path, "openblt-f103", OPENBLT) as it:
            it.flash(20_777)
        commands = [data[0] for data in sent]
        assert 0xD1 not in commands[commands.index(0xC9) :]
        assert [data.hex() for data in sent if data[0] == 0xD1] == ["d100000000200000"] * 3
        program = [data for data in sent if data[0] == 0xD0]
        # 20,992 bytes in blocks of 512: two units and a half, the first unit without its first block, that block.
        runs = [12_800, 7_680, 512]
        assert [data[1] for data in program] == [runs[0] % 7, runs[1] % 7, 1, runs[2] % 7, 0]
        assert commands.count(0xC9) == sum(run // 7 for run in runs)
        assert sent[commands.index(0xD0) - 1].hex() == "f600000000800008"
        assert b"\xcf" in sent[max(at for at, data in enumerate(sent) if data == b"\xd0\x00") :]

    def test_reads_of_zeros_are_not_believed(self, tmp_path: Path) -> None:
        with rig(tmp_path, "openblt-f103-mute", OPENBLT) as it:
            error = it.refusal(Unsupported)
            assert "no way to verify" in error.cause

    def test_reads_of_zeros_that_the_profile_believes_are_compared(self, tmp_path: Path) -> None:
        with rig(tmp_path, "openblt-f103-mute", OPENBLT + "read = true\n") as it, pytest.raises(PartError):
            it.flash()

    def test_without_a_blank_block(self, tmp_path: Path) -> None:
        with rig(tmp_path, "openblt-f103", OPENBLT) as it:
            assert it.flash(0x2000).version == "1.5.0"

    def test_on_fd(self, tmp_path: Path, sent: list[bytes]) -> None:
        profile = OPENBLT.replace(
            "0x08006000, size = 0x1A000, erase_unit = 0x2000", "0x08008000, size = 0x18000, erase_unit = 0x800"
        )
        with rig(tmp_path, "openblt-g474-fd", profile.replace("0x150", "0x1DC"), bus=FD) as it:
            assert it.flash(9_000).version == "1.5.0"
        assert {len(data) for data in sent if data[0] == 0xC9} == {64}

    def test_larger_packets_than_the_bus_has(self, tmp_path: Path) -> None:
        profile = OPENBLT.replace(
            "0x08006000, size = 0x1A000, erase_unit = 0x2000", "0x08008000, size = 0x18000, erase_unit = 0x800"
        )
        with rig(tmp_path, "openblt-g474-fd", profile + "fd = false\n", bus=FD) as it:
            error = it.refusal(ProxyflashError)
            assert error.code == "E-PROFILE"
            assert "64 bytes" in error.cause


class TestSlaves:
    def test_blocks_big_endian_with_a_crc(self, tmp_path: Path, sent: list[bytes]) -> None:
        with rig(
            tmp_path, "ecu-block", ECU, emulated=', secret = "5aa5"', ids="request = 0x7E0, response = 0x7E8"
        ) as it:
            it.bench.component("part")
        profile = ECU + 'security = {key = "xor", secret = "5aa5"}\n'
        folder = tmp_path / "2"
        with rig(folder, "ecu-block", profile, emulated=', secret = "5aa5"') as it:
            result = it.flash(0x9000)
            assert (result.version, result.verified) == ("1.5.0", "XCP_CRC_32 by the part")
        assert any(data[:2] == b"\xd0\xfc" for data in sent)
        # The seed of 8 bytes comes in two packets, and so does the key go.
        assert [data[1] for data in sent if data[0] == 0xF8][:2] == [0, 1]
        assert [data[1] for data in sent if data[0] == 0xF7][:2] == [8, 2]

    def test_pending_extends_the_time_of_an_erase(self, tmp_path: Path) -> None:
        """The erase of a unit takes 0.3 s, and its limit is 0.2 s."""
        with rig(tmp_path, "ecu-block", ECU + "timings = {erase = 0.31}\n", bus="") as it:
            it.device.node.pace = 1.0
            assert it.flash(5_000).version == "1.5.0"

    def test_words_on_fd_erased_as_a_whole(self, tmp_path: Path, sent: list[bytes]) -> None:
        with rig(tmp_path, "ecu-words", WORDS, bus=FD) as it:
            assert it.flash(9_001).version == "1.5.0"
        assert [data.hex() for data in sent if data[0] == 0xD1] == ["d101000002000000"]
        assert [data[0] for data in sent].count(0xC9) == 1, "PROGRAM_MAX was tried more than once"
        assert bytes.fromhex("f600000000800000") in sent, "addresses count words"

    def test_broadcast(self, tmp_path: Path) -> None:
        ids = "broadcast = 0x100, response = 0x7E8"
        with rig(tmp_path, "ecu-block", ECU, ids=ids, emulated=", request = 0x7E0") as it:
            assert it.flash().version == "1.5.0"

    def test_another_name(self, tmp_path: Path) -> None:
        with rig(tmp_path, "ecu-block", ECU + 'part = "RADAR-8"\n') as it:
            assert "RADAR-7 R1" in it.refusal(ProxyflashError).cause

    def test_program_verify(self, tmp_path: Path, sent: list[bytes]) -> None:
        with rig(tmp_path, "ecu-block", ECU + "verify_type = 1\n") as it:
            it.flash()
        assert [data.hex() for data in sent if data[0] == 0xC8] == ["c800000100000000"]


class TestKeys:
    SECRET = ', secret = "5aa5"'

    def test_none_is_given(self, tmp_path: Path) -> None:
        with rig(tmp_path, "openblt-f103", OPENBLT, emulated=self.SECRET) as it:
            error = it.refusal(SecurityDenied)
            assert "no key" in error.cause
            assert "key in security" in str(error)

    def test_a_wrong_one(self, tmp_path: Path, sent: list[bytes]) -> None:
        profile = OPENBLT + 'security = {key = "xor", secret = "0102"}\n'
        with rig(tmp_path, "openblt-f103", profile, emulated=self.SECRET) as it:
            it.refusal(SecurityDenied)
        assert len([data for data in sent if data[0] == 0xF7]) == 1, "a wrong key was sent again"

    def test_a_function(self, tmp_path: Path) -> None:
        (tmp_path / "mykeys.py").write_text(
            "def damper(seed, secret, level):\n"
            "    assert level == 0x10\n"
            "    return bytes(a ^ b for a, b in zip(seed, bytes.fromhex('5aa5')))\n"
        )
        profile = OPENBLT + 'security = {key = "mykeys:damper"}\n'
        with rig(tmp_path, "openblt-f103", profile, emulated=self.SECRET) as it:
            assert it.flash().version == "1.5.0"


def test_nobody_is_there(tmp_path: Path) -> None:
    with rig(tmp_path, "openblt-f103", OPENBLT) as it:
        it.device.supply.off()
        assert re.search("no answer|acknowledges", it.refusal(NoResponse).cause)


def test_refusals_are_said_at_once(tmp_path: Path) -> None:
    """A slave that refuses PROGRAM_CLEAR by address for good."""
    profile = WORDS.replace("functional = 2\n", "")
    with rig(tmp_path, "ecu-words", profile, bus=FD) as it:
        error = it.refusal(PartRefused)
        assert "ERR_CMD_UNKNOWN" in error.cause


@pytest.mark.parametrize("kind", ["xcp-can", "openblt-can", "openblt-uart"])
def test_a_recorded_flash_replays(kind: str, tmp_path: Path) -> None:
    """On simulated time: on a busy machine an answer may come after the request was repeated, and a replay has no such wait."""
    it = FlashRig(KINDS[kind](), tmp_path, size=3000, pace=1)
    recorder = Recorder()
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "recorded", recorder=recorder) as bench:
        settled(bench)
        assert it.flash(bench).version == "1.5.0"
    replay = Replay(Recording(tuple(recorder.records())))
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "replayed", replay=replay) as bench:
        bench.component("part").await_version()
        assert it.flash(bench).version == "1.5.0"
    replay.finish()
    replay.close()


def test_eight_parts_on_one_bus_at_once(tmp_path: Path) -> None:
    text = '[bus.b]\nkind = "can"\nbitrate = 500_000\nemulated = true\npace = 1\n'
    for number in range(8):
        text += f"""
[[component]]
name = "part{number}"
bus = "b"
protocol = "xcp-can"
emulated = {{part = "openblt-f103", firmware = "old.bin"}}
[component.address]
request = {0x600 + number}
response = {0x700 + number}
version_request = {0x120 + 2 * number}
version_response = {0x121 + 2 * number}
[component.profile]{OPENBLT}
"""
    for name, version, size in (("old.bin", "1.4.2", 1000), ("new.bin", "1.5.0", 6000)):
        (tmp_path / name).write_bytes(firmware(parts()["openblt-f103"], version, "part", "Acme", size=size, seed=0))
    (tmp_path / "bench.toml").write_text(text)
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as bench:
        versions: dict[str, str | None] = {}

        def flash(name: str) -> float:
            began = clock.monotonic()
            versions[name] = bench.component(name).flash(tmp_path / "new.bin", address=0x08006000).version
            return clock.monotonic() - began

        bench.emulated_device("part0").settle()
        alone = flash("part0")
        wire = bench.emulated_wire("b")
        began, busy = clock.monotonic(), wire.busy_seconds
        threads = [clock.Thread(target=flash, args=(f"part{number}",)) for number in range(1, 8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        together = clock.monotonic() - began
        assert versions == {f"part{number}": "1.5.0" for number in range(8)}
        # What one part's flash takes is another part's time on the bus.
        assert together < 0.8 * 7 * alone
        assert 0.8 < (wire.busy_seconds - busy) / together < 1.0
