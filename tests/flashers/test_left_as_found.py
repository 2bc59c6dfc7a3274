"""What only looks leaves a part as it was found: in its bootloader, so that nobody has to press its button in between, or in
its application, also where Ctrl-C interrupts it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers.serial.entry import LineSettings, SerialEntry
from proxyflash.testing.rig import Rig, settled
from proxyflash.testing.thinning import Sweep
from proxyflash.transports.can.bus import CanBus
from proxyflash.transports.errors import CanGone, ProxyflashError, SerialGone, UsbGone
from proxyflash.transports.serial.port import SerialPort
from proxyflash.transports.usb.bus import UsbDevice

from .test_contract import KINDS

BY_HAND = {"reset": "none"}
AVR_LOADER = {"power_on": True, "boot_window": 0}
"""A loader that waits for ever after each reset, as one does whose button selects it."""

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "stm32-uart, jumper": ("stm32-uart", {"profile": {"entry": {}}, "emulated": {"wiring": "none", "boot0": True}}),
    "stm32-can, jumper": ("stm32-can", {"emulated": {"boot0": True}}),
    "stm32-fdcan, jumper": ("stm32-fdcan", {"emulated": {"boot0": True}}),
    "stk500v1, button": (
        "stk500v1",
        {"profile": {"entry": BY_HAND}, "emulated": {**AVR_LOADER, "wiring": "none"}},
    ),
    "stk500v2, button": (
        "stk500v2",
        {"profile": {"entry": BY_HAND}, "emulated": {**AVR_LOADER, "wiring": "none"}},
    ),
    "avr109, button": ("avr109", {"profile": {"entry": {**BY_HAND, "touch": False}}, "emulated": AVR_LOADER}),
    "avr109, touch": ("avr109", {"emulated": AVR_LOADER}),
    "mboot-uart, strap": ("mboot-uart", {"profile": {"entry": {}}, "emulated": {"boot": True}}),
    "xmodem, strap": ("xmodem", {"profile": {"enter": ""}, "emulated": {"enter": "", "boot": True}}),
    "xmodem, text": ("xmodem", {"emulated": {"boot": True}}),
    "ymodem, strap": ("ymodem", {"profile": {"enter": ""}, "emulated": {"enter": "", "boot": True}}),
    "ymodem, text": ("ymodem", {"emulated": {"boot": True}}),
}


def look(bench: Bench, rig: Rig) -> None:
    """What `info`, `flash --dry-run`, `verify` and `read` do."""
    component = bench.component("part")
    with component.programmer() as programmer:
        programmer.connect()
    rig.plan(bench)
    if getattr(rig.part, "verifies", True):
        rig.verify(bench, rig.old_image)


@pytest.mark.parametrize("case", CASES)
def test_by_hand_in_its_bootloader(case: str, tmp_path: Path) -> None:
    kind, changed = CASES[case]
    rig = Rig(KINDS[kind](), tmp_path)
    file = tmp_path / "bench.toml"
    file.write_text(rig.part.bench_file(firmware="old.bin", **changed))
    with Bench.open(file, state=tmp_path / "by-hand") as bench:
        assert settled(bench) is None
        for _ in range(2):
            look(bench, rig)
            assert settled(bench) is None


@pytest.mark.parametrize(
    "kind",
    [
        "katapult-can",
        "katapult-uart",
        "mboot-can",
        "mboot-uart",
        "stm32-can",
        "stm32-fdcan",
        "stm32-uart",
        "dfu",
        "dfuse",
    ],
)
def test_left_in_its_bootloader_by_another_command(kind: str, tmp_path: Path) -> None:
    """As `flash --no-boot` and `erase` do."""
    rig = Rig(KINDS[kind](), tmp_path)
    with rig.powered() as bench:
        rig.connect(bench)
        for _ in range(2):
            assert settled(bench) is None
            with bench.component("part").programmer() as programmer:
                programmer.connect()
            rig.plan(bench)
        assert settled(bench) is None
        rig.ends_with_the_new_image(bench)
        rig.plan(bench)
        assert settled(bench) == "1.5.0"


@pytest.mark.parametrize(
    "kind",
    [
        "uds",
        "canopen",
        "katapult-can",
        "katapult-uart",
        "mboot-can",
        "mboot-uart",
        "stm32-can",
        "stm32-fdcan",
        "stm32-uart",
        "dfuse",
        "dfu",
        "smp-recovery",
        "avr109",
        "xmodem",
    ],
)
def test_ctrl_c_amid_a_look(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At something that the host has just sent: also on the way into the bootloader, and on the way out of it."""
    rig = Rig(KINDS[kind](), tmp_path)
    sent = stop = 0

    def counted(method: Any) -> Any:
        def send(*arguments: Any) -> Any:
            nonlocal sent
            answer = method(*arguments)
            sent += 1
            if sent == stop:
                raise KeyboardInterrupt
            return answer

        return send

    for owner, name in ((SerialPort, "write"), (CanBus, "send"), (UsbDevice, "control_in"), (UsbDevice, "control_out")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))

    def look_at(bench: Bench) -> None:
        with bench.component("part").programmer() as programmer:
            programmer.connect()

    with rig.powered() as bench:
        sent = 0
        look_at(bench)
    sweep = Sweep(request, range(1, sent + 1), 3, "Ctrl-C at")
    for place in sweep:
        with sweep.at(place), rig.powered() as bench:
            sent, stop = 0, place
            with pytest.raises(KeyboardInterrupt):
                look_at(bench)
            stop = 0
            assert settled(bench) == "1.4.2"


class Killed(BaseException):
    """What the process does not survive."""


GONE: Mapping[str, type[ProxyflashError]] = {"serial": SerialGone, "can": CanGone, "usb": UsbGone}


@pytest.mark.parametrize("how", ["killed", "cable pulled"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_ends_amid_a_look_is_mended_by_the_next_command(
    kind: str, how: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one thing that the host has sent on, nothing more arrives: not what the command would send on its way out either."""
    rig = Rig(KINDS[kind](), tmp_path)
    sent = stop = 0

    def ending(method: Any) -> Any:
        def send(*arguments: Any) -> Any:
            nonlocal sent
            if stop and sent >= stop:
                raise error
            answer = method(*arguments)
            sent += 1
            if sent == stop:
                raise error
            return answer

        return send

    for owner, name in ((SerialPort, "write"), (CanBus, "send"), (UsbDevice, "control_in"), (UsbDevice, "control_out")):
        monkeypatch.setattr(owner, name, ending(getattr(owner, name)))
    with rig.powered() as bench:
        gone = GONE[bench.file.spec.bus["b"].kind]
        error: BaseException = Killed() if how == "killed" else gone("unplugged")
        sent = 0
        look(bench, rig)
    sweep = Sweep(request, range(1, sent + 1), 4, f"{how} at")
    for place in sweep:
        with sweep.at(place), rig.powered() as bench:
            flash = bench.emulated_device("part").flash
            before = flash.read(flash.base, flash.end - flash.base)
            sent, stop = 0, place
            error = Killed() if how == "killed" else gone("unplugged")
            with suppress(Killed, ProxyflashError):
                look(bench, rig)
            assert sent == place
            stop = 0
            rig.part.by_hand(bench.emulated_device("part"))
            look(bench, rig)
            assert flash.read(flash.base, flash.end - flash.base) == before
            rig.ends_with_the_new_image(bench)


class Sent(SerialEntry):
    """Writes down what an application hears."""

    resets = False

    def enter(self) -> bool:
        self.send_text()
        return True

    def reset(self) -> bool:
        return False


@pytest.mark.parametrize(("text", "ending"), [("boot\r\n", b"\r\n"), ("boot\r", b"\r"), ("B", b"")])
def test_what_a_question_began_is_no_part_of_the_text(text: str, ending: bytes, serial_pair: Any) -> None:
    port, heard = serial_pair
    line = LineSettings(None)
    entry = Sent(port, text=text, text_seconds=1, settle=0, loader=line, application=line)
    entry.end_line()
    entry.enter()
    assert heard() == ending + text.encode()


@pytest.fixture
def serial_pair() -> Any:
    wire = UartWire("left-as-found")
    with SerialPort.open("b", {**wire.host_settings(), "baudrate": 115_200}) as port:
        sent: list[bytes] = []
        write = port.write

        def noted(data: bytes, deadline: Any) -> None:
            sent.append(bytes(data))
            write(data, deadline)

        port.write = noted  # type: ignore[method-assign]
        yield port, lambda: b"".join(sent)
    wire.close()
