"""The emulated SMP part, request by request as Zephyr's and MCUboot's documents have them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.emulators.device import BadDevice
from proxyflash.emulators.serial.board import Stage
from proxyflash.tests.emulators.smp_lab import IMAGE, NEW, OLD, OS, QUESTION, READ, WRITE, Rig, framed, image, packet
from proxyflash.tests.rigs import rigs

EINVAL, EBADSTATE, EMSGSIZE, ENOTSUP, TOO_NEW = 3, 6, 7, 8, 13
NO_FREE_SLOT, INVALID_HEADER_MAGIC, TOO_LARGE, OVERRUN, IS_NEWER, PENDING, NO_HASH = 9, 23, 30, 31, 27, 28, 8
"""mcumgr_err_t and img_mgmt_err_code_t."""


make_rig = rigs(Rig)


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


def err(code: int) -> dict[str, Any]:
    return {"err": {"group": IMAGE, "rc": code}}


class TestOs:
    @pytest.mark.parametrize("op", [READ, WRITE])
    def test_echo(self, rig: Rig, op: int) -> None:
        assert rig.ask(op, OS, 0, {"d": "hello"}) == {"r": "hello"}

    def test_an_answer_that_is_too_long(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(buf_size=64)
        assert rig.ask(WRITE, OS, 0, {"d": "x" * 40}) == {"r": "x" * 40}
        assert rig.ask(READ, IMAGE, 0) == {"rc": EMSGSIZE}

    def test_parameters(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(buf_size=1024, buf_count=2)
        assert rig.ask(READ, OS, 6) == {"buf_size": 1024, "buf_count": 2}

    def test_what_it_is(self, rig: Rig) -> None:
        assert rig.ask(READ, OS, 7) == {"output": "Zephyr"}
        assert rig.ask(READ, OS, 7, {"format": "in"}) == {"output": "imu acme_s1"}
        assert rig.ask(READ, OS, 7, {"format": "?"}) == {"err": {"group": OS, "rc": 2}}

    @pytest.mark.parametrize(("mode", "number"), [("swap", 1), ("overwrite", 2), ("highest", 6)])
    def test_its_loader(self, make_rig: Callable[..., Rig], mode: str, number: int) -> None:
        rig = make_rig(mode=mode)
        assert rig.ask(READ, OS, 8) == {"bootloader": "MCUboot"}
        assert rig.ask(READ, OS, 8, {"query": "mode"}) == {"mode": number}
        assert rig.ask(READ, OS, 8, {"query": "colour"}) == {"err": {"group": OS, "rc": 3}}

    def test_what_it_has_not(self, rig: Rig) -> None:
        assert rig.ask(READ, 9, 0) == {"rc": ENOTSUP}
        assert rig.ask(READ, OS, 5) == {"rc": ENOTSUP}

    def test_the_version_of_an_answer(self, rig: Rig) -> None:
        for version in (0, 1):
            rig.ask(READ, OS, 6, version=version)
            assert rig.version == version
        assert rig.ask(READ, OS, 6, version=2) == {"rc": TOO_NEW}
        assert rig.version == 1

    def test_an_old_build(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(build="old")
        assert rig.ask(WRITE, OS, 0, {"d": "hello"}) == {"r": "hello"}
        assert rig.version == 0
        assert rig.upload(rig.image(NEW))["rc"] == 0
        assert rig.ask(WRITE, IMAGE, 5) == {"rc": 0}
        for group, command in ((OS, 6), (OS, 8), (IMAGE, 6)):
            assert rig.ask(READ, group, command) == {"rc": ENOTSUP}
        assert rig.ask(WRITE, IMAGE, 0, {"hash": bytes(32)}) == {"rc": 1}

    def test_maps_of_indefinite_length(self, rig: Rig) -> None:
        """As Zephyr's encoder makes them: RFC 8949, 3.2."""
        rig.send(packet(READ, OS, 6, b"\xa0"))
        assert rig.take()[8:].hex() == "bf68" + b"buf_size".hex() + "19018069" + b"buf_count".hex() + "04ff"

    @pytest.mark.parametrize(
        "body", [b"\xff", b"\x83\x01\x02\x03", b"\xa1\x61d\x01", b"\xa1\x61d", b"\x1b" + b"\xff" * 8]
    )
    def test_no_map(self, rig: Rig, body: bytes) -> None:
        rig.send(packet(WRITE, OS, 0, body))
        assert rig.answer(WRITE, OS, 0) == {"rc": EINVAL}

    def test_it_doesn_t_answer_answers(self, rig: Rig) -> None:
        for op in (1, 3):
            rig.send(packet(op, OS, 0, b"\xa0"))
        rig.send(packet(WRITE, OS, 0, b"\xa0")[:-1])
        assert rig.ask(WRITE, OS, 0, {"d": "next"}) == {"r": "next"}


class TestState:
    def test_what_is_told_of_an_image(self, rig: Rig) -> None:
        assert rig.ask(READ, IMAGE, 0) == {
            "images": [
                {
                    "slot": 0,
                    "version": OLD,
                    "hash": hashlib.sha256(rig.image(OLD)[: 32 + 1000]).digest(),
                    "bootable": True,
                    "pending": False,
                    "confirmed": True,
                    "active": True,
                    "permanent": False,
                }
            ],
            "splitStatus": 0,
        }

    def test_tried_confirmed_reverted(self, rig: Rig) -> None:
        new = rig.image(NEW)
        rig.upload(new)
        assert rig.flags() == ["1.0.0: confirmed active", "2.1.0: "]
        rig.test(new)
        assert rig.flags() == ["1.0.0: confirmed active", "2.1.0: pending"]
        rig.restart()
        assert rig.flags() == ["2.1.0: active", "1.0.0: confirmed"]
        assert rig.device.application_version == NEW
        rig.restart()
        assert rig.flags() == ["1.0.0: confirmed active", "2.1.0: "]
        rig.test(new)
        rig.restart()
        rig.confirm()
        assert rig.flags() == ["2.1.0: confirmed active", "1.0.0: "]
        rig.restart()
        assert rig.flags() == ["2.1.0: confirmed active", "1.0.0: "]

    def test_for_good(self, rig: Rig) -> None:
        new = rig.image(NEW)
        rig.upload(new)
        rig.test(new, confirm=True)
        assert rig.flags() == ["1.0.0: confirmed active", "2.1.0: pending permanent"]
        rig.restart()
        assert rig.flags() == ["2.1.0: confirmed active", "1.0.0: "]

    def test_a_state_is_answered_with_the_states(self, rig: Rig) -> None:
        new = rig.image(NEW)
        rig.upload(new)
        assert rig.test(new) == rig.ask(READ, IMAGE, 0)

    def test_what_is_wished_for_can_t_be_taken_back(self, rig: Rig) -> None:
        new, old = rig.image(NEW), rig.image(OLD)
        rig.upload(new)
        rig.test(new)
        assert "images" in rig.test(new)
        assert rig.test(new, confirm=True) == err(PENDING)
        assert rig.confirm() == err(PENDING)
        assert rig.test(old, confirm=True) == err(PENDING)
        rig.restart()
        assert rig.test(old) == err(PENDING)

    def test_it_refuses(self, rig: Rig) -> None:
        assert rig.ask(WRITE, IMAGE, 0, {"hash": bytes(32)}) == err(NO_HASH)
        assert rig.ask(WRITE, IMAGE, 0, {"hash": bytes(31)}) == err(24)
        assert rig.ask(WRITE, IMAGE, 0) == err(24)
        assert rig.ask(WRITE, IMAGE, 0, version=0) == {"rc": EINVAL}
        assert rig.test(rig.image(OLD)) == err(33)
        assert "images" in rig.test(rig.image(OLD), confirm=True)

    def test_a_corrupted_image_is_listed_and_not_run(self, rig: Rig) -> None:
        """The application looks at the records, the loader at the hash."""
        new = bytearray(rig.image(NEW))
        new[500] ^= 1
        rig.upload(bytes(new))
        rig.test(bytes(new))
        rig.restart()
        assert rig.flags() == ["1.0.0: confirmed active"]

    def test_the_higher_version(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(mode="highest")
        new = rig.image(NEW)
        assert rig.upload(new, sha=hashlib.sha256(new).digest())["match"] is True
        assert rig.test(new) == {"rc": ENOTSUP}
        assert rig.flags() == ["1.0.0: confirmed active", "2.1.0: pending permanent"]
        rig.restart()
        assert rig.flags() == ["1.0.0: ", "2.1.0: confirmed active"]
        rig.upload(rig.image("3.0.0"))
        rig.restart()
        assert rig.flags() == ["3.0.0: confirmed active", "2.1.0: "]

    def test_overwritten(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("acme-o4")
        new = rig.image(NEW)
        rig.upload(new)
        rig.test(new)
        rig.restart()
        rig.restart()
        assert rig.states()[0]["version"] == NEW

    def test_an_application_that_confirms_itself(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(confirms=True)
        new = rig.image(NEW)
        rig.upload(new)
        rig.test(new)
        rig.restart()
        assert rig.flags() == ["2.1.0: confirmed active", "1.0.0: "]

    def test_two_images(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("acme-d2", buf_size=1024)
        second = rig.device.loader.pairs[1]
        rig.flash.load(second.primary.start, rig.image(OLD, size=1200))
        new = rig.image(NEW)
        rig.upload(new, image=1)
        assert rig.ask(WRITE, IMAGE, 1, {"off": 0, "data": new[:64], "len": 64, "image": 2}) == err(NO_FREE_SLOT)
        rig.test(new, confirm=True)
        rig.restart()
        listed = rig.ask(READ, IMAGE, 0)["images"]
        assert [(state["image"], state["slot"], state["version"]) for state in listed] == [
            (0, 0, OLD),
            (1, 0, NEW),
            (1, 1, OLD),
        ]

    def test_slots(self, rig: Rig) -> None:
        assert rig.ask(READ, IMAGE, 6) == {
            "images": [
                {
                    "image": 0,
                    "slots": [{"slot": 0, "size": 0x2000}, {"slot": 1, "size": 0x2000}],
                    "max_image_size": 7168,
                }
            ]
        }


class TestUpload:
    def test_it_lies_in_slot_1(self, rig: Rig) -> None:
        new = rig.image(NEW)
        sha = hashlib.sha256(new).digest()
        assert rig.upload(new, sha=sha) == {"off": len(new), "match": True}
        assert rig.pair.secondary.read(0, len(new)) == new
        assert rig.device.application_version == OLD

    def test_the_wrong_hash(self, rig: Rig) -> None:
        new = rig.image(NEW)
        assert rig.upload(new, sha=bytes(32)) == {"off": len(new), "match": False}

    def test_what_is_there_already(self, rig: Rig) -> None:
        new = rig.image(NEW)
        sha = hashlib.sha256(new).digest()
        rig.upload(new, sha=sha)
        first = {"off": 0, "data": new[:100], "len": len(new), "sha": sha}
        assert rig.ask(WRITE, IMAGE, 1, first) == {"off": len(new), "match": True}

    def test_another_offset_gets_the_one_that_is_due(self, rig: Rig) -> None:
        new = rig.image(NEW)
        assert rig.ask(WRITE, IMAGE, 1, {"off": 100, "data": b"x"}) == {"off": 0}
        assert rig.ask(WRITE, IMAGE, 1, {"off": 0, "data": new[:100], "len": len(new)}) == {"off": 100}
        for offset in (50, 200):
            assert rig.ask(WRITE, IMAGE, 1, {"off": offset, "data": new[:10]}) == {"off": 100}

    def test_it_goes_on_by_the_hash(self, rig: Rig) -> None:
        new = rig.image(NEW)
        first = {"off": 0, "data": new[:100], "len": len(new), "sha": hashlib.sha256(new).digest()}
        rig.ask(WRITE, IMAGE, 1, first)
        rig.ask(WRITE, IMAGE, 1, {"off": 100, "data": new[100:300]})
        assert rig.ask(WRITE, IMAGE, 1, first) == {"off": 300}
        assert rig.ask(WRITE, IMAGE, 1, first | {"sha": b"other"}) == {"off": 100}

    def test_a_reset_forgets_it(self, rig: Rig) -> None:
        new = rig.image(NEW)
        first = {"off": 0, "data": new[:100], "len": len(new), "sha": hashlib.sha256(new).digest()}
        rig.ask(WRITE, IMAGE, 1, first)
        rig.restart()
        assert rig.ask(WRITE, IMAGE, 1, {"off": 100, "data": new[100:200]}) == {"off": 0}

    def test_the_last_chunk_again(self, rig: Rig) -> None:
        """Nothing is under way any more: the offset goes back to 0, though all of it is there."""
        new = rig.image(NEW)
        rig.upload(new)
        assert rig.ask(WRITE, IMAGE, 1, {"off": len(new) - 10, "data": new[-10:]}) == {"off": 0}

    @pytest.mark.parametrize(
        ("changed", "code"),
        [
            ({"len": 7169}, TOO_LARGE),
            ({"data": bytes(100)}, INVALID_HEADER_MAGIC),
            ({"data": b"short"}, 22),
            ({"sha": bytes(33)}, 24),
            ({"len": None}, 21),
            ({"off": None}, 20),
            ({"len": 99}, OVERRUN),
        ],
    )
    def test_it_refuses(self, rig: Rig, changed: dict[str, Any], code: int) -> None:
        first = {"off": 0, "data": rig.image(NEW)[:100], "len": 2000, **changed}
        first = {key: value for key, value in first.items() if value is not None}
        assert rig.ask(WRITE, IMAGE, 1, first) == err(code)

    def test_upgrades_alone(self, rig: Rig) -> None:
        for version, code in (("0.9.0", IS_NEWER), (OLD, IS_NEWER)):
            data = rig.image(version)
            first = {"off": 0, "data": data[:100], "len": len(data), "upgrade": True}
            assert rig.ask(WRITE, IMAGE, 1, first) == err(code)
            assert rig.ask(WRITE, IMAGE, 1, first, version=0) == {"rc": EBADSTATE}
        rig.upload(rig.image(NEW), upgrade=True)

    def test_no_slot_is_free(self, rig: Rig) -> None:
        new = rig.image(NEW)
        first = {"off": 0, "data": new[:100], "len": len(new)}
        rig.upload(new)
        rig.test(new)
        assert rig.ask(WRITE, IMAGE, 1, first) == err(NO_FREE_SLOT)
        assert rig.ask(WRITE, IMAGE, 5) == err(NO_FREE_SLOT)
        rig.restart()
        assert rig.ask(WRITE, IMAGE, 1, first) == err(NO_FREE_SLOT)
        rig.confirm()
        assert rig.ask(WRITE, IMAGE, 1, first) == {"off": 100}

    def test_erase(self, rig: Rig) -> None:
        rig.upload(rig.image(NEW))
        assert rig.ask(WRITE, IMAGE, 5) == {}
        assert rig.pair.secondary.is_blank()
        assert rig.ask(WRITE, IMAGE, 5, {"slot": 0}) == err(NO_FREE_SLOT)
        assert rig.ask(WRITE, IMAGE, 5, {"slot": 2}) == err(14)

    @pytest.mark.parametrize("progressive", [False, True])
    def test_over_something_else(self, make_rig: Callable[..., Rig], progressive: bool) -> None:
        rig = make_rig(progressive_erase=progressive)
        rig.flash.load(rig.pair.secondary.start, b"\x5a" * 0x2000)
        new = rig.image(NEW)
        erased: list[int] = []
        rig.flash.busy = lambda seconds: erased.append(rig.flash.erases)
        first = {"off": 0, "data": new[:100], "len": len(new)}
        rig.ask(WRITE, IMAGE, 1, first)
        assert rig.flash.erases == (0 if progressive else 5)
        rig.upload(new)
        rig.test(new)
        rig.restart()
        assert rig.device.application_version == NEW

    @pytest.mark.parametrize("chunk", [33, 100, 255])
    def test_chunks_of_any_length(self, rig: Rig, chunk: int) -> None:
        """They go through a buffer; it writes whole program units."""
        new = rig.image(NEW)
        rig.upload(new, chunk=chunk)
        assert rig.pair.secondary.read(0, len(new)) == new

    def test_more_requests_than_buffers(self, make_rig: Callable[..., Rig]) -> None:
        """Those that come while all are in use are lost."""
        for count, answered in ((1, 1), (4, 4)):
            rig = make_rig(buf_count=count)
            requests = [packet(WRITE, OS, 0, cbor2.dumps({"d": "hi"}), sequence=number) for number in range(8)]
            rig.port.write(b"".join(map(framed, requests)))
            for number in range(answered):
                assert rig.answer(WRITE, OS, 0, sequence=number) == {"r": "hi"}
            assert rig.ask(WRITE, OS, 0, {"d": "after"}) == {"r": "after"}


class TestRecovery:
    def test_a_blank_part(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(blank=True)
        assert rig.device.application_version is None
        assert rig.board.stage is Stage.LOADER
        assert rig.ask(READ, IMAGE, 0) == {"images": []}
        new = rig.image(NEW)
        rig.upload(new)
        assert rig.pair.primary.read(0, len(new)) == new
        rig.restart()
        assert rig.device.application_version == NEW

    def test_what_it_tells(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(recovery=True)
        assert rig.ask(WRITE, OS, 0, {"d": "hello"}) == {"r": "hello"}
        assert rig.ask(READ, OS, 6) == {"buf_size": 1024, "buf_count": 1}
        assert rig.ask(WRITE, OS, 1) == {"rc": 0}
        found = rig.ask(READ, IMAGE, 0)["images"]
        assert found == [{"bootable": True, "confirmed": True, "slot": 0, "hash": rig.image(OLD)[-32:], "version": OLD}]
        assert rig.ask(READ, IMAGE, 6)["images"][0]["slots"][0]["upload_image_id"] == 0
        assert rig.ask(WRITE, IMAGE, 5) == {"rc": ENOTSUP}

    def test_an_old_build(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(recovery=True, build="old")
        assert rig.ask(READ, IMAGE, 0) == {"images": [{"slot": 0, "version": OLD}]}
        for op, group, command in ((WRITE, OS, 0), (READ, OS, 6), (WRITE, IMAGE, 0), (READ, IMAGE, 6)):
            assert rig.ask(op, group, command) == {"rc": ENOTSUP}

    def test_what_is_left_of_a_program_unit_is_asked_for_again(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(blank=True)
        new = rig.image(NEW, size=1003)
        first = {"off": 0, "data": new[:100], "len": len(new)}
        assert rig.ask(WRITE, IMAGE, 1, first) == {"rc": 0, "off": 96}
        assert rig.upload(new, chunk=100)["off"] == len(new)
        assert rig.pair.primary.read(0, len(new)) == new
        assert rig.ask(WRITE, IMAGE, 1, {"off": len(new), "data": b"beyond"}) == {"rc": EINVAL}

    @pytest.mark.parametrize("progressive", [False, True])
    def test_over_an_image(self, make_rig: Callable[..., Rig], progressive: bool) -> None:
        rig = make_rig(recovery=True, progressive_erase=progressive)
        rig.upload(rig.image(NEW))
        rig.board._pins = type(rig.board._pins)()
        rig.restart()
        assert rig.device.application_version == NEW

    @pytest.mark.parametrize(
        "changed", [{"len": None}, {"len": 7169}, {"off": None}, {"data": None}, {"image": 1}, {"len": 99}]
    )
    def test_it_refuses(self, make_rig: Callable[..., Rig], changed: dict[str, Any]) -> None:
        rig = make_rig(blank=True)
        first = {"off": 0, "data": bytes(100), "len": 2000, **changed}
        first = {key: value for key, value in first.items() if value is not None}
        assert rig.ask(WRITE, IMAGE, 1, first) == {"rc": EINVAL}

    def test_a_state_is_set(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig()
        new = rig.image(NEW)
        rig.upload(new)
        rig.restart(boot_mode=1)
        assert rig.board.stage is Stage.LOADER
        assert rig.test(rig.image(OLD)) == {"rc": EINVAL}
        assert rig.test(rig.image("9.9.9")) == {"rc": 5}
        rig.test(new)
        assert rig.flags() == ["1.0.0: confirmed", "2.1.0: pending"]
        assert rig.test(new) == {"rc": EBADSTATE}
        rig.restart()
        assert rig.flags() == ["2.1.0: active", "1.0.0: confirmed"]

    def test_it_is_entered_by_request_once(self, rig: Rig) -> None:
        rig.restart(boot_mode=1)
        assert rig.board.stage is Stage.LOADER
        rig.restart()
        assert rig.device.application_version == OLD

    def test_by_the_pins(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(wiring="dtr-reset,!rts-recovery")
        rig.port.rts = True
        starts = rig.board.starts
        rig.port.dtr = True
        rig.port.dtr = False
        rig.started(starts)
        assert rig.board.stage is Stage.LOADER
        rig.port.rts = False
        starts = rig.board.starts
        rig.port.dtr = True
        rig.port.dtr = False
        rig.started(starts)
        assert rig.device.application_version == OLD

    def test_within_a_window_after_the_reset(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(recovery_wait=600)
        assert rig.ask(READ, OS, 6) == {"buf_size": 1024, "buf_count": 1}
        rig = make_rig(recovery_wait=0.01)
        with rig.board.changed:
            assert rig.board.changed.wait_for(lambda: rig.board.stage is Stage.APPLICATION, 30)

    def test_a_part_without(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(blank=True, serial_recovery=False)
        assert rig.board.stage is Stage.HUNG
        rig = make_rig(serial_recovery=False)
        rig.restart(boot_mode=1)
        assert rig.device.application_version == OLD


class TestLine:
    @pytest.mark.parametrize("framing", ["console", "raw"])
    def test_framings(self, make_rig: Callable[..., Rig], framing: str) -> None:
        rig = make_rig(framing=framing)
        new = rig.image(NEW)
        rig.upload(new)
        rig.test(new)
        rig.restart()
        assert rig.device.application_version == NEW

    def test_raw_packets_fill_the_buffer(self, make_rig: Callable[..., Rig]) -> None:
        """8 bytes of header, 6 of the map and its key and lengths; a byte more, and the answer doesn't fit."""
        rig = make_rig(framing="raw", buf_size=100)
        assert rig.ask(WRITE, OS, 0, {"d": "x" * 86}) == {"r": "x" * 86}
        assert rig.ask(WRITE, OS, 0, {"d": "x" * 87}) == {"rc": EMSGSIZE}

    def test_half_a_raw_packet(self, make_rig: Callable[..., Rig]) -> None:
        """It is given up after a silence; what comes sooner is taken for the rest of it."""
        rig = make_rig(framing="raw")
        rig.port.write(packet(WRITE, OS, 0, cbor2.dumps({"d": "hello"}))[:10])
        rig.port.timeout = 1
        for _ in range(20):
            with suppress(AssertionError):
                assert rig.ask(WRITE, OS, 0, {"d": "again"}) == {"r": "again"}
                break
        else:
            pytest.fail("it never gives it up")

    def test_a_log_amid(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(log="lines")
        rig.restart()
        assert b"Booting MCUboot" in rig.text + rig.port.read(rig.port.in_waiting)
        rig.ask(READ, IMAGE, 0)
        assert b"<inf> mcumgr: request handled\r\nuart:~$ " in rig.text
        assert b"<wrn> sensor: late\r\n" in rig.text

    def test_a_log_within(self, make_rig: Callable[..., Rig]) -> None:
        """Every fifth line is spoiled by it, and its answer lost."""
        rig = make_rig(log="torn")
        rig.port.timeout = 1
        answered = []
        for number in range(10):
            try:
                answered.append(rig.ask(WRITE, OS, 0, {"d": str(number)}) == {"r": str(number)})
            except (AssertionError, ValueError):
                answered.append(False)
        assert answered == [True, True, True, True, False] * 2

    def test_the_question(self, rig: Rig) -> None:
        rig.port.write(QUESTION["send"].encode())
        assert rig.port.read_until(b"\n") == b"FW 1.0.0\r\n"
        rig.port.write(b"VE")
        assert rig.ask(WRITE, OS, 0, {"d": "amid"}) == {"r": "amid"}
        rig.port.write(b"R?\r")
        assert rig.port.read_until(b"\n") == b"FW 1.0.0\r\n"

    def test_no_question_in_recovery(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(blank=True)
        rig.port.write(QUESTION["send"].encode())
        assert rig.ask(READ, IMAGE, 0) == {"images": []}
        assert rig.text == b""

    def test_quiet_resets(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(quiet_reset=True)
        starts = rig.board.starts
        rig.send(packet(WRITE, OS, 5, b"\xa0"))
        rig.started(starts)
        assert rig.port.in_waiting == 0

    def test_mute(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(mute=True)
        rig.send(packet(WRITE, OS, 0, b"\xa0"))
        assert rig.board.stage is Stage.HUNG


class TestLayout:
    """An image for another layout is whole, so MCUboot starts it, and it crashes."""

    BAD = image(NEW, start=0x40000)

    def test_the_reset_line_brings_the_old_one_back(self, rig: Rig) -> None:
        bad = self.BAD
        rig.upload(bad)
        rig.test(bad)
        starts = rig.board.starts
        rig.ask(WRITE, OS, 5)
        rig.started(starts)
        assert rig.board.stage is Stage.HUNG
        assert rig.device.application_version is None
        rig.pull_reset()
        assert rig.device.application_version == OLD

    def test_a_watchdog_does_too(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(watchdog=2.0)
        bad = self.BAD
        rig.upload(bad)
        rig.test(bad)
        starts = rig.board.starts
        rig.ask(WRITE, OS, 5)
        rig.started(starts + 1)
        assert rig.device.application_version == OLD


class TestPower:
    def test_the_flash_outlives_the_process(self, make_rig: Callable[..., Rig], tmp_path: Path) -> None:
        rig = Rig(folder=tmp_path)
        new = rig.image(NEW)
        rig.upload(new)
        rig.test(new, confirm=True)
        rig.close()
        again = make_rig(folder=tmp_path)
        assert again.device.application_version == NEW

    def test_off_and_on(self, rig: Rig) -> None:
        new = rig.image(NEW)
        rig.upload(new)
        rig.test(new)
        rig.device.supply.off()
        with rig.board.changed:
            assert rig.board.changed.wait_for(lambda: rig.board.stage is Stage.OFF, 30)
        assert rig.device.application_version is None
        rig.device.supply.on()
        rig.board.settle()
        assert rig.device.application_version == NEW

    def test_cut_anywhere_in_an_upload(self, make_rig: Callable[..., Rig]) -> None:
        """The old image runs, whatever the slot holds, and a new upload ends well."""
        operation = 0
        rig = make_rig()
        while True:
            operation += 7
            new = rig.image(NEW)
            rig.device.supply.cut_at(operation)
            rig.port.timeout = 0.2
            try:
                rig.upload(new)
            except AssertionError:
                assert not rig.device.supply.is_on
            else:
                rig.device.supply.cut_at(None)
                break
            rig.port.timeout = 5
            rig.device.supply.on()
            rig.board.settle()
            rig.port.reset_input_buffer()
            assert rig.device.application_version == OLD
            rig.upload(new)
            assert rig.pair.secondary.whole_image() is not None
            rig.ask(WRITE, IMAGE, 5)
        assert operation > 60


class TestSettings:
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("part", "esp32"),
            ("mode", "sideways"),
            ("framing", "cobs"),
            ("build", "newest"),
            ("buf_size", 63),
            ("buf_size", "384"),
            ("buf_count", 0),
            ("buf_count", True),
            ("log", "loud"),
            ("wiring", "dtr-boot0"),
            ("watchdog", -1),
            ("colour", "red"),
        ],
    )
    def test_it_refuses(self, key: str, value: Any) -> None:
        with pytest.raises(BadDevice) as caught:
            Rig(**{"part": "acme-s1", key: value})
        assert caught.value.key == key


@given(st.lists(st.one_of(st.binary(max_size=60), st.builds(framed, st.binary(min_size=1, max_size=60)))))
@settings(max_examples=40, deadline=None)
def test_anything_may_come(pieces: list[bytes]) -> None:
    """It goes on answering, whatever came before; a request that finds no buffer free is sent again."""
    rig = Rig()
    rig.port.write(b"".join(pieces) + b"\n")
    rig.port.timeout = 0.5
    for _ in range(20):
        rig.send(packet(READ, OS, 6, b"\xa0", sequence=201))
        with suppress(AssertionError):
            while (data := rig.take())[6] != 201:
                pass
            break
    else:
        pytest.fail("it answers no more")
    assert cbor2.loads(data[8:])["buf_count"] == 4
    rig.close()
