"""Makers' orders: the profiles of docs/uds-profiles.md, each against an emulated ECU that insists on its order.

The emulated ECU has its rules as data, and shares nothing with the flasher: see emulators/uds/maker.py.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from proxyflash.emulators import application
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import (
    Cancelled,
    ImageWrongPart,
    OperationFailed,
    PartRefused,
    ProfileWrong,
    RebootFailed,
    Unsupported,
)
from proxyflash.flashers.events import RunContext
from proxyflash.flashers.formats import load
from proxyflash.testing.thinning import Sweep
from proxyflash.tests.flashers.makers import APP, Killed, Maker, Process, documented
from proxyflash.transports.errors import ProxyflashError

pytestmark = pytest.mark.simulated_time

DRIVER = bytes(range(200)) * 2


def driver_first(folder: Path) -> Maker:
    made = Maker(folder, documented(0))
    (folder / "flash_driver.bin").write_bytes(DRIVER)
    made.put((0x10000, APP), (0x18000, b"\x01" * 64))
    return made


def numbered_blocks(folder: Path) -> Maker:
    made = Maker(folder, documented(1))
    blocks = {1: (0x10000, APP + bytes(0x4000 - len(APP))), 5: (0x20000, bytes(range(256)) * 32)}
    made.put(*((start, zlib.compress(data)) for start, data in blocks.values()))
    for number, (_, data) in blocks.items():
        (folder / f"app-{number}.crc").write_bytes(zlib.crc32(data).to_bytes(4, "big"))
    return made


def two_keys(folder: Path) -> Maker:
    made = Maker(folder, documented(2))
    (folder / "app.sig").write_bytes(bytes(range(1, 9)))
    made.put((0x10000, APP), (0x18000, b"\x01" * 64), (0x40000000, DRIVER))
    return made


Make = Callable[[Path], Maker]


PROFILES: dict[Make, tuple[str, int, int]] = {
    driver_first: ("exit", 66, 20),
    numbered_blocks: ("reset", 61, 23),
    two_keys: ("session", 66, 22),
}
"""What ends the ECU's download; of one flash, its requests and its events."""


@pytest.mark.parametrize("make", PROFILES, ids=lambda make: make.__name__)
def test_a_profile_of_the_document_is_flashed_by_its_ecu_s_order(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = make(tmp_path)
    for _ in range(2):
        result = maker.flash()
        assert (result.version, result.booted) == ("1.5.0", True)
        assert "0x0202" in result.verified
        assert maker.flashed == APP
    process = Process(monkeypatch)
    with maker.opened() as component:
        process.flash(component, maker.image)
    assert (process.requests, process.events) == PROFILES[make][1:]


def test_a_key_function_in_a_file_beside_the_bench_file(tmp_path: Path) -> None:
    maker = driver_first(tmp_path)
    (tmp_path / "mykeys.py").write_text("from proxyflash.flashers.keys.making import xor_key as key\n")
    assert maker.flash('key = "xor"', 'key = "mykeys:key"').version == "1.5.0"


@pytest.mark.parametrize(
    ("make", "old", "new", "told"),
    [
        (driver_first, "run = 0x0301\n", "", "requestSequenceError"),
        (driver_first, "check = 0x0202\n", "", "requestSequenceError"),
        (driver_first, '"2026', "", "requestSequenceError"),
        (numbered_blocks, '"erase", "download", "check"],', '"erase", "download"], "check",', "requestSequenceError"),
        (numbered_blocks, '["for each region", "fingerprint", ', '"fingerprint", ["for each region", ', "Sequence"),
        (numbered_blocks, 'erase_parameters = ["01", "region"]', 'erase_parameters = ["region"]', "NRC 0x"),
        (numbered_blocks, "data_format = 0x10\n", "", "NRC 0x"),
        (two_keys, '"early-key", ', "", "is not in the order"),
        (two_keys, "0x03\n", "0x05\n", "requestSeed|NRC 0x12"),
        (two_keys, ', request_data = "01 02"', "", "NRC 0x13"),
        (two_keys, '"driver",\n    "erase"', '\n    "erase"', "the order has no 'driver'"),
        (two_keys, '["for each segment", "download", "check"]', '"download", "check"', "requestSequenceError"),
        (two_keys, '"signature", "dependencies"', '"dependencies", "signature"', "requestSequenceError"),
    ],
)
def test_another_order_is_refused(make: Make, old: str, new: str, told: str, tmp_path: Path) -> None:
    """So the ECU insists on it; and what is missing in a profile is reported."""
    maker = make(tmp_path)
    if old == '"2026':
        old, new = 'fingerprint = {identifier = 0xF15A, data = "20 26 01 15 C0 FF EE"}\n', ""
    with pytest.raises(ProxyflashError, match=told):
        maker.flash(old, new)


@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.parametrize("make", PROFILES, ids=lambda make: make.__name__)
def test_after_an_interruption_the_same_command_succeeds(
    make: Make, how: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it was: in the driver, the erase, a download, a check; whatever ends the ECU's download."""
    maker = make(tmp_path)
    ending, requests, events = PROFILES[make]
    maker.text = maker.text.replace("emulated = {", f'emulated = {{download_ends = "{ending}", ', 1)
    process = Process(monkeypatch)
    sweep = Sweep(request, range(1, (requests if how == "killed" else events) + 1), 3, f"{how} at")
    with maker.opened() as component:
        for place in sweep:
            with sweep.at(place):
                with suppress(Killed, Cancelled):
                    process.flash(component, maker.image, **{how: place})
                assert process.flash(component, maker.image).version == "1.5.0"


class TestDriver:
    def offering(self, folder: Path, *rules: str, part: str = "acme-r77") -> Maker:
        """An ECU whose check routine is the flash driver's: while that does not run there is none, requestOutOfRange."""
        maker = driver_first(folder)
        offered = '{request = "31 01 02 02", after = ["31 01 03 01"], nrc = 0x31}'
        for old, new in (
            ('{request = "31 01 03 01", after = ["31 01 02 02"]}', offered),
            ("rules = [", f"rules = [{''.join(rules)}"),
            ("emulated = {", f'emulated = {{part = "{part}", '),
            (', since = "37"', ""),
            ("\ncheck = 0x0202\n", "\n"),
        ):
            assert maker.text.count(old) == 1
            maker.text = maker.text.replace(old, new)
        return maker

    WANTS_FINGERPRINT = '{request = "34 00 44 20", after = ["2E F1 5A"]},'

    @pytest.mark.parametrize("rule", ["", WANTS_FINGERPRINT], ids=["", "and its driver wants a fingerprint"])
    def test_after_a_power_cut_it_is_loaded_again_for_the_check(self, tmp_path: Path, rule: str) -> None:
        """All was written, and nothing checked: the same command has it checked, and writes nothing."""
        maker = self.offering(tmp_path, rule, part="acme-r88")
        memory = "0x2_0000, size = 0x8_0000, erase_unit = 0x2000"
        maker.text = maker.text.replace("0x1_0000, size = 0x7_0000, erase_unit = 0x1000", memory)
        wanted = application.make("1.5.0", "radar", "Acme", 5003, start=0x20000)
        maker.put((0x20000, wanted))

        def cut(event: ev.Event) -> None:
            if isinstance(event, ev.Progress) and event.phase is ev.Phase.WRITE and event.done == event.total:
                raise KeyboardInterrupt

        read = 'read = "memory"\nfingerprint ='
        with pytest.raises(KeyboardInterrupt):
            maker.flash("fingerprint =", read, context=RunContext(cut))
        result = maker.flash("fingerprint =", read)
        assert (result.written_bytes, result.version) == (0, "1.5.0")

    @pytest.mark.parametrize("order", ['"driver", "wipe"', '"wipe", "driver"'], ids=["after", "before"])
    def test_for_a_check_no_step_is_done_that_may_erase(self, tmp_path: Path, order: str) -> None:
        """An ECU that has all but its check holds all that is wanted."""
        maker = self.offering(tmp_path, self.WANTS_FINGERPRINT, part="acme-r88")
        begin, end = '"programming", "key", "fingerprint"', '"erase", "download", "check", "dependencies"'
        for old, new in (
            ("0x1_0000, size = 0x7_0000, erase_unit = 0x1000", "0x2_0000, size = 0x8_0000, erase_unit = 0x2000"),
            ("routines = {check", 'routines = {erase = "none", check'),
            ('"2E F1 5A", "31 01 03 01"', '"2E F1 5A"'),
            ("fingerprint =", f'read = "memory"\norder = [{begin}, {order}, {end}]\nfingerprint ='),
        ):
            assert maker.text.count(old) == 1
            maker.text = maker.text.replace(old, new)
        maker.text += '[[profile.driver-first.steps]]\nname = "wipe"\nroutine = 0xFF00\n'
        maker.text += 'parameters = ["44 00 02 00 00 00 00 20 00"]\n'
        wanted = application.make("1.5.0", "radar", "Acme", 5003, start=0x20000)
        maker.put((0x20000, wanted))

        def cut(event: ev.Event) -> None:
            if isinstance(event, ev.Progress) and event.phase is ev.Phase.WRITE and event.done == event.total:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            maker.flash(context=RunContext(cut))
        if order.startswith('"driver"'):
            assert maker.flash().written_bytes == 0
        else:  # Only a step that may erase brings its driver, so the check is not made, and the ECU does not start.
            with pytest.raises(RebootFailed, match="stays in its bootloader") as caught:
                maker.flash()
            assert "--full" in caught.value.remedy
            maker.flash(compare=False)
        assert maker.flashed[:5003] == wanted

    def test_what_the_ecu_says_of_it_is_not_said_of_the_image(self, tmp_path: Path) -> None:
        maker = driver_first(tmp_path)
        own = 'check = 0x0202\ncheck_parameters = ["alfi", "address", "size", "crc32'
        with pytest.raises(OperationFailed, match="does not take the flash driver for whole"):
            maker.flash(own, f"{own}-mpeg2")

    def verified(self, maker: Maker, rule: str = "") -> str:
        """After a flash; its application runs again."""
        maker.flash()
        with maker.opened("rules = [", f"rules = [{rule}") as component:
            try:
                with component.programmer() as programmer:
                    return programmer.verify(load(maker.image))
            finally:
                assert maker.device.application_version == "1.5.0"

    def test_verify_loads_it_for_the_check(self, tmp_path: Path) -> None:
        assert "0x0202" in self.verified(self.offering(tmp_path))

    def test_verify_says_what_an_ecu_that_takes_none_then_can_t_do(self, tmp_path: Path) -> None:
        with pytest.raises(Unsupported, match="may need the flash driver, which it does not take now"):
            self.verified(self.offering(tmp_path), self.WANTS_FINGERPRINT)

    def test_an_image_without_it(self, tmp_path: Path) -> None:
        maker = two_keys(tmp_path)
        maker.put((0x10000, APP))
        with pytest.raises(ImageWrongPart, match="holds no flash driver at 0x40000000"):
            maker.flash()

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        maker = driver_first(tmp_path)
        (tmp_path / "flash_driver.bin").unlink()
        with pytest.raises(ProxyflashError, match=r"flash_driver\.bin can't be read"):
            maker.flash()

    def test_one_that_does_not_fit(self, tmp_path: Path) -> None:
        maker = driver_first(tmp_path)
        (tmp_path / "flash_driver.bin").write_bytes(bytes(0x4001))
        with pytest.raises(ProfileWrong, match=r"outside of 0x20000000\.\.0x20003FFF"):
            maker.flash()

    def test_it_may_lie_beside_the_image(self, tmp_path: Path) -> None:
        maker = driver_first(tmp_path)
        (tmp_path / "flash_driver.bin").rename(tmp_path / "app-driver.bin")
        assert maker.flash('"flash_driver.bin"', '"{image}-driver.bin"').version == "1.5.0"

    def test_an_update_vouches_for_nothing_beside_its_image(self, tmp_path: Path) -> None:
        maker = driver_first(tmp_path)
        (tmp_path / "flash_driver.bin").rename(tmp_path / "app-driver.bin")
        maker.image_of = lambda path: replace(load(path), is_alone=True)
        with pytest.raises(ProfileWrong, match="the update does not vouch for it"):
            maker.flash('"flash_driver.bin"', '"{image}-driver.bin"')


class TestBlocks:
    """By numbers, not compressed."""

    def maker(self, folder: Path, *segments: tuple[int, bytes], more: str = "") -> Maker:
        maker = numbered_blocks(folder)
        maker.text = maker.text.replace("data_format = 0x10\n", "").replace(', signature = "{image}-1.crc"', "")
        maker.text = maker.text.replace(', signature = "{image}-5.crc"', "").replace('"signature"]', '"crc32"]')
        maker.text = re.sub(", announce = 0x[0-9]+", "", maker.text) + more
        maker.put(*segments)
        return maker

    def test_a_gap_is_filled(self, tmp_path: Path) -> None:
        """A block has no addresses within."""
        maker = self.maker(tmp_path, (0x10000, APP), (0x13000, b"\x01"))
        assert maker.flash().written_bytes == 0x3001
        assert maker.flashed == APP

    def test_what_does_not_begin_with_its_block_is_filled_before(self, tmp_path: Path) -> None:
        maker = self.maker(tmp_path, (0x10000, APP), (0x20010, b"\x01"))
        assert maker.flash().written_bytes == len(APP) + 0x11

    def test_they_take_their_turns_in_the_order_of_the_profile(self, tmp_path: Path) -> None:
        """The ECU wants its upper block first."""
        maker = numbered_blocks(tmp_path)
        text = maker.text.replace(
            "rules = [\n", 'rules = [\n    {request = "34 10 41 01", after = ["31 01 02 02 01 05"]},\n'
        )
        lower, upper = re.findall(r"^    {name = .*\n", text, re.M)
        maker.text = text.replace(lower + upper, upper + lower)
        assert maker.flash().version == "1.5.0"
        maker.text = text
        with pytest.raises(PartRefused, match="requestSequenceError"):
            maker.flash()

    def test_a_compressed_block_has_no_gap(self, tmp_path: Path) -> None:
        maker = numbered_blocks(tmp_path)
        maker.put((0x10000, bytes(10)), (0x10020, bytes(10)))
        with pytest.raises(ImageWrongPart, match="more than one piece for application"):
            maker.flash()

    def test_one_erase_for_all_needs_an_image_for_all(self, tmp_path: Path) -> None:
        maker = self.maker(tmp_path, (0x10000, APP))
        keys = maker.text.replace('"fingerprint", "erase", ', "").replace(
            '"key",\n', '"key", "fingerprint", "erase",\n'
        )
        maker.text = keys.replace("routines = {", "routines = {erase_all = true, ")
        with pytest.raises(ImageWrongPart, match="nothing for calibration"):
            maker.flash()
