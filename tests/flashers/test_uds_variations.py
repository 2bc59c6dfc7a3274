"""What single makers do otherwise, in parts: two addresses, a version behind a session and a key, dates, answers to 37.

The ECUs are those of the page of profiles that insist on it: see test_uds_published.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators import application
from proxyflash.enumerators.benchfile.schema import load as load_bench
from proxyflash.enumerators.errors import BenchKey
from proxyflash.flashers.errors import PartWrongMode, Unsupported, VerifyMismatch
from proxyflash.flashers.formats import load
from proxyflash.flashers.uds.checksums import CHECKSUMS
from proxyflash.flashers.uds.dates import QUESTION, dated
from proxyflash.flashers.uds.flasher import UdsFlasher
from proxyflash.flashers.uds.parameters import Subject, block_request, most_data
from proxyflash.flashers.uds.profile import Fingerprint, OwnStep, UdsAddress, UdsProfile
from proxyflash.tests.flashers.makers import APP, Maker
from proxyflash.tests.flashers.test_uds_published import TWO_IDS, made, sent
from proxyflash.tests.tools.conftest import Desk
from proxyflash.transports import clock
from proxyflash.transports.can.bus import CanId
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.isotp.opening import IsoTpChannel
from proxyflash.transports.outside import Outside
from proxyflash.transports.recording.records import CanFrame
from pydantic import ValidationError

pytestmark = pytest.mark.simulated_time

OLD = application.make("1.4.0", "radar", "Acme", 5003, start=0x10000)


def running(folder: Path, text: str = TWO_IDS) -> Maker:
    """An ECU that runs an application."""
    maker = made(folder, text)
    maker.flash()
    return maker


class TestTwoAddresses:
    def test_the_response_is_eight_above(self) -> None:
        here, boot = UdsAddress(request=0x7E0, boot_request=0x7E1).every_isotp()
        assert (here.ids(), boot.ids()) == ((CanId(0x7E0), CanId(0x7E8)), (CanId(0x7E1), CanId(0x7E9)))

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ({"request": 0x7E0, "boot_response": 0x7E9}, "boot_response needs boot_request"),
            ({"request": 0x7E0, "boot_request": 0x7E1, "boot_response": 0x7E1}, "an id that is listened to"),
            ({"request": 0x7E0, "boot_request": 0x7E1, "boot_response": 0x7E0}, "an id that is listened to"),
            ({"request": 0x7E0, "boot_request": 0x7E0}, "leave them out"),
            ({"addressing": "normal-fixed", "target": 1, "boot_request": 5}, "not for normal-fixed addressing"),
            ({"request": 1, "boot_request": 0x800, "extended_ids": False}, "more than 11 bits"),
        ],
    )
    def test_what_does_not_hold(self, keys: dict[str, object], said: str) -> None:
        with pytest.raises(ValidationError, match=said):
            UdsAddress.model_validate(keys)

    def test_only_the_responses_may_differ(self) -> None:
        _, boot = UdsAddress(request=0x7E0, boot_request=0x7E0, boot_response=0x7EF).every_isotp()
        assert boot.ids() == (CanId(0x7E0), CanId(0x7EF))

    def test_an_ecu_that_leaves_for_an_address_that_nobody_gave(self, tmp_path: Path) -> None:
        """It runs its application again, and the error names the key."""
        maker = running(tmp_path)
        with maker.opened(", boot_request = 0x743", "") as component, pytest.raises(PartWrongMode) as caught:
            component.flash(maker.image)
        assert "boot_request" in caught.value.remedy
        assert maker.device.application_version == "1.5.0"

    def test_what_passes_at_either_is_described(self) -> None:
        describer = UdsFlasher.describer("damper", UdsAddress(request=0x742, boot_request=0x743), UdsProfile())
        for number, is_sent in ((0x742, True), (0x74A, False), (0x743, True), (0x74B, False)):
            data = b"\x02\x10\x02" if is_sent else b"\x06\x50\x02\x00\x32\x01\xf4"
            (line,) = describer.take(CanFrame(0.0, "chassis", is_sent, number, 0, data)) or ()
            assert (line.sent, line.data[1]) == (is_sent, 0x02)
        assert describer.take(CanFrame(0.0, "chassis", True, 0x744, 0, b"\x02\x10\x02")) is None

    @pytest.mark.parametrize("runs", [False, True])
    def test_a_scan_sees_it_at_either(self, runs: bool, tmp_path: Path) -> None:
        maker = running(tmp_path) if runs else made(tmp_path, TWO_IDS)
        with maker.opened() as component:
            seen = component.look()
        assert str(seen.presence) == ("ok" if runs else "bootloader")
        assert seen.version == ("1.5.0" if runs else "")


class TestVersion:
    """Behind the extended session and a key."""

    def test_it_is_asked_for_and_the_session_left(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        maker = running(tmp_path)
        with maker.opened() as component:
            found = sent(monkeypatch, IsoTpChannel)
            assert component.look().version == "1.5.0"
            clock.sleep(10)
        assert found[-1] == "1001"
        assert [pdu[:4] for pdu in found if pdu.startswith(("10", "27"))] == ["1003", "2701", "2702", "1001"]

    def test_an_ecu_that_tells_it_is_asked_for_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = "\n".join(line for line in TWO_IDS.splitlines() if "22 F1" not in line)
        maker = running(tmp_path, text)
        with maker.opened() as component:
            found = sent(monkeypatch, IsoTpChannel)
            assert component.look().version == "1.5.0"
        assert {pdu[:2] for pdu in found} == {"22"}

    def test_with_a_wrong_key_it_is_not_taken_for_a_bootloader(self, tmp_path: Path) -> None:
        maker = running(tmp_path)
        with maker.opened('secret = "0f1e2d3c"}\nid', 'secret = "00"}\nid') as component:
            seen = component.look()
        assert (str(seen.presence), seen.version) == ("ok", "")

    def test_only_what_enters_may_be_among_the_steps(self, tmp_path: Path) -> None:
        (tmp_path / "bench.toml").write_text(TWO_IDS.replace('["extended", "key"]}', '["extended", "fingerprint"]}'))
        with pytest.raises(BenchKey, match="version_after has 'fingerprint'"):
            load_bench(tmp_path / "bench.toml")


class TestDates:
    PROFILE = UdsProfile(
        fingerprint=Fingerprint(data="{YYYY}{MM}{DD} {hh}{mm}{ss} 0A"),
        order=("programming", "fingerprint", "stamp", "download"),
        steps=(OwnStep(name="stamp", write=0xF199, data="{YY} {MM} {DD}"),),
    )

    def test_bcd(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(clock, "strftime", datetime(2026, 11, 30, 23, 59, 7).strftime)
        found = dated(self.PROFILE, None)
        assert found.fingerprint is not None
        assert bytes.fromhex(found.fingerprint.data).hex(" ") == "20 26 11 30 23 59 07 0a"
        assert bytes.fromhex(found.steps[0].data).hex(" ") == "26 11 30"

    def test_a_replay_writes_what_was_recorded(self) -> None:
        class Recorded:
            def answer(self, question: str) -> tuple[str, bool]:
                assert question == QUESTION
                return "2019-01-02T03:04:05", False

        found = dated(self.PROFILE, Outside(lambda: None, Recorded()))
        assert found.steps[0].data == "19 01 02"

    def test_without_a_date_nothing_is_asked(self) -> None:
        class Nobody:
            def answer(self, question: str) -> tuple[str, bool]:
                raise AssertionError(question)

        profile = UdsProfile(fingerprint=Fingerprint(data="01 02"))
        assert dated(profile, Outside(lambda: None, Nobody())) is profile

    @pytest.mark.parametrize("data", ["{yy}", "{YY", "2{YY}", "{YYYYY}", "0G", ""])
    def test_what_does_not_hold(self, data: str) -> None:
        if data:
            with pytest.raises(ValidationError, match="hexadecimal bytes"):
                Fingerprint(data=data)
        else:
            assert Fingerprint(data=data).data == ""

    def test_each_connection_has_its_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The ECU wants the day on which it is written."""
        maker = made(tmp_path, TWO_IDS)
        with maker.opened() as component, component.programmer() as programmer:
            monkeypatch.setattr(clock, "strftime", datetime(2031, 2, 3).strftime)
            programmer.flash(programmer.plan(load(maker.image)))
            maker.put((0x10000, OLD))
            monkeypatch.setattr(clock, "strftime", datetime(2031, 2, 4).strftime)
            programmer.flash(programmer.plan(load(maker.image)))


class TestExit:
    def test_it_verifies_what_was_sent(self, tmp_path: Path) -> None:
        assert made(tmp_path, TWO_IDS).flash().verified == "the part's answer to RequestTransferExit"

    def test_and_nothing_else(self, tmp_path: Path) -> None:
        maker = running(tmp_path)
        with (
            maker.opened() as component,
            component.programmer() as programmer,
            pytest.raises(Unsupported, match="only at the end of a download"),
        ):
            programmer.verify(load(maker.image))

    @pytest.mark.parametrize("times", [1, 9])
    def test_an_ecu_that_received_something_else(
        self, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Once: it is sent all again. Always: what it says is reported."""
        maker = made(tmp_path, TWO_IDS)
        tampered: list[bytes] = []
        with maker.opened() as component:
            device: Any = maker.device
            memory = device._ecu._memory
            ends: Callable[[bytes], bytes] = memory.exit_transfer

            def wrong(data: bytes) -> bytes:
                answer = ends(data)
                if len(tampered) < times:
                    tampered.append(answer)
                    return bytes(4)
                return answer

            monkeypatch.setattr(memory, "exit_transfer", wrong)
            if times == 1:
                assert component.flash(maker.image).attempts == 2
                return
            with pytest.raises(VerifyMismatch, match=r"RequestTransferExit with 00 00 00 00, .* gives"):
                component.flash(maker.image)
        assert maker.device.application_version is None or maker.device.flash.read(0x10000, len(APP)) == APP

    def test_an_answer_that_is_lost(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With it what the ECU received is lost; the next attempt hears it."""
        maker = made(tmp_path, TWO_IDS)
        receive = IsoTpChannel.recv
        lost: list[bytes] = []

        def losing(channel: IsoTpChannel, deadline: Deadline) -> bytes | None:
            pdu = receive(channel, deadline)
            if pdu is not None and pdu[0] == 0x77 and not lost:
                lost.append(pdu)
                return receive(channel, deadline)
            return pdu

        monkeypatch.setattr(IsoTpChannel, "recv", losing)
        result = maker.flash()
        assert (result.attempts, result.version) == (2, "1.5.0")
        assert lost


class TestBlocks:
    def test_the_checksum_of_hdlc(self) -> None:
        """CRC-16/IBM-SDLC of the catalogue of parametrised CRC algorithms: check 906E."""
        assert CHECKSUMS["crc16-x25"][1](b"123456789") == 0x906E

    def test_a_request(self) -> None:
        """36, counter, address, data, length, and the CRC of all of that."""
        profile = UdsProfile(address_length=2, block=("address", "data", "length", "crc16-x25"))
        found = block_request(profile, 0x7F, Subject(0x1234, 3, b"abc"))
        assert found[:-2] == bytes.fromhex("36 7F 12 34") + b"abc\x03"
        assert found[-2:] == CHECKSUMS["crc16-x25"][1](found[:-2]).to_bytes(2, "big")

    @pytest.mark.parametrize(
        ("block", "longest", "most"),
        [
            (("data",), 4095, 4093),
            (("address", "data", "length", "crc16-x25"), 4095, 255),
            (("address", "data", "length", "crc16-x25"), 100, 91),
            (("AA BB", "data"), 4, 0),
        ],
    )
    def test_how_much_data_fits(self, block: tuple[str, ...], longest: int, most: int) -> None:
        assert most_data(UdsProfile.model_validate({"block": block}), longest, Subject(0, 9, bytes(9))) == most

    @pytest.mark.parametrize("block", [(), ("address",), ("data", "data")])
    def test_it_has_its_data_once(self, block: tuple[str, ...]) -> None:
        with pytest.raises(ValidationError, match="block needs 'data' once"):
            UdsProfile.model_validate({"block": block})


def test_a_replay_of_a_flash_on_another_day(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes the day of the recording, at the addresses of the recording, with the recorded keys."""
    maker = made(tmp_path, TWO_IDS)
    (tmp_path / "bench.toml").write_text(TWO_IDS)
    desk = Desk(tmp_path, capsys)
    recorded = desk.run("record", tmp_path / "rec.jsonl", "--", "flash", "damper", maker.image)
    assert recorded.status == 0, recorded.err
    monkeypatch.setattr(clock, "strftime", datetime(2031, 2, 3).strftime)
    replayed = desk.run("replay", tmp_path / "rec.jsonl")
    assert (replayed.status, "as recorded" in replayed.out + replayed.err) == (0, True), replayed.out + replayed.err
    printed = desk.run("replay", tmp_path / "rec.jsonl", "--print")
    assert "damper" in printed.out
    assert "TransferData" in printed.out
