"""Which protocol answers on a line that has no component: in the file's order, at its rates, after quiet times."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators.avr.part import parts
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.serial.pty import serve_pty
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.emulators.stm32.device import Stm32UartDevice
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.component import Presence
from proxyflash.enumerators.errors import BenchKey
from proxyflash.enumerators.probers.serial import adapter
from proxyflash.tests.emulators.avr_lab import ATMEGABOOT, CATERINA, DEVICES, IN_LOADER, OPTIBOOT, WIRING
from proxyflash.transports.errors import ProxyflashError
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo


class Lab:
    """Wires with parts, and bench files that name them. `sent`: what went out on each, and at which rate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.closers: list[Callable[[], None]] = []
        self.sent: list[tuple[UartWire, int, bytes]] = []

    def wire(self, *, pace: float = 0) -> UartWire:
        wire = UartWire(uuid.uuid4().hex, pace=pace)
        send = wire.host.send

        def sending(data: bytes, at: float | None = None) -> None:
            self.sent.append((wire, wire.host.line.baudrate, data))
            send(data, at)

        wire.host.send = sending  # type: ignore[method-assign]
        self.closers.append(wire.close)
        return wire

    def avr(self, part: str, **table: Any) -> UartWire:
        wire = self.wire()
        spec = DeviceSpec("part", settings={"part": part, **IN_LOADER, **table}, pace=0)
        device = DEVICES[parts()[part].loader].attach(spec, wire)
        self.closers.insert(0, device.close)
        device.settle()
        return wire

    def bench(self, wire: UartWire, ask: str, more: str = "", *, baudrate: int = 115_200) -> Bench:
        file = self.folder / "bench.toml"
        file.write_text(
            f'[bus.line]\nkind = "serial"\nurl = "{wire.host_settings()["url"]}"\nbaudrate = {baudrate}\n'
            f"dtr = false\nrts = false\n{ask}\n{more}\n"
        )
        return Bench.open(file, state=self.folder / "state")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    for close in made.closers:
        close()


def found(bench: Bench) -> list[str]:
    """The lines to paste of what was found on the line."""
    scan = bench.scan()
    assert scan.faults == ()
    return [item.lines for item in scan.unlisted if item.bus == "line"]


QUIET = "quiet = 0.02"


class TestWhoAnswers:
    @pytest.mark.parametrize(
        ("part", "protocol", "rate", "name"),
        [
            (OPTIBOOT, "stk500v1", 115_200, "atmega328p"),
            (ATMEGABOOT, "stk500v1", 57_600, "atmega328p"),
            (WIRING, "stk500v2", 115_200, "atmega2560"),
            (CATERINA, "avr109", 115_200, "atmega32u4"),
        ],
    )
    def test_what_it_prints_finds_the_part_again(
        self, lab: Lab, part: str, protocol: str, rate: int, name: str
    ) -> None:
        wire = lab.avr(part)
        with lab.bench(wire, f'{QUIET}\nask = [{{protocol = "{protocol}", baudrate = {rate}}}]') as bench:
            [lines] = found(bench)
        assert f'protocol = "{protocol}"' in lines
        assert f"baudrate = {rate}" in lines
        with lab.bench(wire, "probe = true", lines) as bench:
            [component] = bench.scan().components
        assert component.name.startswith(name)
        assert component.presence is Presence.BOOTLOADER
        assert component.properties["signature"] == f"0x{parts()[part].signature:06X}"

    def test_an_stm32(self, lab: Lab) -> None:
        wire = lab.wire()
        settings = {"part": "stm32g071xb", "boot0": True}
        device = Stm32UartDevice.attach(DeviceSpec("part", settings=settings, pace=0), wire)
        lab.closers.insert(0, device.close)
        with lab.bench(wire, f'{QUIET}\nask = [{{protocol = "stm32-uart"}}]') as bench:
            [lines] = found(bench)
        assert lines.splitlines()[2:] == ['bus = "line"', 'protocol = "stm32-uart"']

    def test_the_later_one_of_two(self, lab: Lab) -> None:
        """The Mega's loader takes no notice of what is not a message."""
        wire = lab.avr(WIRING)
        with lab.bench(wire, f'{QUIET}\nask = [{{protocol = "avr109"}}, {{protocol = "stk500v2"}}]') as bench:
            [lines] = found(bench)
        assert 'protocol = "stk500v2"' in lines

    def test_nobody(self, lab: Lab) -> None:
        with lab.bench(lab.wire(), f'{QUIET}\nask = [{{protocol = "avr109"}}, {{protocol = "stk500v2"}}]') as bench:
            assert found(bench) == []

    def test_the_profile_is_used_and_printed(self, lab: Lab) -> None:
        wire = lab.avr(OPTIBOOT)
        ask = (
            'ask = [{protocol = "stk500v1", profile = {boot_size = 512, answer = 2.0, eeprom = false, enter = "!\\n"}}]'
        )
        with lab.bench(wire, f"{QUIET}\n{ask}") as bench:
            [lines] = found(bench)
        assert lines.endswith('profile = {boot_size = 512, answer = 2.0, eeprom = false, enter = "!\\n"}')
        with lab.bench(wire, "", lines) as bench:
            [component] = bench.components
            assert component.entry.raw_profile == {"boot_size": 512, "answer": 2.0, "eeprom": False, "enter": "!\n"}


class TestManners:
    def test_in_the_files_order_at_its_rates_and_no_further_than_the_answer(self, lab: Lab) -> None:
        wire = lab.wire()
        ask = ('ask = [{protocol = "stk500v2", baudrate = 19_200}, {protocol = "avr109"}, '
               '{protocol = "stk500v1", baudrate = 57_600}]')  # fmt: skip
        with lab.bench(wire, f"{QUIET}\n{ask}", baudrate=9600) as bench:
            assert found(bench) == []
            assert bench.transport("line").baudrate == 9600
        rates = [rate for _, rate, _ in lab.sent]
        assert sorted(set(rates), key=rates.index) == [19_200, 9600, 57_600]
        assert rates == sorted(rates, key=[19_200, 9600, 57_600].index)

    def test_nothing_after_the_first_that_answers(self, lab: Lab) -> None:
        wire = lab.avr(WIRING)
        with lab.bench(wire, f'{QUIET}\nask = [{{protocol = "stk500v2"}}, {{protocol = "avr109"}}]') as bench:
            assert len(found(bench)) == 1
        assert {data[0] for _, _, data in lab.sent} == {0x1B}, "messages of STK500 version 2 alone"

    def test_nothing_is_sent_where_nothing_is_listed(self, lab: Lab) -> None:
        other, wire = lab.avr(OPTIBOOT), lab.avr(OPTIBOOT)
        with lab.bench(wire, "probe = true") as bench:
            assert found(bench) == []
        assert lab.sent == []
        with lab.bench(wire, f'{QUIET}\nask = [{{protocol = "stk500v1"}}]') as bench:
            assert len(found(bench)) == 1
        assert other not in [to for to, _, _ in lab.sent]

    def test_a_line_with_a_component_is_left_to_it(self, lab: Lab) -> None:
        component = '[[component]]\nname = "part"\nbus = "line"\nprotocol = "stk500v1"'
        with lab.bench(lab.avr(OPTIBOOT), 'ask = [{protocol = "stk500v2"}]', component) as bench:
            assert found(bench) == []
        assert lab.sent == []

    def test_no_modem_line_is_moved(self, lab: Lab) -> None:
        wire = lab.wire()
        moved: list[tuple[bool, bool]] = []
        wire.modem_listener = lambda: moved.append((wire.dtr, wire.rts))
        ask = ", ".join(f'{{protocol = "{name}"}}' for name in ("stm32-uart", "stk500v1", "stk500v2", "avr109", "smp"))
        with lab.bench(wire, f"{QUIET}\nask = [{ask}]") as bench:
            assert found(bench) == []
        assert set(moved) <= {(False, False)}

    def test_a_question_waits_until_the_line_is_quiet(self, lab: Lab) -> None:
        """What the part says takes half a second; at each question nothing of it is on its way any more."""
        wire = lab.wire(pace=1.0)
        wire.device.line = wire.device.line.__class__(115_200)
        on_the_way: list[int] = []
        send = wire.host.send

        def sending(data: bytes, at: float | None = None) -> None:
            on_the_way.append(wire.host._in_transit())
            send(data, at)

        wire.host.send = sending  # type: ignore[method-assign]
        with lab.bench(wire, 'quiet = 0.3\nask = [{protocol = "stk500v2"}]') as bench:
            bench.transport("line")
            wire.device.send(b"log text\r\n" * 576)
            assert found(bench) == []
        assert on_the_way
        assert set(on_the_way) == {0}

    def test_a_part_that_never_stops_talking_is_asked_all_the_same(self, lab: Lab) -> None:
        wire = lab.wire(pace=1.0)
        wire.device.line = wire.device.line.__class__(115_200)
        with lab.bench(wire, 'quiet = 0.01\nask = [{protocol = "stk500v2"}]') as bench:
            bench.transport("line")
            wire.device.send(b"log text\r\n" * 6000)
            assert found(bench) == []
        assert lab.sent


class TestTheFile:
    @pytest.mark.parametrize(
        ("keys", "says"),
        [
            ('ask = [{protocol = "uds"}]', "runs over a bus of kind can"),
            ('ask = [{protocol = "stk500v1", profile = {nonsense = 1}}]', "unknown key "),
            ('ask = [{protocol = "stk500v1", baudrate = 0}]', "greater than 0"),
            ("ask = [{baudrate = 9600}]", "protocol is missing"),
            ("quiet = -1", "greater than or equal to 0"),
        ],
    )
    def test_what_does_not_hold_is_told(self, lab: Lab, keys: str, says: str) -> None:
        with pytest.raises(BenchKey, match=says) as caught:
            lab.bench(lab.wire(), keys)
        assert "bench.toml:" in caught.value.cause

    def test_an_unknown_protocol(self, lab: Lab) -> None:
        with pytest.raises(ProxyflashError, match="stk500v9"):
            lab.bench(lab.wire(), 'ask = [{protocol = "stk500v9"}]')

    def test_other_buses_have_nothing_to_ask(self, tmp_path: Path) -> None:
        (tmp_path / "bench.toml").write_text('[bus.c]\nkind = "usb"\nask = [{protocol = "dfu"}]\n')
        with pytest.raises(BenchKey, match="not for a bus of kind usb, as for serial lines"):
            Bench.open(tmp_path / "bench.toml", state=tmp_path)


class TestTheAdapter:
    @pytest.mark.real_time("pseudo-terminals")
    def test_beside_the_part(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        """The pseudo-terminal is given out as a USB adapter, by what pyserial reads from udev's place."""
        wire = lab.avr(OPTIBOOT)
        path, close = serve_pty(wire)
        info = ListPortInfo(path)
        info.vid, info.pid, info.serial_number, info.location = 0x0403, 0x6001, "FT1234", "1-4.2"
        info.manufacturer, info.product = "FTDI", "TTL232R"
        monkeypatch.setattr(list_ports, "comports", lambda: [info])
        told = {
            "adapter": "FTDI TTL232R",
            "adapter_usb": "0403:6001",
            "adapter_serial": "FT1234",
            "adapter_port": "1-4.2",
        }
        assert adapter(path) == told
        component = '[[component]]\nname = "part"\nbus = "line"\nprotocol = "stk500v1"'
        wire.host_settings = lambda: {"url": path}  # type: ignore[method-assign]
        with lab.bench(wire, "probe = true", component) as bench:
            [seen] = bench.scan().components
        assert told.items() <= seen.properties.items()
        assert seen.properties["signature"] == "0x1E950F"
        with lab.bench(wire, f'{QUIET}\nask = [{{protocol = "stk500v1"}}]') as bench:
            [item] = [item for item in bench.scan().unlisted if item.bus == "line"]
        assert item.title.endswith("through FTDI TTL232R FT1234")
        close()

    def test_what_is_no_adapter_has_none(self) -> None:
        assert adapter("socket://localhost:1") == {}
        assert adapter("/dev/null") == {}
