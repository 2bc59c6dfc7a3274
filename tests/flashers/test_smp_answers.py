"""What a part says of itself, whatever that is: every value of a reply, of the right kind and of others."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers.errors import (
    ImageWrongPart,
    NoResponse,
    PartRefused,
    Unsupported,
    VerifyMismatch,
    WrongPart,
)
from proxyflash.flashers.flasher import Slot, State
from proxyflash.flashers.formats.mcuboot import parse
from proxyflash.flashers.smp import restart as smp_restart
from proxyflash.flashers.smp.client import SmpClient
from proxyflash.flashers.smp.flasher import SmpFlasher
from proxyflash.flashers.smp.link import SmpLink
from proxyflash.flashers.smp.profile import SmpAddress, SmpProfile
from proxyflash.tests.flashers.smp_wire import InstantWire
from proxyflash.tests.flashers.test_mcuboot import made
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import ProxyflashError

Answers = dict[tuple[int, int], Any]
UNSUPPORTED = {"rc": 8}
TOO_LONG = {"rc": 7}
"""MGMT_ERR_EMSGSIZE: Zephyr's image list that doesn't fit its buffer."""
IMAGE = made(version=(2, 0, 0, 0))
ECHO, PARAMETERS, NAMES, BOOTLOADER = (0, 0), (0, 6), (0, 7), (0, 8)
STATE, SLOTS = (1, 0), (1, 6)


def slot(number: int, version: str, digest: bytes = b"", image: int = 0, **flags: bool) -> dict[str, Any]:
    return {"image": image, "slot": number, "version": version, "hash": digest or bytes([number]) * 32, **flags}


RUNNING = slot(0, "1.0.0", active=True, confirmed=True)


class Part(InstantWire):
    """Answers each command (group, number) with what it was given, and what it wasn't with rc 8."""

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self.answers = answers
        self.asked: list[tuple[int, int, Any]] = []

    def send(self, packet: bytes, deadline: Deadline) -> None:
        first, _, _, group, sequence, command = struct.unpack(">BBHHBB", packet[:8])
        body = cbor2.loads(packet[8:])
        self.asked.append((group, command, body))
        answer = self.answers.get((group, command), UNSUPPORTED)
        told = cbor2.dumps(answer(body) if callable(answer) else answer)
        self.replies.append(struct.pack(">BBHHBB", first + 1, 0, len(told), group, sequence, command) + told)


def flasher(answers: Answers, *, image: int = 0, **profile: Any) -> SmpFlasher:
    return SmpFlasher(Part(answers), SmpAddress(image=image), SmpProfile(quiet=0, **profile))


def brought(part: SmpFlasher) -> None:
    """As the engine does."""
    for _ in (*part.prepare(IMAGE), *part.upload(IMAGE)):
        pass


def target(**more: Any) -> dict[str, int | str]:
    return {"image_hash": "ab" * 32, "image_version": "2.0.0", **more}


class TestIdentity:
    def test_an_application_with_all_that_there_is(self) -> None:
        part = flasher(
            {
                PARAMETERS: {"buf_size": 1024, "buf_count": 3},
                NAMES: lambda asked: {"output": {"i": "board/soc", "n": "roof"}[asked["format"]]},
                BOOTLOADER: lambda asked: {"mode": 3, "no-downgrade": True} if asked else {"bootloader": "MCUboot"},
                STATE: {"images": [RUNNING, slot(1, "0.9.0")], "splitStatus": 0},
                SLOTS: {"images": [{"image": 0, "slots": [{"slot": 0, "size": 4096}, {"slot": 1, "size": 8192}]}]},
            }
        )
        identity = part.connect()
        assert (identity.part, identity.version, identity.bootloader) == ("board/soc", "1.0.0", "MCUboot")
        assert identity.details == {
            "mode": "application",
            "buffers": "3 x 1024",
            "name": "roof",
            "bootloader_mode": "3",
            "slot_0": f"1.0.0 active confirmed {'00' * 32}",
            "slot_1": f"0.9.0 {'01' * 32}",
        }
        assert part.slot() == Slot("slot 1", 8192)

    @pytest.mark.parametrize(
        ("answers", "mode"),
        [
            ({STATE: {"images": []}}, "recovery"),
            ({STATE: {"images": [slot(0, "1.0.0")]}}, "recovery"),
            ({STATE: {"images": [{"slot": 0, "version": "1.0.0", "active": True}]}}, "recovery"),
            ({STATE: {"images": [RUNNING]}}, "recovery"),
            ({STATE: {"images": [RUNNING]}, ECHO: lambda asked: {"r": asked["d"]}}, "application"),
            ({STATE: {"images": []}, NAMES: {"output": "x"}}, "application"),
            ({BOOTLOADER: {"bootloader": "MCUboot"}}, "application"),
            ({STATE: TOO_LONG, ECHO: lambda asked: {"r": asked["d"]}}, "application"),
            ({STATE: TOO_LONG}, "recovery"),
            ({}, "recovery"),
        ],
    )
    def test_who_answers(self, answers: Answers, mode: str) -> None:
        assert flasher(answers).connect().details["mode"] == mode
        assert flasher(answers, mode="application").connect().details["mode"] == "application"
        assert flasher(answers, mode="recovery").connect().details["mode"] == "recovery"

    def test_without_parameters_the_profile_s_buffer_counts(self) -> None:
        assert flasher({}, buffer=512).connect().details["buffers"] == "1 x 512"

    def test_another_part_than_the_profile_s(self) -> None:
        answers: Answers = {STATE: {"images": [RUNNING]}, NAMES: {"output": "board/soc"}}
        flasher(answers, part="board").connect()
        with pytest.raises(WrongPart, match="board/soc"):
            flasher(answers, part="other").connect()

    def test_nobody(self) -> None:
        part = Part({})
        part.send = lambda packet, deadline: None  # type: ignore[method-assign]
        with pytest.raises(NoResponse):
            SmpFlasher(part, SmpAddress(), SmpProfile()).connect()

    def test_no_line_ends_in_names(self) -> None:
        identity = flasher({NAMES: {"output": "bo\nard\x1b[0m\x00"}}).connect()
        assert identity.part == "bo ard [0m"


class TestRefusals:
    def application(self, *slots: Any, **more: Any) -> SmpFlasher:
        part = flasher({STATE: {"images": [RUNNING, *slots]}, NAMES: {"output": "x"}}, **more)
        part.connect()
        return part

    def test_no_mcuboot_image(self) -> None:
        with pytest.raises(ImageWrongPart, match="not a signed image"):
            self.application().slot({})

    def test_not_to_be_started(self) -> None:
        with pytest.raises(ImageWrongPart, match="not to be started"):
            self.application().slot(target(bootable=0))

    def test_no_image_management(self) -> None:
        part = flasher({NAMES: {"output": "x"}})
        part.connect()
        with pytest.raises(Unsupported, match="takes no images"):
            part.slot(target())

    def test_a_list_of_images_that_does_not_fit(self) -> None:
        slots = [{"slot": 0, "size": 4096}, {"slot": 1, "size": 8192, "upload_image_id": 0}]
        infos = {"images": [{"image": 0, "slots": slots}, {"image": 1, "slots": [{"slot": 2, "size": 2048}]}]}
        part = flasher(
            {STATE: TOO_LONG, SLOTS: infos, NAMES: {"output": "x"}, PARAMETERS: {"buf_size": 128, "buf_count": 4}}
        )
        details = part.connect().details
        assert details["images"] == "not reported: EMSGSIZE (rc 7)"
        assert (details["slot_1"], details["image_1_slot_2"]) == ("8,192 bytes", "2,048 bytes")
        assert part.slot().size == 8192
        with pytest.raises(Unsupported, match="the list of them does not fit its buffer of 128 bytes") as raised:
            part.slot(target())
        assert "CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE" in (raised.value.remedy or "")
        assert "recovery = true" in (raised.value.remedy or "")

    def test_a_list_of_images_that_is_not_told(self) -> None:
        part = flasher({STATE: {"err": {"group": 1, "rc": 2}}, NAMES: {"output": "x"}})
        part.connect()
        with pytest.raises(Unsupported, match=r"does not tell which: FLASH_CONFIG_QUERY_FAIL \(rc 2 of group 1\)"):
            part.slot(target())

    def test_a_list_of_images_that_is_empty(self) -> None:
        part = flasher({STATE: {"images": []}, NAMES: {"output": "x"}})
        part.connect()
        with pytest.raises(Unsupported, match="lists no image"):
            part.slot(target())

    @pytest.mark.parametrize(("reset", "fits"), [(0xC1F5, True), (0xBFFF, False), (0xC000 + 0x1000000, False)])
    def test_linked_for_elsewhere(self, reset: int, fits: bool) -> None:
        part = self.application(run_address=0xC000)
        if fits:
            part.slot(target(reset_vector=reset))
            return
        with pytest.raises(ImageWrongPart, match="this part runs its image at 0x0000C000"):
            part.slot(target(reset_vector=reset))

    @pytest.mark.parametrize(
        ("keys", "run_address", "said"),
        [
            ({"reset_vector": 0xC1F5}, None, "it starts at 0x0000C1F4"),
            ({"reset_vector": 0xC1F5}, 0xC000, ""),
            ({"reset_vector": 0xC1F5, "load_address": 0xC000}, None, ""),
            ({"reset_vector": 0xC1F4}, None, ""),
            ({}, None, ""),
        ],
        ids=["unknown", "run_address", "load address", "not of a Cortex-M", "not seen"],
    )
    def test_what_is_not_checked(self, keys: dict[str, int], run_address: int | None, said: str) -> None:
        found = self.application(run_address=run_address).slot(target(**keys)).unchecked
        assert said in found
        assert bool(found) == bool(said)

    @pytest.mark.parametrize(
        ("keys", "run_address", "fits"),
        [
            ({"load_address": 0xC000, "reset_vector": 0xC1F5}, None, True),
            ({"load_address": 0xC000, "reset_vector": 0xC1F5}, 0xC000, True),
            ({"load_address": 0xC000, "reset_vector": 0x401F5}, None, False),
            ({"load_address": 0xC000, "reset_vector": 0xBFFF}, None, False),
            ({"load_address": 0x40000}, 0xC000, False),
        ],
    )
    def test_signed_for_elsewhere(self, keys: dict[str, int], run_address: int | None, fits: bool) -> None:
        """The load address of a header with ROM_FIXED or RAM_LOAD is where the image lies when it runs."""
        part = self.application(slot_size=0x10000, run_address=run_address)
        if fits:
            part.slot(target(**keys))
            return
        with pytest.raises(ImageWrongPart, match="load address"):
            part.slot(target(**keys))

    def test_another_image_is_too_old(self) -> None:
        radio = slot(0, "1.4.9", image=1, active=True, confirmed=True)
        part = self.application(radio)
        part.slot(target(dependencies="1>=1.4.9"))
        part.slot(target(dependencies="7>=1.4.9"))
        with pytest.raises(ImageWrongPart, match=r"needs version 1\.4\.10 of the part's image 1, which has 1\.4\.9"):
            part.slot(target(dependencies="0>=1.0.0 1>=1.4.10"))

    @pytest.mark.parametrize(("version", "fits"), [("1.0.1", True), ("1.0.0", False), ("0.9.9", False)])
    def test_a_boot_loader_that_takes_the_higher_version(self, version: str, fits: bool) -> None:
        def state(asked: dict[str, Any]) -> dict[str, Any]:
            return UNSUPPORTED if asked else {"images": [RUNNING]}

        part = flasher({STATE: state, NAMES: {"output": "x"}})
        part.connect()
        if fits:
            part.slot(target(image_version=version))
            return
        with pytest.raises(ImageWrongPart, match="would not be started"):
            part.slot(target(image_version=version))

    def test_one_that_swaps_takes_an_older_version(self) -> None:
        def state(asked: dict[str, Any]) -> dict[str, Any]:
            return {"err": {"group": 1, "rc": 8}} if asked else {"images": [RUNNING]}

        part = flasher({STATE: state, NAMES: {"output": "x"}})
        part.connect()
        part.slot(target(image_version="0.0.1"))

    def test_one_that_refuses_downgrades(self) -> None:
        part = flasher(
            {
                STATE: {"images": [RUNNING]},
                NAMES: {"output": "x"},
                BOOTLOADER: lambda asked: {"mode": 1, "no-downgrade": True} if asked else {"bootloader": "MCUboot"},
            }
        )
        part.connect()
        part.slot(target(image_version="1.0.0"))
        with pytest.raises(ImageWrongPart, match=r"takes none below 1\.0\.0"):
            part.slot(target(image_version="0.9.0"))


class TestWhereItGoes:
    def uploaded_to(self, answers: Answers, image: int) -> Any:
        part = flasher(answers, image=image)
        part.connect()
        wire = part._wire
        assert isinstance(wire, Part)
        wire.answers[1, 1] = lambda asked: {"off": len(IMAGE)}
        brought(part)
        return next(body.get("image", 0) for group, command, body in wire.asked if (group, command) == (1, 1))

    @pytest.mark.parametrize(("image", "wanted"), [(0, 0), (1, 3), (2, 5)])
    def test_recovery_counts_slots(self, image: int, wanted: int) -> None:
        assert self.uploaded_to({STATE: {"images": []}}, image) == wanted

    @pytest.mark.parametrize(("image", "wanted"), [(0, 0), (1, 7)])
    def test_an_application_names_the_image_of_a_slot(self, image: int, wanted: int) -> None:
        running = [slot(0, "1.0.0", image=0, active=True), slot(2, "1.0.0", image=1, active=True)]
        infos = [
            {"image": 0, "slots": [{"slot": 0, "size": 9}, {"slot": 1, "size": 9999, "upload_image_id": 0}]},
            {"image": 1, "slots": [{"slot": 2, "size": 9}, {"slot": 3, "size": 9999, "upload_image_id": 7}]},
        ]
        answers = {STATE: {"images": running}, NAMES: {"output": "x"}, SLOTS: {"images": infos}}
        assert self.uploaded_to(answers, image) == wanted

    def test_without_slot_info_the_image_s_own_number(self) -> None:
        running = [slot(0, "1.0.0", image=1, active=True)]
        assert self.uploaded_to({STATE: {"images": running}, NAMES: {"output": "x"}}, 1) == 1

    def test_the_largest_image_is_smaller_than_its_slot(self) -> None:
        infos = [{"image": 0, "max_image_size": 7000, "slots": [{"slot": 1, "size": 8192, "upload_image_id": 0}]}]
        part = flasher({STATE: {"images": [RUNNING]}, NAMES: {"output": "x"}, SLOTS: {"images": infos}})
        part.connect()
        assert part.slot().size == 7000

    def test_what_is_listed_is_not_what_was_wanted(self) -> None:
        part = flasher({STATE: {"images": [RUNNING]}, NAMES: {"output": "x"}})
        part.connect()
        with pytest.raises(VerifyMismatch, match=r"it has slot 0: 1\.0\.0 active confirmed 0000"):
            part.verdict(IMAGE)


class TestAfterTheReset:
    @pytest.mark.parametrize(
        ("state", "words"),
        [
            (TOO_LONG, r"does not tell which image it runs: EMSGSIZE \(rc 7\)"),
            (UNSUPPORTED, r"does not tell which image it runs: ENOTSUP \(rc 8\)"),
            ({"images": [RUNNING]}, r"runs 1\.0\.0 active confirmed"),
        ],
    )
    def test_another_image_runs(self, monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], words: str) -> None:
        monkeypatch.setattr(smp_restart, "RESET_SECONDS", 0)
        waiting = slot(1, "2.0.0", parse(IMAGE).hash, pending=True)
        answers: Answers = {STATE: {"images": [RUNNING, waiting]}, NAMES: {"output": "x"}}

        def restart(asked: dict[str, Any]) -> dict[str, Any]:
            answers[STATE] = state
            return {}

        answers[0, 5] = restart
        part = flasher(answers)
        part.connect()
        brought(part)
        with pytest.raises(VerifyMismatch, match=words):
            part.activate(IMAGE)

    @pytest.mark.parametrize("state", [TOO_LONG, UNSUPPORTED])
    @pytest.mark.parametrize("pending", [False, True])
    def test_after_recovery_one_that_can_not_tell(
        self, monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], pending: bool
    ) -> None:
        """It is the image that recovery took, unless another one waits to be tried."""
        monkeypatch.setattr(smp_restart, "RESET_SECONDS", 0)
        images = [{"slot": 0, "version": "2.0.0", "hash": parse(IMAGE).hash}, {"slot": 1, "version": "3.0.0"}]
        images[1]["pending"] = pending
        answers: Answers = {STATE: {"images": images}}

        def restart(asked: dict[str, Any]) -> dict[str, Any]:
            answers.update({STATE: state, NAMES: {"output": "x"}})
            return {}

        answers[0, 5] = restart
        part = flasher(answers)
        assert part.connect().details["mode"] == "recovery"
        brought(part)
        if pending:
            with pytest.raises(VerifyMismatch, match="does not tell which image it runs"):
                part.activate(IMAGE)
            return
        part.activate(IMAGE)


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 64) - 1),
        st.floats(),
        st.text(max_size=8),
        st.binary(max_size=40),
        st.sampled_from(["1.0.0", "9999999999.1", 0, 1, 4096]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(
                ["images", "slots", "slot", "image", "size", "version", "hash", "active", "pending", "confirmed", "rc",
                 "err", "group", "output", "mode", "buf_size", "buf_count", "bootloader", "max_image_size", "off"]
            ),
            inner,
            max_size=6,
        ),
    ),
    max_leaves=12,
)  # fmt: skip
BODIES = VALUES.filter(lambda value: isinstance(value, dict))


@settings(max_examples=200, deadline=None)
@given(
    answers=st.dictionaries(st.sampled_from([ECHO, PARAMETERS, NAMES, BOOTLOADER, STATE, SLOTS, (1, 1)]), BODIES),
    image=st.integers(0, 2),
)
def test_whatever_it_says(answers: Answers, image: int) -> None:
    def tried(action: Callable[[], Any]) -> None:
        with suppress(ProxyflashError):
            action()

    part = flasher(answers, image=image)
    identity = part.connect()
    assert all(isinstance(value, str) and value.isprintable() for value in identity.details.values())
    assert part.slot().size >= 1
    tried(lambda: part.slot(target(dependencies="0>=1.0.0 1>=1.0.0", reset_vector=1)))
    tried(lambda: part.verdict(IMAGE))
    if part._slots.recovery:
        tried(lambda: brought(part))


def test_a_sight_asks_and_changes_nothing() -> None:
    part = Part({STATE: {"images": [RUNNING]}, NAMES: {"output": "x"}})

    class Flasher(SmpFlasher):
        @classmethod
        def _wire_on(cls, bus: Any, profile: SmpProfile) -> Any:
            return bus

    seen = Flasher.probe(part, SmpAddress(), SmpProfile(), active=False, deadline=Deadline.after(5))
    assert seen is not None
    assert (seen.state, seen.identity.version) == (State.RUNNING, "1.0.0")
    # Echo is a write by its op, and changes nothing; all others read.
    assert {(group, command) for group, command, _ in part.asked} <= {ECHO, PARAMETERS, NAMES, BOOTLOADER, STATE, SLOTS}
    assert all(not body for group, command, body in part.asked if (group, command) == STATE)


def test_a_wish_whose_reply_was_lost_is_not_refused_the_second_time() -> None:
    """IMG_MGMT_ERR_IMAGE_ALREADY_PENDING is 28 (Zephyr, img_mgmt.h)."""
    client = SmpClient(SmpLink(Part({STATE: {"err": {"group": 1, "rc": 28}}}), 1.0))
    assert client.set_state(bytes(32), confirm=False)
    with pytest.raises(PartRefused):
        client.set_state(bytes(32), confirm=True)
