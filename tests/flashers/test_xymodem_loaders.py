"""The X- and YMODEM flashers over every emulated part: flash, verdict, boot; entry, refusals, what is not possible."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.emulators import application
from proxyflash.emulators.serial.board import Stage
from proxyflash.enumerators import bench
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import (
    Cancelled,
    ImageTooLarge,
    ImageWrongPart,
    NoResponse,
    OperationFailed,
    PartRefused,
    PartWrongMode,
    ProfileWrong,
    ProtocolError,
    RebootFailed,
    Unsupported,
    WrongPart,
)
from proxyflash.flashers.events import RunContext
from proxyflash.flashers.flasher import Capability, Slot
from proxyflash.flashers.memory import Range
from proxyflash.flashers.xymodem.codec import ABORT
from proxyflash.flashers.xymodem.console import plain
from proxyflash.flashers.xymodem.flavours import XmodemProfile, YmodemProfile
from proxyflash.flashers.xymodem.profile import XymodemProfile, loaders
from proxyflash.tests.flashers.xymodem_lab import LINES, PARTS, Rig
from proxyflash.tests.rigs import rigs
from proxyflash.transports.deadline import Deadline
from pydantic import ValidationError

make_rig = rigs(Rig)


@pytest.fixture(params=PARTS)
def rig(request: pytest.FixtureRequest, make_rig: Callable[..., Rig]) -> Rig:
    return make_rig(request.param)


VERDICTS = {
    "gecko": "Serial upload complete",
    "iap": "Programming Completed Successfully! Name: firmware.bin Size: 3001 Bytes",
}


class TestEachPart:
    def test_flash_verdict_boot_and_version(self, rig: Rig) -> None:
        assert rig.runs("1.4.2")
        result = rig.flash()
        assert result.version == "1.5.0"
        assert rig.holds(rig.new)
        assert rig.runs("1.5.0")
        wanted = VERDICTS.get(rig.device.board.loader._part.loader)
        assert wanted is None or result.verified == f'the loader\'s word "{wanted}"'
        assert wanted is not None or re.fullmatch(r'the loader\'s word "==> [0-9a-f]{8}"', result.verified)

    def test_twice_and_the_loader_again(self, rig: Rig) -> None:
        rig.flash()
        rig.flash(rig.old)
        assert rig.holds(rig.old)
        assert rig.runs("1.4.2")

    def test_a_slot_of_one_file(self, rig: Rig) -> None:
        flasher = rig.flasher()
        flasher.connect()
        assert flasher.slot() == Slot("slot", 0x100_0000)
        assert flasher.capabilities == Capability.CHECK | Capability.BOOT
        flasher.close()

    def test_what_it_holds_can_not_be_asked(self, rig: Rig) -> None:
        """Neither read nor verified without writing; the part runs on as before."""
        programmer = rig.programmer()
        with pytest.raises(Unsupported, match="does not tell what it holds"):
            programmer.verify(rig.image())
        assert rig.sent == []
        assert rig.runs("1.4.2")
        with pytest.raises(Unsupported, match="does not tell what it holds"):
            programmer.read([Range(0, 16)])
        assert "does not tell" in rig.flasher_class.readback_unavailable_reason(rig.profile)
        assert rig.runs("1.4.2")
        programmer.bootloader.close()

    def test_an_image_that_is_too_large_is_refused_before_anything_is_sent(self, rig: Rig) -> None:
        rig.profile = rig.profile.model_copy(update={"slot_size": 3000})
        with pytest.raises(ImageTooLarge):
            rig.flash()
        assert rig.holds(rig.old)
        assert rig.runs("1.4.2")

    def test_the_loader_s_version(self, rig: Rig) -> None:
        assert (
            rig.flasher().connect().bootloader
            == {
                "gecko": "2.04.02",
                "iap": "",
                "shell": "2023.01",
            }[rig.device.board.loader._part.loader]
        )

    @pytest.mark.parametrize("after", [b"", b"[00:01.2] adc: late\r\n"], ids=["torn", "torn and glued"])
    @pytest.mark.parametrize("lost", [1, 5, 30, -3, -1, None])
    def test_the_first_prompts_are_torn(self, rig: Rig, lost: int | None, after: bytes) -> None:
        """The first bytes of what the loader says at its start and to the first greeting are lost; a task's log may follow."""
        tell, texts = rig.wire.device.send, 0

        def torn(data: bytes, at: float | None = None) -> None:
            nonlocal texts
            if rig.device.board.stage is Stage.LOADER and len(data) > 3:
                texts += 1
                data = (b"" if lost is None else data[lost:]) + after if texts <= 2 else data
            tell(data, at)

        rig.wire.device.send = torn  # type: ignore[method-assign]
        flasher = rig.flasher()
        flasher.connect()
        assert texts >= 2
        assert (
            flasher.connect().bootloader
            == {"gecko": "2.04.02", "iap": "", "shell": "2023.01"}[rig.device.board.loader._part.loader]
        )
        flasher.close()

    @pytest.mark.parametrize("stop", [1, 2, 3])
    def test_cancelled_on_the_way(self, rig: Rig, stop: int) -> None:
        """The loader gets the cancellation, stays at its prompt, and the same command ends well."""
        seen = 0

        def count(event: ev.Event) -> None:
            nonlocal seen
            seen += isinstance(event, ev.Progress)

        with pytest.raises(Cancelled):
            rig.flash(context=RunContext(count, lambda: seen >= stop))
        if ABORT in rig.sent:
            assert rig.runs(None)
        assert rig.flash().version == "1.5.0"


class TestModes:
    @pytest.mark.parametrize("block_size", [128, 1024])
    @pytest.mark.parametrize(
        ("name", "asks"),
        [
            ("shell-x", "crc"),
            ("shell-x", "checksum"),
            ("shell-y", "crc"),
            ("shell-y", "checksum"),
            ("shell-y", "stream"),
        ],
    )
    def test_all(self, make_rig: Callable[..., Rig], name: str, asks: str, block_size: int) -> None:
        rig = make_rig(name, {"block_size": block_size}, asks=asks)
        assert rig.flash().version == "1.5.0"
        assert rig.holds(rig.new)
        leads = {data[:1] for data in rig.sent if len(data) > 100}
        header = {b"\x01"} if name == "shell-y" else set()
        assert leads == ({b"\x01"} if block_size == 128 else {b"\x02"} | header)

    def test_more_than_256_blocks(self, make_rig: Callable[..., Rig]) -> None:
        """The number wraps, and the file is as it was."""
        rig = make_rig("gecko")
        data = application.make("2.0.0", "part", "Acme", 70_000, start=rig.memory.base)
        assert rig.flash(data).version == "2.0.0"
        assert rig.holds(data)

    def test_of_a_file_s_size_xmodem_tells_nothing_and_ymodem_all(self, make_rig: Callable[..., Rig]) -> None:
        """The rest of the last block is the padding, or as it was erased."""
        for name, after in (("gecko", b"\x1a" * 71), ("iap", b"\xff" * 71)):
            rig = make_rig(name)
            rig.flash()
            assert rig.memory.read(rig.memory.base + 3001, 71) == after

    def test_what_the_profile_calls_the_file(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("iap", {"file_name": "imu-1.5.0.bin"})
        assert "Name: imu-1.5.0.bin" in rig.flash().verified


class TestEntry:
    def test_by_hand(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("gecko", {"entry": {}}, wiring="none", boot=True)
        rig.flash(ask_version=False)
        assert rig.holds(rig.new)

    def test_by_hand_and_nobody_did_it(self, make_rig: Callable[..., Rig]) -> None:
        """The application says nothing to the greeting."""
        rig = make_rig("gecko", {"entry": {}, "timings": {"connect": 0.5, "knock": 0.1}}, wiring="none")
        with pytest.raises(NoResponse, match="greeting"):
            rig.flash()
        assert rig.holds(rig.old)

    def test_the_greeting_of_something_else(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("gecko", {"prompt": "login: $", "timings": {"connect": 0.5, "knock": 0.1}})
        with pytest.raises(PartWrongMode, match=r"prompt did not come within 0\.5 s; it said: '.*BL >'"):
            rig.flash()
        assert rig.runs("1.4.2"), "it was moved into its loader, and is started again"

    def test_by_a_text(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("iap", {"entry": {"settle": 0.01}, "enter": "update now\r"}, wiring="none", enter="update now\r")
        assert rig.runs("1.4.2")
        assert rig.flash().version == "1.5.0"

    def test_by_a_text_at_another_rate(self, make_rig: Callable[..., Rig]) -> None:
        """The application's settings are the bus's own; the loader has others."""
        profile = {"entry": {"settle": 0.01}, "enter": "BOOT\r", "baudrate": 57_600}
        rig = make_rig("shell-y", profile, wiring="none", enter="BOOT\r", baudrate=57_600)
        assert rig.flash().version == "1.5.0"
        assert rig.port.baudrate == 115_200

    def test_a_refused_image_starts_the_application_that_was_moved_by_a_text(
        self, make_rig: Callable[..., Rig]
    ) -> None:
        rig = make_rig("iap", {"entry": {}, "enter": "x", "part": "Another Menu"}, wiring="none", enter="x")
        with pytest.raises(WrongPart, match="Another Menu"):
            rig.flash()
        assert rig.runs("1.4.2")

    @pytest.mark.parametrize(("reset", "select"), [("dtr", "rts"), ("rts", "dtr")])
    @pytest.mark.parametrize("select_asserted", [True, False])
    def test_by_lines(self, make_rig: Callable[..., Rig], reset: str, select: str, select_asserted: bool) -> None:
        entry = LINES | {"reset": reset, "select": select, "select_asserted": select_asserted}
        inverted = "!" if select_asserted else ""
        rig = make_rig("gecko", {"entry": entry}, wiring=f"{reset}-reset,{inverted}{select}-boot")
        assert rig.flash().version == "1.5.0"

    def test_a_loader_in_the_middle_of_a_transfer(self, make_rig: Callable[..., Rig]) -> None:
        """As another run left it: waiting for a block, or in one, with nothing that resets it."""
        for cut in (b"", b"\x01\x01\xfe" + bytes(50), b"\x01\x01\xfe" + bytes(128)):
            for name in PARTS:
                rig = make_rig(name, {"entry": {}}, wiring="none", boot=True, timeout=0.3)
                flasher = rig.flasher()
                flasher.connect()
                command = rig.profile.upload[0]
                flasher._console.do(command, part_of="the test")
                rig.port.write(cut, Deadline.after(5))
                flasher.close()
                rig.flash(ask_version=False)
                assert rig.holds(rig.new), (name, cut)


class TestSight:
    def test_a_loader_is_greeted_where_that_is_allowed(self, rig: Rig) -> None:
        rig.flasher().connect()
        rig.sent.clear()
        assert rig.probe(active=False) is None
        assert rig.sent == []
        sighting = rig.probe(active=True)
        assert sighting is not None
        assert sighting.state == "bootloader"
        assert rig.sent == [rig.profile.greet.encode()]

    def test_a_running_application_is_not_disturbed(self, rig: Rig) -> None:
        assert rig.runs("1.4.2")
        assert rig.probe(active=True) is None
        assert rig.runs("1.4.2")

    def test_a_loader_of_another_kind(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("gecko", {"part": "Other"})
        rig.profile = rig.profile.model_copy(update={"part": ""})
        rig.flasher().connect()
        rig.profile = rig.profile.model_copy(update={"part": "Other"})
        assert rig.probe(active=True) is None

    def test_through_the_bench(self, tmp_path: Any) -> None:
        """A part that sits in its loader is seen as such, a part that runs by its version."""
        (tmp_path / "old.bin").write_bytes(application.make("1.4.2", "radio", "Acme", 1000, start=0x4000))
        for boot, state, version in (("true", "bootloader", ""), ("false", "ok", "1.4.2")):
            (tmp_path / "bench.toml").write_text(f"""
[bus.b]
kind = "serial"
emulated = true
probe = true
pace = 0
baudrate = 115200
[[component]]
name = "radio"
bus = "b"
protocol = "xmodem"
profile = {{loader = "gecko"}}
version = {{send = "VER?\\r", match = "FW ([0-9.]+)"}}
emulated = {{part = "efr32mg1", firmware = "old.bin", boot = {boot}}}
""")
            with bench.Bench.open(tmp_path / "bench.toml", state=tmp_path / f"state-{boot}") as opened:
                opened.emulated_device("radio").settle()
                found = opened.component("radio").look()
                assert (found.presence, found.version) == (state, version)


class TestBoot:
    @pytest.mark.parametrize(
        ("profile", "way"),
        [
            ({}, "run"),
            ({"boot": "reset"}, "reset"),
            ({"run": []}, "reset"),
            ({"run": [], "entry": {}}, "none"),
            ({"boot": "itself"}, "itself"),
        ],
    )
    def test_the_way(self, profile: dict[str, Any], way: str) -> None:
        known = {"loader": "gecko", "entry": LINES}
        assert XmodemProfile.model_validate(known | profile).way_to_boot == way

    def test_by_the_reset_line(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("gecko", {"boot": "reset"})
        assert rig.flash().version == "1.5.0"
        assert b"2" not in rig.sent

    def test_not_at_all(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("gecko", {"boot": "none"})
        flasher = rig.flasher()
        flasher.connect()
        assert flasher.capabilities == Capability.CHECK
        assert rig.flash().version is None
        assert rig.runs(None)

    def test_a_loader_that_does_it_itself(self, make_rig: Callable[..., Rig]) -> None:
        """Here it does not: the application that should run doesn't answer, and that is reported."""
        rig = make_rig("gecko", {"boot": "itself"})
        with pytest.raises(RebootFailed):
            rig.flash()
        assert rig.holds(rig.new)

    def test_released_without_a_transfer(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("gecko", {"boot": "itself"})
        programmer = rig.programmer()
        programmer.plan(rig.image())
        assert rig.runs(None)
        programmer.release()
        assert rig.runs("1.4.2")
        programmer.bootloader.close()


class TestVerdict:
    def test_sent_is_not_flashed(self, make_rig: Callable[..., Rig]) -> None:
        """All blocks and the end are acknowledged, and the loader then says that it didn't take the file."""
        rig = make_rig("iap", {"success": "never said", "failure": "Programming Completed", "timings": {"verdict": 1}})
        with pytest.raises(OperationFailed, match="all of the file was sent; the loader says: 'Programming Completed'"):
            rig.flash(attempts=1)

    @pytest.mark.parametrize("whole", [False, True])
    def test_a_file_that_went_in_short_blocks_may_be_refused_for_that(
        self, make_rig: Callable[..., Rig], whole: bool
    ) -> None:
        rig = make_rig("iap", {"success": "never said", "rejection": "Completed", "whole_blocks": whole})
        with pytest.raises(ImageWrongPart) as caught:
            rig.flash(bytes(1500), attempts=1)
        assert ("whole_blocks = true" in str(caught.value)) is not whole

    def test_a_loader_that_says_nothing_of_it(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("gecko", {"success": "never said"})
        with pytest.raises(ProtocolError, match=r"did not say what it makes of it; it said: '.*Serial upload complete"):
            rig.flash(attempts=1)

    def test_a_file_that_the_loader_refuses_is_not_tried_again(self, make_rig: Callable[..., Rig]) -> None:
        """It looks at the file's first bytes; what it held it still holds."""
        rig = make_rig("gecko")
        retries: list[ev.Event] = []
        with pytest.raises(ImageWrongPart, match="does not take the file: 'file error 0x 44'"):
            rig.flash(
                bytes(3000),
                context=RunContext(lambda event: retries.append(event) if isinstance(event, ev.Retrying) else None),
            )
        assert retries == []
        assert rig.holds(rig.old)
        assert rig.flash().version == "1.5.0"

    def test_a_file_that_is_not_whole(self, make_rig: Callable[..., Rig]) -> None:
        """The end of it is answered by CAN CAN CAN and the reason."""
        rig = make_rig("gecko")
        with pytest.raises(ImageWrongPart, match="file error 0x 43"):
            rig.flash(rig.new[:2000])
        assert rig.runs(None)
        assert rig.flash().version == "1.5.0"

    def test_a_file_that_is_larger_than_the_part(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("iap")
        with pytest.raises(ImageWrongPart, match="higher than the allowed space"):
            rig.flash(bytes(100_000))
        assert rig.holds(rig.old), "it refuses by the size that it is given"

    def test_a_step_after_it_that_is_not_answered_as_it_should(self, make_rig: Callable[..., Rig]) -> None:
        commit = [{"send": "crc32 0x40200000 0x<size-hex>\r", "expect": "==> 00000000"}]
        rig = make_rig("shell-y", {"commit": commit})
        with pytest.raises(PartRefused, match=r"to put the file into place, as the profile expects; it said: '.*==> "):
            rig.flash(attempts=1)
        assert rig.holds(rig.old)

    def test_a_step_that_says_that_it_failed(self, make_rig: Callable[..., Rig]) -> None:
        commit = [{"send": "erase 0 +1\r", "expect": "Erased"}]
        rig = make_rig("shell-y", {"commit": commit, "failure": "- range at 0x[0-9A-F]+"})
        with pytest.raises(OperationFailed, match="the loader says: '- range at 0x00000000'"):
            rig.flash(attempts=1)

    def test_a_step_alone_may_be_the_verdict(self, make_rig: Callable[..., Rig]) -> None:
        assert make_rig("shell-y", {"success": ""}).flash().version == "1.5.0"


class TestProfile:
    @pytest.mark.parametrize(
        ("change", "words"),
        [({"prompt": ""}, "no prompt"), ({"success": ""}, "nothing would tell whether what was sent is in place")],
    )
    def test_a_profile_that_can_not_do(self, make_rig: Callable[..., Rig], change: dict[str, Any], words: str) -> None:
        """Nothing is sent."""
        rig = make_rig("gecko", change)
        with pytest.raises(ProfileWrong, match=words):
            rig.flash()
        assert rig.sent == []

    @pytest.mark.parametrize("name", loaders())
    def test_the_shipped_ones_hold(self, name: str) -> None:
        for model in (XmodemProfile, YmodemProfile):
            if model.protocol in loaders()[name]["protocols"]:
                profile: XymodemProfile = model.model_validate({"loader": name})
                assert profile.prompt
                assert profile.success
                assert profile.way_to_boot == "run"
            else:
                with pytest.raises(ValidationError, match=r"no .* loader is called"):
                    model.model_validate({"loader": name})

    def test_what_the_table_says_goes_before_the_loader(self) -> None:
        profile = XmodemProfile.model_validate({"loader": "gecko", "greet": "\n", "block_size": 1024})
        assert (profile.greet, profile.block_size, profile.prompt) == ("\n", 1024, "BL > \\x00?$")

    @pytest.mark.parametrize(
        "table",
        [
            {"prompt": "(("},
            {"bootloader": "Boot v1"},
            {"success": "<size> ["},
            {"upload": [{"sent": "1"}]},
            {"entry": {"reset": "dtr", "select": "dtr"}},
            {"block_size": 512},
            {"loader": 3},
            {"timings": {"block": 0}},
        ],
    )
    def test_what_does_not_hold(self, table: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            XmodemProfile.model_validate(table)

    @pytest.mark.parametrize("name", ["", "a b", "ü.bin", "x" * 101])
    def test_no_file_is_called_so(self, name: str) -> None:
        with pytest.raises(ValidationError):
            YmodemProfile.model_validate({"file_name": name})

    @given(st.binary(max_size=400))
    @settings(deadline=None)
    def test_what_a_loader_says_is_quoted_on_one_line(self, text: bytes) -> None:
        assert plain(text).isprintable()
        assert len(plain(text)) <= 160
