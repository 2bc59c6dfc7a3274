"""What people met on real parts, each reduced to an emulated part that behaves so, by the command line."""

from __future__ import annotations

import errno
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import usb.core
from proxyflash.emulators import application
from proxyflash.emulators.dfu import device as emulated_dfu
from proxyflash.emulators.stm32 import part as emulated_stm32
from proxyflash.emulators.uds.ecu import DEFAULT, Ecu
from proxyflash.emulators.uds.nrc import RequestRefused
from proxyflash.emulators.usb.backend import EmulatedUsbBackend
from proxyflash.emulators.xymodem.receiver import SOH, Block, Receiver
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.component import select
from proxyflash.flashers.events import RunContext
from proxyflash.tests.flashers.test_uds_makers import Make, driver_first, numbered_blocks, two_keys
from proxyflash.tests.tools.conftest import Desk
from proxyflash.transports import clock

OK, NO_ANSWER, BAD_FILE = 0, 4, 12
UDS_BASE = 0x10000
OLD = application.make("1.4.2", "radar", "Acme", 2000, start=UDS_BASE)
NEW = application.make("1.5.0", "radar", "Acme", 2600, start=UDS_BASE)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def wired(desk: Desk, kind: str, component: str, bus: str = "") -> Desk:
    """A bench with one part, called "part"."""
    desk.bench.write_text(
        f'[bus.wire]\nkind = "{kind}"\nemulated = true\npace = 0.0\n{bus}\n[[component]]\nname = "part"\nbus = "wire"\n'
        + component
    )
    return desk


def ecu(desk: Desk, emulated: str = "", profile: str = "", bus: str = "") -> Path:
    """A bench with an ECU that runs 1.4.2; the file of its 1.5.0."""
    (desk.folder / "old.bin").write_bytes(OLD)
    (desk.folder / "new.bin").write_bytes(NEW)
    wired(desk, "can", f"""
protocol = "uds"
address = {{request = 0x7E0}}
emulated = {{firmware = "old.bin"{emulated and ", "}{emulated}}}
[component.profile]
memory = [{{start = 0x1_0000, size = 0x7_0000, erase_unit = 4096, write_alignment = 8}}]
security = {{key = "xor", secret = "5a5a5a5a"}}
{profile}
""", bus)  # fmt: skip
    return desk.folder / "new.bin"


@pytest.mark.parametrize(
    ("profile", "status", "said"),
    [
        ("{}", OK, "erase 5 units (128 KiB)"),
        ("{memory = [{start = 0x0800_0000, size = 0x18_0000, erase_unit = 0x4000}]}", BAD_FILE, "E-PART-LAYOUT"),
        ("{memory = [{start = 0x0800_0000, size = 0x18_0000, erase_unit = 0x2_0000}]}", BAD_FILE, "E-PART-LAYOUT"),
    ],
)
def test_a_part_is_erased_by_its_own_sectors(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, profile: str, status: int, said: str
) -> None:
    """An STM32F413 (RM0430, table 5: 4 sectors of 16 KiB, one of 64, eleven of 128), described rightly and wrongly.

    https://github.com/stlink-org/stlink/issues/785, https://github.com/stlink-org/stlink/issues/1494,
    https://github.com/florisla/stm32loader/issues/24
    """
    sectors = tuple({"count": count, "size": size, "erase_seconds": 0.5} for count, size in
                    ((4, 0x4000), (1, 0x10000), (11, 0x20000)))  # fmt: skip
    parts: Any = emulated_stm32.parts()
    part = replace(parts["stm32f405xg"], name="stm32f413xh", product_id=0x463, sectors=sectors)
    monkeypatch.setitem(parts, part.name, part)
    old = bytes(range(1, 256)) * 1024
    (desk.folder / "old.bin").write_bytes(old)
    image = application.make("1.5.0", "imu", "Acme", 0x11000)
    (desk.folder / "app.bin").write_bytes(image)
    wired(desk, "serial", f"""
protocol = "stm32-uart"
profile = {profile}
emulated = {{part = "stm32f413xh", boot0 = true, firmware = "old.bin"}}
""")  # fmt: skip
    done = desk.run("flash", "part", desk.folder / "app.bin", "--no-boot")
    assert done.status == status, done.err
    assert said in done.out + done.err
    [held] = desk.memory().values()
    assert held[0x20000 : len(old)] == old[0x20000:]
    assert (held[: len(image)] == image) is (status == OK)


@pytest.mark.parametrize(
    ("part", "unit", "address", "lies", "said"),
    [
        # The part's own unit of that number, by its reference manual: 1 KiB pages, 2 KiB pages, 128-byte pages.
        ("stm32f103xb", 0x4000, 0x4000, 0x400, "has also erased what lay at 0x08000400"),
        ("stm32g474xe", 0x4000, 0x8000, 0x1000, "has also erased what lay at 0x08001000"),
        ("stm32l073xz", 0x4000, 0x4000, 0x80, "has also erased what lay at 0x08000080"),
        # Sector 10 of an F40x, beyond the memory that is described.
        ("stm32f405xg", 0x800, 0x5000, 0xC0000, "has also erased what lay at 0x080C0000"),
        # What the number means there is blank: nothing shows where it was.
        ("stm32f103xb", 0x4000, 0x4000, None, "another place may be erased instead"),
    ],
)
def test_an_erase_that_went_elsewhere_is_not_called_write_protection(
    desk: Desk, part: str, unit: int, address: int, lies: int | None, said: str
) -> None:
    """Numbers of erase units mean other places where a person gave units of another size than the part's."""
    blank = b"\0" if part.startswith("stm32l0") else b"\xff"
    flash = bytearray(blank * 0xC0100)
    flash[address : address + 64] = bytes(range(1, 65))
    if lies is not None:
        flash[lies : lies + 16] = b"other contents  "
    (desk.folder / "old.bin").write_bytes(bytes(flash) if part == "stm32f405xg" else bytes(flash[:0x10000]))
    (desk.folder / "app.bin").write_bytes(bytes(range(100, 200)))
    wired(desk, "serial", f"""
protocol = "stm32-uart"
profile = {{memory = [{{start = 0x0800_0000, size = 0x2_0000, erase_unit = {unit}}}]}}
emulated = {{part = "{part}", boot0 = true, firmware = "old.bin"}}
""")  # fmt: skip
    done = desk.run("flash", "part", desk.folder / "app.bin", "--address", hex(0x0800_0000 + address), "--no-boot")
    assert (done.status, "E-PART-LAYOUT" in done.err, "nothing was erased" in done.err) == (BAD_FILE, True, False), (
        done.err
    )
    assert said in done.err


@pytest.mark.parametrize(("unit", "code"), [(64, "E-PART-LAYOUT"), (256, "E-VERIFY-MISMATCH"), (128, "")])
def test_pages_of_another_size_are_said_to_be_wrong(desk: Desk, unit: int, code: str) -> None:
    """The pages of an ATmega328P have 128 bytes (its data sheet, "Page Size")."""
    (desk.folder / "old.bin").write_bytes(bytes(range(1, 251)) * 8)
    (desk.folder / "app.bin").write_bytes(bytes(range(250, 0, -1)) * 4)
    wired(desk, "serial", f"""
protocol = "stk500v1"
emulated = {{part = "atmega328p-optiboot", firmware = "old.bin"}}
[component.profile]
memory = [{{start = 0, size = 0x7E00, erase_unit = {unit}}}, {{start = 0x7E00, size = 0x200, erase_unit = {unit}, boot = true}}]
""", "baudrate = 115_200")  # fmt: skip
    done = desk.run("flash", "part", desk.folder / "app.bin", "--no-boot")
    assert (done.status == OK, code in done.err, "erase_unit" in done.err or "erase units" in done.err) == (
        not code, True, bool(code),
    ), done.err  # fmt: skip


@pytest.mark.parametrize(("page", "status"), [(512, BAD_FILE), (1024, BAD_FILE), (2048, OK), (4096, OK)])
def test_a_page_that_is_larger_than_described_is_seen_to_go(desk: Desk, page: int, status: int) -> None:
    """An STM32F072 has pages of 2 KiB (RM0091, table 7): Katapult erases one with the first block that it gets for it."""
    start = 0x0800_2000
    vectors = struct.pack("<II", 0x2000_1000, start + 0x101)
    (desk.folder / "old.bin").write_bytes(vectors + bytes(range(1, 251)) * 16)
    (desk.folder / "new.bin").write_bytes(vectors + bytes(range(250, 0, -1)) * 16)
    wired(desk, "can", f"""
protocol = "katapult-can"
address = {{uuid = "0e0d81e4210c"}}
profile = {{page_size = {page}}}
emulated = {{part = "toolhead-f072", firmware = "old.bin"}}
""", "bitrate = 500_000")  # fmt: skip
    done = desk.run("flash", "part", desk.folder / "new.bin", "--no-boot")
    assert (done.status, "E-PART-LAYOUT" in done.err) == (status, status != OK), done.err


@pytest.mark.parametrize(("part", "unit"), [("stm32l073xz", 128), ("stm32h743xi", 0x2_0000)])
def test_what_is_known_of_a_family_stays_where_its_memory_is_described(desk: Desk, part: str, unit: int) -> None:
    """An erased byte of an STM32L0 is 0x00 (RM0367); an STM32H7 programs 32 bytes at once (RM0433)."""
    (desk.folder / "app.bin").write_bytes(application.make("1.5.0", "imu", "Acme", 3000))
    wired(desk, "serial", f"""
protocol = "stm32-uart"
profile = {{memory = [{{start = 0x0800_0000, size = 0x2_0000, erase_unit = {unit}}}]}}
emulated = {{part = "{part}", boot0 = true}}
""")  # fmt: skip
    done = desk.run("flash", "part", desk.folder / "app.bin", "--no-boot")
    assert done.status == OK, done.err


@pytest.mark.parametrize("profile", ["{}", "{transfer_size = 512}"])
def test_a_transfer_is_as_long_as_libusb_takes(desk: Desk, monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    """libusb's os/linux_usbfs.c: more than 4096 bytes are LIBUSB_ERROR_INVALID_PARAM.

    https://github.com/libusb/libusb/issues/204, https://github.com/travisgoodspeed/md380tools/issues/10
    """
    rows: Any = emulated_dfu.parts()
    monkeypatch.setitem(rows, "slot-dfu", rows["slot-dfu"] | {"transfer_size": 8192})
    transfer = EmulatedUsbBackend.ctrl_transfer
    longest = []

    def limited(self: Any, handle: Any, kind: int, request: int, value: int, index: int, data: Any, wait: Any) -> Any:
        longest.append(len(data))
        if len(data) > 4096:
            raise usb.core.USBError("Invalid parameter", -2, errno.EINVAL)
        return transfer(self, handle, kind, request, value, index, data, wait)

    monkeypatch.setattr(EmulatedUsbBackend, "ctrl_transfer", limited)
    wired(desk, "usb", f"""
protocol = "dfu"
address = {{vendor_id = 0x1209, product_id = 0xDF01}}
profile = {profile}
emulated = {{part = "slot-dfu"}}
""")  # fmt: skip
    (desk.folder / "app.bin").write_bytes(application.make("1.5.0", "camera", "Acme", 20_000))
    done = desk.run("flash", "part", desk.folder / "app.bin")
    assert (done.status, done.out.endswith("verified (read back), booted\n")) == (OK, True), done.out + done.err
    assert max(longest) == (512 if "512" in profile else 4096)


@pytest.mark.parametrize("make", [driver_first, numbered_blocks, two_keys], ids=lambda make: make.__name__)
def test_a_maker_s_order_is_data(desk: Desk, make: Make) -> None:
    """A flash driver in RAM first; literal bytes and block numbers in requests; a key before the programming session.

    https://github.com/pylessard/python-udsoncan/issues/229, https://github.com/pylessard/python-udsoncan/issues/282,
    https://github.com/bri3d/VW_Flash/issues/112, https://github.com/bri3d/VW_Flash/blob/master/lib/flash_uds.py,
    https://github.com/jglim/UnlockECU/issues/25, https://github.com/pylessard/python-udsoncan/issues/214
    """
    maker = make(desk.folder)
    desk.bench.write_text(maker.text)
    [name] = re.findall(r'^name = "(brake|engine|door)"$', maker.text, re.M)
    done = desk.run("flash", name, maker.image)
    assert (done.status, "-> 1.5.0  OK  verified" in done.out) == (OK, True), done.out + done.err


@pytest.mark.parametrize("code", [0x7F, 0x7E, 0x33])
def test_a_session_that_is_lost_amid_a_transfer_is_begun_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """S3 ran out (ISO 14229-2, 7.5), or another tester began a session.

    https://github.com/eclipse-opensovd/classic-diagnostic-adapter/issues/540
    """
    transfer = Ecu._transfer_data
    blocks = []

    def loses(self: Ecu, data: bytes) -> bytes | None:
        blocks.append(data[0])
        if len(blocks) == 3:
            self._start_session(DEFAULT)
            raise RequestRefused(code)
        return transfer(self, data)

    monkeypatch.setattr(Ecu, "_transfer_data", loses)
    done = desk.run("flash", "part", ecu(desk), "--address", hex(UDS_BASE))
    assert (done.status, "-> 1.5.0  OK" in done.out) == (OK, True), done.out + done.err
    assert len(blocks) > 3


@pytest.mark.parametrize("size", [4096, 4500, 5000])
def test_a_loader_that_counts_whole_blocks_gets_them(desk: Desk, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """ST's SBSFU takes each packet for 1024 bytes. https://github.com/STMicroelectronics/STM32CubeWL/issues/15"""
    read_block = Receiver.read_block

    def counted(self: Receiver, first: bytes) -> Block:
        block = read_block(self, first)
        return replace(block, data=block.data.ljust(1024, b"\xee")) if first == SOH and block.number else block

    monkeypatch.setattr(Receiver, "read_block", counted)
    image = application.make("1.5.0", "node", "Acme", size, start=0x08008000)
    (desk.folder / "app.bin").write_bytes(image)
    for whole in ("false", "true"):
        wired(desk, "serial", f"""
protocol = "ymodem"
profile = {{loader = "st-iap", block_size = 1024, whole_blocks = {whole}}}
emulated = {{part = "stm32l4-iap", boot = true}}
""", "baudrate = 115_200")  # fmt: skip
        done = desk.run("flash", "part", desk.folder / "app.bin")
        assert done.status == OK, done.err
        [held] = desk.memory().values()
        assert (held[:size] == image) is (whole == "true" or size != 4500)


@pytest.mark.parametrize("ending", ["exit", "reset", "s3"])
def test_a_download_that_was_left_open_is_ended(desk: Desk, ending: str) -> None:
    """ISO 14229-1, RequestDownload: NRC 0x22 while a download is active. After Ctrl-C the same command succeeds."""
    image = ecu(desk, f'download_ends = "{ending}"')
    with Bench.open(desk.bench, state=desk.state) as bench:
        part = bench.component("part")
        for place in (8, 12):
            told: list[object] = []

            def stop(event: object, told: list[object] = told, place: int = place) -> None:
                told.append(event)
                if len(told) == place:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                part.flash(image, address=UDS_BASE, context=RunContext(stop))
            assert part.flash(image, address=UDS_BASE).version == "1.5.0"
            part.flash(desk.folder / "old.bin", address=UDS_BASE)


def test_verify_reads_back_where_the_profile_can(desk: Desk) -> None:
    """Many ECUs refuse the check routine without a download in the session; and the application runs on afterwards."""
    rules = 'maker = {rules = [{request = "31 01 02 02", after = ["34"]}]}'
    ecu(desk, f'part = "acme-r88", {rules}', 'read = "memory"')
    desk.edit(("start = 0x1_0000", "start = 0x2_0000"))
    image = application.make("1.4.2", "radar", "Acme", 2000, start=0x20000)
    (desk.folder / "old.bin").write_bytes(image)
    done = desk.run("verify", "part", desk.folder / "old.bin", "--address", "0x20000")
    assert (done.status, "read back" in done.out) == (OK, True), done.out + done.err


def test_a_look_needs_no_programming_session(desk: Desk) -> None:
    image = ecu(desk, "refuse = 0x22")
    assert "1.4.2" in desk.run("info", "part").out
    done = desk.run("flash", "part", image, "--address", hex(UDS_BASE), "--dry-run")
    assert (done.status, "nothing was written" in done.out) == (OK, True), done.err
    assert desk.run("flash", "part", image, "--address", hex(UDS_BASE)).status != OK


@pytest.mark.parametrize(("delay", "status"), [(3, OK), (500, 7)])
def test_a_key_that_has_to_wait_after_a_start(desk: Desk, delay: int, status: int) -> None:
    """ISO 14229-1, 10.4.1: a delay after each start (NRC 0x37) is waited out, or the key for it is named."""
    done = desk.run("flash", "part", ecu(desk, f"seed_delay = {delay}.0"), "--address", hex(UDS_BASE))
    assert done.status == status, done.err
    assert status == OK or "security.wait" in done.err


def test_an_ecu_that_was_left_alone_runs_its_application_again(desk: Desk) -> None:
    """S3 (ISO 14229-2, 7.5): five seconds without a request."""
    ecu(desk)
    with Bench.open(desk.bench, state=desk.state) as bench:
        part, device = bench.component("part"), bench.emulated_device("part")
        part.bootloader().connect()
        device.settle()
        assert device.application_version is None
        bench.reopen("wire")
        clock.sleep(7)
        device.settle()
        assert device.application_version == "1.4.2"


def test_an_answer_that_comes_late_is_no_refusal(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ECU that doesn't tell its version in time is not in its bootloader for that."""
    dispatch = Ecu._dispatch

    def late(self: Ecu, data: bytes) -> bytes | None:
        if data[0] == 0x22:
            clock.sleep(1.0)
        return dispatch(self, data)

    ecu(desk)
    assert "1.4.2" in desk.run("scan").out
    monkeypatch.setattr(Ecu, "_dispatch", late)
    assert desk.run("scan", "--json").document["components"][0]["presence"] != "bootloader"


def test_eight_parts_are_flashed_at_once_on_one_bus(desk: Desk) -> None:
    """At 500 kbit/s the bus is full: a part whose turn comes late is there all the same."""
    image = ecu(desk, bus="bitrate = 500_000")
    head, _, table = desk.bench.read_text().replace("pace = 0.0", "pace = 1.0").partition("[[component]]")
    for number in range(8):
        name, address = f'name = "part-{number}"', f"request = {0x700 + 16 * number}, response = {0x708 + 16 * number}"
        head += "[[component]]" + table.replace('name = "part"', name).replace("request = 0x7E0", address)
    desk.bench.write_text(head)
    with Bench.open(desk.bench, state=desk.state) as bench:
        found: list[str | None] = []
        threads = [
            clock.Thread(target=lambda part=part: found.append(part.flash(image, address=UDS_BASE).version))
            for part in bench.components
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == ["1.5.0"] * 8


def test_a_component_of_the_host_has_any_id_and_an_empty_selector_selects_all(desk: Desk) -> None:
    """As in the example enumerator of Device Update's agent: ids such as "contoso-virtual-vacuum-1-left-motor"."""
    ecu(desk)
    text = '[[component]]\nname = "rootfs"\nid = "contoso-virtual-vacuum-1/a"\nproperties = {slot = "b"}\n'
    desk.bench.write_text(desk.bench.read_text() + text)
    ids = [component["id"] for component in desk.run("scan", "--json").document["components"]]
    assert ids == ["0001", "contoso-virtual-vacuum-1/a"]
    with Bench.open(desk.bench, state=desk.state) as bench:
        found = bench.scan().components
    assert [item.name for item in select(found, [{"id": ids[1], "slot": "b"}])] == ["rootfs"]
    assert select(found, [{}]) == list(found)


def test_classic_frames_on_a_bus_with_can_fd_are_said_to_be(desk: Desk) -> None:
    ecu(desk, "mute = true", bus="fd = true")
    done = desk.run("info", "part")
    assert (done.status, "tx_dl" in done.err) == (NO_ANSWER, True), done.err


def test_what_is_not_booted_is_not_said_to_be(desk: Desk) -> None:
    (desk.folder / "app.bin").write_bytes(application.make("1.5.0", "node", "Acme", 3000, start=0x08008000))
    wired(desk, "serial", """
protocol = "ymodem"
profile = {loader = "st-iap", boot = "none"}
emulated = {part = "stm32l4-iap", boot = true}
""", "baudrate = 115_200")  # fmt: skip
    done = desk.run("flash", "part", desk.folder / "app.bin")
    assert (done.status, done.out.endswith("not booted\n")) == (OK, True), done.out
