"""What a bench file says of an ECU: its address, its maker's variations, and the key function by name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers.errors import ProfileWrong
from proxyflash.flashers.keys.making import key_function, xor_key
from proxyflash.flashers.memory import Erase, EraseRun, Write
from proxyflash.flashers.uds.keys import keys_of
from proxyflash.flashers.uds.profile import UdsAddress, UdsProfile
from proxyflash.tests.users import NOBODY, needs_root
from proxyflash.transports.can.bus import CanId
from proxyflash.transports.isotp.opening import Addressing
from pydantic import ValidationError


class TestAddress:
    def test_the_response_is_eight_above_and_all_ecus_listen_to_7df(self) -> None:
        """ISO 15765-4, 11-bit ids."""
        address = UdsAddress(request=0x7E0)
        assert address.isotp().ids() == (CanId(0x7E0), CanId(0x7E8))
        assert address.functional_id() == CanId(0x7DF)

    def test_normal_fixed(self) -> None:
        """ISO 15765-2:2016, 10.3.4: 0x18DA, N_TA, N_SA; functional 0x18DB. ISO 15765-4: 0x18DB33F1."""
        address = UdsAddress(addressing=Addressing.NORMAL_FIXED, target=0x10)
        assert address.isotp().ids() == (CanId(0x18DA10F1, True), CanId(0x18DAF110, True))
        assert address.functional_id() == CanId(0x18DB33F1, True)

    def test_extended(self) -> None:
        address = UdsAddress(addressing=Addressing.EXTENDED, request=0x600, response=0x601, target=0x12, source=0xF0)
        where = address.isotp()
        assert where.ids() == (CanId(0x600), CanId(0x601))
        assert (where.target, where.source) == (0x12, 0xF0)
        assert address.functional_id() is None

    @pytest.mark.parametrize(("request_", "wide"), [(0x7FF, False), (0x800, True), (0x18DA10F1, True)])
    def test_29_bit_ids_are_known_by_their_size(self, request_: int, wide: bool) -> None:
        assert UdsAddress(request=request_, response=0x7E8).isotp().request == CanId(request_, wide)

    def test_or_said_to_be(self) -> None:
        assert UdsAddress(request=0x7E0, extended_ids=True).isotp().request == CanId(0x7E0, True)

    @pytest.mark.parametrize(
        ("keys", "told"),
        [
            ({}, "request is missing"),
            ({"addressing": "normal-fixed"}, "needs target"),
            ({"addressing": "extended", "request": 1, "response": 2}, "needs target"),
            ({"addressing": "normal-fixed", "target": 1, "request": 5}, "request follows from target and source"),
            ({"addressing": "extended", "request": 1, "target": 2, "functional": 3}, "functional requests are for"),
            ({"request": 0x800, "extended_ids": False}, "more than 11 bits"),
            ({"request": -1}, "greater than or equal to 0"),
            ({"request": 1 << 29}, "less than or equal to"),
            ({"request": 1, "reply": 2}, "Extra inputs"),
            ({"request": 1, "addressing": "mixed"}, "'normal', 'normal-fixed' or 'extended'"),
        ],
    )
    def test_what_does_not_hold_is_told(self, keys: dict[str, Any], told: str) -> None:
        with pytest.raises(ValidationError, match=told):
            UdsAddress.model_validate(keys)


REGION = {"start": 0x10000, "size": 0x8000, "erase_unit": 0x1000}


KEYS = (
    *UdsProfile.keys_declared, *UdsAddress.keys_declared, "start", "size", "erase_unit", "level", "key", "secret",
    "erase", "check", "p2", "tx_dl", "padding", "data", "identifier", "version",
)  # fmt: skip


class TestProfile:
    def test_an_empty_one_holds(self) -> None:
        assert UdsProfile.model_validate({}).routines.erase == 0xFF00

    @pytest.mark.parametrize(
        ("keys", "told"),
        [
            ({"memory": [{"start": 0, "size": 0}]}, "greater than 0"),
            ({"memory": [{"start": 0, "size": 100, "erase_unit": 64}]}, "not a multiple of erase_unit"),
            ({"memory": [{"start": 0, "size": 96, "write_alignment": 3}]}, "power of two"),
            ({"memory": [{"start": 0, "size": 96, "write_alignment": 64}]}, "power of two that divides"),
            ({"memory": [{"start": 4, "size": 64, "write_alignment": 8}]}, "start must be a multiple"),
            ({"memory": [REGION, {**REGION, "start": 0x17000}]}, "overlap"),
            ({"memory": [REGION], "address_length": 1}, "beyond 1 bytes of address"),
            ({"memory": [REGION], "address_length": 2}, "beyond 2 bytes of address"),
            ({"memory": [REGION], "size_length": 1}, "does not fit 1 bytes of size"),
            (
                {"memory": [REGION, {**REGION, "start": 0x20000}], "routines": {"erase_parameters": []}},
                "an address or a region",
            ),
            ({"security": {"level": 2}}, "level must be odd"),
            ({"security": {"level": 0x7F}}, "less than or equal to 125"),
            ({"security": {"key": "xor"}}, "needs a secret"),
            ({"security": {"key": "os.system"}}, "or a Python function"),
            ({"security": {"secret": "zz"}}, "hexadecimal bytes in quotes, two digits each, such as 'DE AD BE EF'"),
            ({"security": {"secret": 0x5A5A5A5A}}, "hexadecimal bytes in quotes, two digits each"),
            ({"routines": {"erase": 0x10000}}, "less than or equal to 65535"),
            ({"routines": {"erase": "off"}}, "'none'"),
            ({"routines": {"erase_parameters": ["length"]}}, "'alfi', 'address'"),
            ({"timings": {"p2": 0}}, "greater than 0"),
            ({"timings": {"retries": -1}}, "greater than or equal to 0"),
            ({"iso_tp": {"tx_dl": 9}}, "8, 12, 16"),
            ({"iso_tp": {"tx_dl": 12, "fd": False}}, "tx_dl = 12 is for CAN FD frames"),
            ({"iso_tp": {"padding": 256}}, "less than or equal to 255"),
            ({"fingerprint": {}}, "Field required"),
            ({"block_limit": 2}, "greater than or equal to 3"),
            ({"read": "all"}, "'none', 'memory' or 'upload'"),
            ({"colour": 1}, "Extra inputs"),
            ({"routines": {"check_parameters": ["crc32", "0"]}}, "'crc16-arc', or bytes in hexadecimal"),
            ({"order": ["programming", "key"]}, "needs 'download' once"),
            ({"order": ["programming", "download", "erase"]}, "'erase' has to come before 'download'"),
            ({"order": ["programming", "download", "flash"]}, "'flash', which is none of extended, "),
            ({"order": ["programming", ["download"]]}, "begins with 'for each region' or 'for each segment'"),
            ({"order": ["programming", ["for each segment", "erase", "download"]]}, "not for each segment"),
            ({"order": ["programming", ["for each region", "key", "download"]]}, "it is done once"),
            ({"order": ["erase", "programming", "download"]}, "'erase' has to come after 'programming'"),
            ({"order": ["programming", "download"], "security": {"key": "a:b"}}, "the order has no 'key'"),
            ({"order": ["programming", "download"], "fingerprint": {"data": "01"}}, "no 'fingerprint'"),
            ({"order": ["programming", "download"], "driver": {"start": 0, "size": 1}}, "no 'driver'"),
            ({"memory": [REGION], "driver": {"start": 0x17FFF, "size": 1}}, "driver and memory region 'flash' overlap"),
            ({"driver": {"start": 0xFFFF_FFFF, "size": 2}}, "driver ends beyond 4 bytes"),
            ({"driver": {"start": 0, "size": 2, "check_parameters": ["signature"]}}, "needs driver.signature"),
            ({"memory": [REGION], "transfer_exit": ["signature"]}, "needs a signature in each memory region"),
            ({"memory": [{**REGION, "announce": 9}]}, "leave erase_unit out"),
            ({"memory": [{"start": 0, "size": 9, "announce": 9}], "read": "memory"}, "leave read out"),
            ({"address_by": "id", "read": "memory"}, "leave read or address_by out"),
            ({"address_by": "id", "memory": [REGION, {**REGION, "start": 0x20000}]}, "an id of its own"),
            ({"steps": [{"name": "a", "write": 1, "data": "00"}]}, "steps.a is not in the order"),
            ({"steps": [{"name": "a"}]}, "one of session, level, routine, write and request"),
            ({"steps": [{"name": "a", "routine": 1, "data": "00"}]}, "data goes with write"),
            ({"steps": [{"name": "a", "write": 1}]}, "write needs data"),
            ({"steps": [{"name": "a", "level": 2}]}, "level must be odd"),
            ({"steps": [{"name": "key", "session": 2}], "order": ["key", "programming", "download"]}, "name is taken"),
            ({"security": {"key": "library"}}, "goes with the table library"),
            ({"security": {"library": {"file": "a.so"}}}, "goes with the table library"),
            ({"reset": 0x80}, "it takes a resetType, such as 0x01"),
            ({"communication_off": "03"}, "two bytes, controlType and communicationType, such as '03 01'"),
            ({"timings": {"settle": 5}}, r"settle \(5 s\) has to be shorter than s3 \(5 s\)"),
            ({"steps": [{"name": "a", "routine": 1, "functional": True}]}, "functional goes with session or request"),
            ({"steps": [{"name": "a", "request": "2E F1 5A 01 02 03 04 05", "functional": True}]}, "fit one frame"),
            (
                {
                    "steps": [{"name": "a", "request": "14 FF FF FF", "functional": True}],
                    "order": ["programming", "download", "reset", "a"],
                },
                "step 'a' goes to all ECUs, and functional of the profile is false",
            ),
            ({"order": ["programming", "download", "reset", "check"]}, "come after 'reset', not 'check'"),
            (
                {"order": ["programming", "download", "reset", ["for each region"]]},
                "after 'reset', not 'for each region'",
            ),
            ({"order": ["programming", "reset", "download"]}, "'download' has to come before 'reset'"),
            ({"order": ["programming", ["for each region", "download", "reset"]]}, "'reset' goes into no list"),
            ({"order": ["programming", "download", "reset", "reset"]}, "has 'reset' twice"),
            ({"routines": {"check_answer": ["crc"]}}, "'crc16-arc', or bytes in hexadecimal"),
            ({"memory": [REGION], "routines": {"check_answer": ["signature"]}}, "a signature in each memory region"),
            ({"driver": {"start": 0, "size": 2, "check_answer": ["signature"]}}, "needs driver.signature"),
            (
                {
                    "memory": [REGION],
                    "order": ["programming", ["for each region", "erase", "download"]],
                    "routines": {"erase_all": True},
                },
                "'erase' goes into no list",
            ),
        ],
    )
    def test_what_does_not_hold_is_told(self, keys: dict[str, Any], told: str) -> None:
        with pytest.raises(ValidationError, match=told):
            UdsProfile.model_validate(keys)

    def test_without_memory_there_is_no_map(self) -> None:
        with pytest.raises(ProfileWrong, match=r"names no memory.*--profile FILE"):
            UdsProfile().memory_map()

    def test_the_map_is_in_order_of_address(self) -> None:
        two = UdsProfile.model_validate({"memory": [{**REGION, "name": "b", "start": 0x30000}, {**REGION, "id": 7}]})
        regions = two.memory_map().regions
        assert [(region.name, region.start) for region in regions] == [("flash", 0x10000), ("b", 0x30000)]
        assert regions[0].units == (EraseRun(8, 0x1000),)
        assert all(region.write is Write.WHOLE_SEGMENTS and not region.readable for region in regions)
        assert (two.region_id(0x17FFF), two.region_id(0x18000)) == (7, 0)

    def test_an_ecu_that_takes_no_address_is_erased_as_a_whole(self) -> None:
        profile = UdsProfile.model_validate({"memory": [REGION], "routines": {"erase_parameters": []}})
        assert profile.memory_map().regions[0].units == (EraseRun(1, 0x8000),)

    def test_without_an_erase_routine_writing_erases(self) -> None:
        profile = UdsProfile.model_validate({"memory": [REGION], "routines": {"erase": "none"}})
        assert profile.memory_map().regions[0].erase is Erase.NEVER

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
            max_leaves=12,
        )
    )
    @settings(max_examples=300, deadline=None)
    def test_any_table_holds_or_is_refused(self, value: object) -> None:
        for model in (UdsProfile, UdsAddress):
            try:
                model.model_validate(value)
            except ValidationError:
                continue


class TestKeyFunction:
    def test_none(self) -> None:
        assert key_function("none") is None

    def test_xor(self) -> None:
        assert key_function("xor") is xor_key
        assert xor_key(bytes.fromhex("3657 3657"), bytes.fromhex("5a a5"), 1) == bytes.fromhex("6cf2 6cf2")

    def test_by_name(self, module: Callable[[str], str]) -> None:
        """The seed and key of ISO 14229-1:2020, 10.4: the key is the seed's two's complement."""
        name = module(
            "def f(seed, secret, level):\n    return (-int.from_bytes(seed, 'big') & 0xffff).to_bytes(2, 'big')"
        )
        found = key_function(f"{name}:f")
        assert found is not None
        assert found(bytes.fromhex("3657"), b"", 1) == bytes.fromhex("c9a9")

    @pytest.mark.parametrize(
        ("source", "told"),
        [
            ("f = 5", "is not a function"),
            ("g = 5", "has no attribute 'f'"),
            ("raise OSError('no dongle')", "OSError: no dongle"),
            ("raise SystemExit(0)", "SystemExit: 0"),
            ("def f(:", "SyntaxError"),
        ],
    )
    def test_what_is_wrong_with_it(self, module: Callable[[str], str], source: str, told: str) -> None:
        with pytest.raises(ProfileWrong, match=told):
            key_function(f"{module(source)}:f")

    def test_a_module_that_is_not_there(self) -> None:
        with pytest.raises(ProfileWrong, match="No module named 'acme_keys_not_here'"):
            key_function("acme_keys_not_here:f")

    def test_what_lies_beside_the_bench_file_is_found(self, tmp_path: Path) -> None:
        """As other files that a bench file names; a step of the maker's own has it too."""
        (tmp_path / "mykeys.py").write_text("def f(seed, secret, level):\n    return bytes(reversed(seed))\n")
        table = {
            "order": ["extended", "early", "programming", "key", "erase", "download", "check", "dependencies"],
            "security": {"key": "mykeys:f"},
            "steps": [{"name": "early", "level": 3}],
        }
        profile = UdsProfile.model_validate(table, folder=tmp_path)
        for _, found in keys_of(profile, None).values():
            assert found is not None
            assert found(b"\1\2", b"", 1) == b"\2\1"
        assert "mykeys" not in sys.modules

    def test_the_error_says_where_was_looked(self, tmp_path: Path) -> None:
        with pytest.raises(ProfileWrong, match="No module named 'acme_not_here'") as caught:
            key_function("acme_not_here.keys:f", str(tmp_path))
        for place in (f"{tmp_path}/acme_not_here/keys.py", sys.path[-1]):
            assert place in caught.value.cause

    @pytest.mark.parametrize("mode", [0o666, 0o602])
    def test_a_file_that_others_may_write_to_is_not_run(self, tmp_path: Path, mode: int) -> None:
        (tmp_path / "mykeys.py").write_text("raise AssertionError('run')")
        (tmp_path / "mykeys.py").chmod(mode)
        with pytest.raises(ProfileWrong, match="written to by others"):
            key_function("mykeys:f", str(tmp_path))

    @needs_root
    @pytest.mark.parametrize("as_link", [False, True])
    def test_a_file_or_link_of_another_user_is_not_run(self, tmp_path: Path, as_link: bool) -> None:
        there = tmp_path / ("own.py" if as_link else "mykeys.py")
        there.write_text("raise AssertionError('run')")
        if as_link:
            (tmp_path / "mykeys.py").symlink_to(there)
        os.chown(tmp_path / "mykeys.py", NOBODY, NOBODY, follow_symlinks=False)
        with pytest.raises(ProfileWrong, match=rf"belongs to user nobody \({NOBODY}\)"):
            key_function("mykeys:f", str(tmp_path))

    def test_one_that_is_no_file_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "mykeys.py")
        with pytest.raises(ProfileWrong, match="not a regular file"):
            key_function("mykeys:f", str(tmp_path))

    @given(st.from_regex(r"\A(none|xor|[A-Za-z_][\w.]*:[A-Za-z_]\w*)\Z", alphabet="abz_.:0"))
    @settings(max_examples=100, deadline=None)
    def test_any_name_is_found_or_refused(self, name: str) -> None:
        try:
            key_function(name)
        except ProfileWrong:
            return

    @given(st.binary(max_size=64), st.binary(min_size=1, max_size=64), st.integers(1, 0x7D))
    @settings(max_examples=100, deadline=None)
    def test_xor_turns_back(self, seed: bytes, secret: bytes, level: int) -> None:
        assert xor_key(xor_key(seed, secret, level), secret, level) == seed


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes an importable module; its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(source: str) -> str:
        name = f"keys_{tmp_path.name}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return make
