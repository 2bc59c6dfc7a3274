"""USB through pyusb: which device is meant, coming and going, transfers, and what each failure is called.

The bus is the emulated one, through its pyusb backend; where a back end must behave otherwise, a subclass of it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import usb.core
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.emulators.usb.backend import EmulatedUsbBackend
from proxyflash.emulators.usb.device import Descriptors, InterfaceDescriptor, Stall, UsbFunction
from proxyflash.emulators.usb.wire import Port, TransferTimeout, UsbWire
from proxyflash.transports import clock
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import (
    ExitStatus,
    TransportError,
    UsbAbsent,
    UsbAmbiguous,
    UsbBusy,
    UsbFault,
    UsbForbidden,
    UsbGone,
    UsbSettings,
    UsbStall,
    UsbTimeout,
)
from proxyflash.transports.usb.bus import UsbBus, UsbMatch
from proxyflash.transports.usb.failures import kind_of

Request = Callable[[int, int, int, int, bytes, int], bytes]
LONG = 300.0
"""Seconds that nothing here takes, unless it hangs."""


def refuse(*request: object) -> bytes:
    raise Stall


def mute(*request: object) -> bytes:
    raise TransferTimeout


class Host:
    """A bus, devices to be plugged into it, and the host's end."""

    def __init__(self, backend: type[EmulatedUsbBackend] = EmulatedUsbBackend) -> None:
        self.wire = UsbWire(f"host-{id(self)}", pace=0)
        self.bus = UsbBus("usb", backend(self.wire))

    def plug(
        self, serial: str = "A", *, ids: tuple[int, int] = (0x1209, 1), request: Request = refuse, port: Port | None = None,
        alternates: int = 1,
    ) -> Port:  # fmt: skip
        port = port or self.wire.new_port()
        interfaces = tuple(
            InterfaceDescriptor(0, number, 0xFE, 1, 2, f"Setting {number}", b"\x09\x21") for number in range(alternates)
        )
        about = Descriptors(*ids, 0x0150, "Acme", "Sensor", serial, interfaces, "FW")
        self.wire.plug(port, UsbFunction(about, request, lambda: self.wire.unplug(port)))
        return port

    def close(self) -> None:
        self.bus.close()
        self.wire.close()


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


# Which device.


def test_what_the_descriptors_say(host: Host) -> None:
    host.plug("A", alternates=2)
    (info,) = host.bus.list()
    assert (info.vendor_id, info.product_id, info.bcd_device) == (0x1209, 1, 0x0150)
    assert (info.manufacturer, info.product, info.serial, info.port) == ("Acme", "Sensor", "A", "1-1")
    assert [(item.number, item.alternate, item.name, item.extra) for item in info.interfaces] == [
        (0, 0, "Setting 0", b"\x09\x21"),
        (0, 1, "Setting 1", b"\x09\x21"),
    ]
    assert {(item.class_code, item.subclass, item.protocol, item.configuration) for item in info.interfaces} == {
        (0xFE, 1, 2, 1)
    }
    assert str(info) == "1209:0001 at port 1-1"


@pytest.mark.parametrize(
    ("match", "serials"),
    [
        (UsbMatch(), ["A", "B", "A"]),
        (UsbMatch(0x1209), ["A", "B"]),
        (UsbMatch(0x1209, 2), ["B"]),
        (UsbMatch(product_id=1), ["A", "A"]),
        (UsbMatch(serial="A"), ["A", "A"]),
        (UsbMatch(0x1209, serial="A"), ["A"]),
        (UsbMatch(port="1-3"), ["A"]),
        (UsbMatch(0x1209, port="1-3"), []),
        (UsbMatch(serial="a"), []),
    ],
)
def test_matching(host: Host, match: UsbMatch, serials: list[str]) -> None:
    host.plug("A")
    host.plug("B", ids=(0x1209, 2))
    host.plug("A", ids=(0x0483, 1))
    assert [info.serial for info in host.bus.list(match)] == serials


def test_none_matches(host: Host) -> None:
    host.plug()
    with pytest.raises(UsbAbsent, match="no USB device 0483:df11, serial X, port 1-9") as caught:
        host.bus.open_device(UsbMatch(0x0483, 0xDF11, "X", "1-9"))
    assert caught.value.exit_status is ExitStatus.ABSENT


def test_several_match(host: Host) -> None:
    host.plug("A")
    host.plug("B")
    with pytest.raises(
        UsbAmbiguous, match="2 USB devices are 1209:0001: serial A at port 1-1, serial B at port 1-2"
    ) as one:
        host.bus.open_device(UsbMatch(0x1209, 1))
    assert 'serial = "A" or serial = "B"' in one.value.remedy
    host.plug("A")
    with pytest.raises(UsbAmbiguous) as other:
        host.bus.open_device(UsbMatch(serial="A"))
    assert 'port = "1-1" or port = "1-3"' in other.value.remedy
    assert host.bus.open_device(UsbMatch(port="1-3")).info.port == "1-3"


def test_one_that_may_not_be_opened(host: Host) -> None:
    port = host.plug("A")
    assert port.function is not None
    port.function.forbidden = True
    # It is listed all the same, without what only its strings tell.
    (info,) = host.bus.list()
    assert (info.product_id, info.serial, info.product) == (1, "", "")
    with pytest.raises(UsbForbidden):
        host.bus.open_device(UsbMatch(0x1209))
    with pytest.raises(UsbForbidden, match="serial number"):
        host.bus.open_device(UsbMatch(0x1209, serial="A"))


def test_one_that_another_program_uses(host: Host) -> None:
    port = host.plug()
    device = host.bus.open_device(UsbMatch())
    assert port.function is not None
    port.function.busy = True
    with pytest.raises(UsbBusy) as caught:
        device.claim(0)
    assert caught.value.exit_status is ExitStatus.BUSY


@pytest.mark.parametrize(("interface", "alternate"), [(1, 0), (0, 2)])
def test_an_interface_that_it_lacks(host: Host, interface: int, alternate: int) -> None:
    host.plug(alternates=2)
    with pytest.raises(UsbAbsent, match=f"no interface {interface} with alternate setting {alternate}"):
        host.bus.open_device(UsbMatch()).claim(interface, alternate)


# Transfers.


def test_transfers(host: Host) -> None:
    seen: list[Any] = []

    def answer(kind: int, request: int, value: int, index: int, data: bytes, length: int) -> bytes:
        seen.append((kind, request, value, index, data, length))
        return b"abc" if kind & 0x80 else b""

    host.plug(request=answer)
    device = host.bus.open_device(UsbMatch())
    device.claim(0)
    assert device.control_out(0x21, 1, 0xFFFF, 0, b"12345", Deadline.after(LONG)) == 5
    assert device.control_in(0xA1, 2, 7, 0, 64, Deadline.after(LONG)) == b"abc"
    assert seen == [(0x21, 1, 0xFFFF, 0, b"12345", 5), (0xA1, 2, 7, 0, b"", 64)]


def test_a_stall_and_a_mute_device(host: Host) -> None:
    stalling = host.plug("A")
    host.plug("B", request=mute)
    device = host.bus.open_device(UsbMatch(serial="A"))
    with pytest.raises(UsbStall, match=r"control request 0x03, USB device 1209:0001 at port 1-1"):
        device.control_in(0xA1, 3, 0, 0, 6, Deadline.after(LONG))
    with pytest.raises(UsbTimeout):
        host.bus.open_device(UsbMatch(serial="B")).control_in(0xA1, 3, 0, 0, 6, Deadline.after(LONG))
    host.wire.unplug(stalling)
    with pytest.raises(UsbGone):
        device.control_in(0xA1, 3, 0, 0, 6, Deadline.after(LONG))


def test_nothing_is_sent_after_the_deadline(host: Host) -> None:
    host.plug(request=lambda *request: pytest.fail("it was sent"))
    device = host.bus.open_device(UsbMatch())
    with pytest.raises(UsbTimeout, match="not sent"):
        device.control_out(0x21, 1, 0, 0, b"", Deadline.after(0))


def test_the_time_limit_of_a_transfer_is_what_is_left_and_never_none(host: Host) -> None:
    host.plug(request=lambda *request: b"")
    device = host.bus.open_device(UsbMatch())
    device.claim(0)
    limits: list[int] = []
    passed_on = host.bus._backend.ctrl_transfer

    def note(*arguments: Any) -> Any:
        limits.append(arguments[-1])
        return passed_on(*arguments)

    host.bus._backend.ctrl_transfer = note
    for seconds in (LONG, 0.5, 1e9):
        device.control_out(0x21, 1, 0, 0, b"", Deadline.after(seconds))
    assert 0 < limits[1] <= 500 < limits[0] <= LONG * 1000
    assert limits[2] == 2**31 - 1


def test_unplugged_in_the_middle(host: Host) -> None:
    """An error at once, not a hang."""
    ports: list[Port] = []

    def leave(*request: object) -> bytes:
        host.wire.unplug(ports[0])
        from proxyflash.emulators.supply import PowerLost

        raise PowerLost

    ports.append(host.plug(request=leave))
    device = host.bus.open_device(UsbMatch())
    began = clock.monotonic()
    with pytest.raises(UsbGone) as caught:
        device.control_out(0x21, 1, 0, 0, bytes(2048), Deadline.after(LONG))
    assert clock.monotonic() - began < LONG / 2
    assert caught.value.remedy
    device.close()


def test_a_device_that_leaves_while_it_is_given_time(host: Host) -> None:
    port = host.plug()
    host.plug("B")
    device = host.bus.open_device(UsbMatch(serial="A"))
    timer = soon(lambda: host.wire.unplug(port))
    began = clock.monotonic()
    with pytest.raises(UsbGone, match="left while"):
        device.wait(LONG)
    assert clock.monotonic() - began < LONG / 2
    timer.join()


def test_one_that_comes_back_at_once_has_left_too(host: Host) -> None:
    port = host.plug()
    device = host.bus.open_device(UsbMatch())
    timer = soon(lambda: host.plug(port=port))
    with pytest.raises(UsbGone):
        device.wait(LONG)
    timer.join()


def test_one_that_stays_gets_all_its_time() -> None:
    """Also where a back end fails to list what is there."""

    class Failing(EmulatedUsbBackend):
        lists = True

        def enumerate_devices(self) -> Iterator[Any]:
            if not self.lists:
                raise usb.core.USBError("", -1, errno.EIO)
            return super().enumerate_devices()

    host = Host(Failing)
    host.plug()
    device = host.bus.open_device(UsbMatch())
    for Failing.lists in (True, False):
        began = clock.monotonic()
        device.wait(0.6)
        assert clock.monotonic() - began >= 0.6
    host.close()


def test_a_closed_device_is_not_opened_again(host: Host) -> None:
    host.plug(request=lambda *request: b"")
    device = host.bus.open_device(UsbMatch())
    device.claim(0)
    device.close()
    device.close()
    for action in (
        lambda: device.control_in(0xA1, 3, 0, 0, 6, Deadline.after(LONG)),
        lambda: device.claim(0),
        device.reset,
    ):
        with pytest.raises(UsbGone, match="was closed"):
            action()
    # What it had claimed is free.
    host.bus.open_device(UsbMatch()).claim(0)


def test_closing_the_bus_closes_its_devices(host: Host) -> None:
    host.plug()
    with host.bus as bus:
        device = bus.open_device(UsbMatch())
    with pytest.raises(UsbGone):
        device.claim(0)


def test_a_reset_ends_the_device(host: Host) -> None:
    port = host.plug()
    device = host.bus.open_device(UsbMatch())
    device.reset()
    assert port.function is None
    with pytest.raises(UsbGone):
        device.claim(0)


# Coming and going.


class Blind(EmulatedUsbBackend):
    """A back end that reports no changes, as libusb's."""

    wait_change = None  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> Any:
        if name == "wait_change":
            raise AttributeError(name)
        return super().__getattribute__(name)


@pytest.fixture(params=[EmulatedUsbBackend, Blind], ids=["notified of changes", "looks again"])
def either(request: pytest.FixtureRequest) -> Iterator[Host]:
    host = Host(request.param)
    yield host
    host.close()


def soon(action: Callable[[], object]) -> clock.SomeTimer:
    timer = clock.Timer(0.03, action)
    timer.start()
    return timer


def test_waiting_for_a_device_that_comes(either: Host) -> None:
    port = either.wire.new_port()
    timer = soon(lambda: either.plug("B", port=port))
    device = either.bus.wait_for([UsbMatch(0x0483), UsbMatch(0x1209, serial="B")], Deadline.after(LONG))
    assert device.info.serial == "B"
    timer.join()


def test_waiting_for_the_first_match_that_is_there(host: Host) -> None:
    host.plug("A")
    host.plug("B", ids=(0x0483, 1))
    assert host.bus.wait_for([UsbMatch(0x0483), UsbMatch(0x1209)], Deadline.after(LONG)).info.serial == "B"


def test_waiting_in_vain(either: Host) -> None:
    either.plug()
    began = clock.monotonic()
    with pytest.raises(UsbAbsent, match="no USB device 0483:any or any:0007 came"):
        either.bus.wait_for([UsbMatch(0x0483), UsbMatch(product_id=7)], Deadline.after(0.05))
    assert clock.monotonic() - began >= 0.05


def test_waiting_for_one_that_may_not_be_opened_yet(either: Host) -> None:
    function = either.plug().function
    assert function is not None
    function.forbidden = True
    with pytest.raises(UsbForbidden):
        either.bus.wait_for([UsbMatch()], Deadline.after(0.05))
    timer = soon(lambda: setattr(function, "forbidden", False))
    assert either.bus.wait_for([UsbMatch()], Deadline.after(LONG)).info.serial == "A"
    timer.join()


def test_waiting_for_one_of_two_alike(host: Host) -> None:
    host.plug()
    host.plug()
    with pytest.raises(UsbAmbiguous):
        host.bus.wait_for([UsbMatch(0x1209)], Deadline.after(LONG))


def test_waiting_until_it_is_gone(either: Host) -> None:
    port = either.plug()
    assert not either.bus.wait_gone(UsbMatch(), Deadline.after(0.03))
    timer = soon(lambda: either.wire.unplug(port))
    assert either.bus.wait_gone(UsbMatch(0x1209), Deadline.after(LONG))
    timer.join()
    assert either.bus.wait_gone(UsbMatch(), Deadline.after(0))


def test_a_device_that_re_enumerates_has_gone(either: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    port = either.plug()
    timers: list[clock.SomeTimer] = []
    backend = either.bus._backend
    look = backend.enumerate_devices

    def looked() -> Iterator[Any]:
        # Not before it has been seen.
        found = [*look()]
        if not timers:
            timers.append(soon(lambda: either.plug(port=port)))
        return iter(found)

    monkeypatch.setattr(backend, "enumerate_devices", looked)
    assert either.bus.wait_gone(UsbMatch(serial="A"), Deadline.after(LONG))
    timers[0].join()
    # Also when it did so before anyone waited: the opened one is gone.
    either.bus.open_device(UsbMatch()).close()
    either.plug(port=port)
    assert either.bus.wait_gone(UsbMatch(), Deadline.after(0))


def test_waiting_to_see_one_without_opening_it(either: Host) -> None:
    assert either.bus.wait_seen(UsbMatch(), Deadline.after(0.03)) is None
    port = either.wire.new_port()
    timer = soon(lambda: either.plug("B", port=port))
    info = either.bus.wait_seen(UsbMatch(port="1-1"), Deadline.after(LONG))
    assert info is not None
    assert info.serial == "B"
    timer.join()
    assert either.bus.wait_seen(UsbMatch(), Deadline.after(0.03), lambda info: info.serial == "C") is None
    function = port.function
    assert function is not None
    function.forbidden = True
    assert either.bus.wait_seen(UsbMatch(), Deadline.after(LONG)) is not None


# Kernel drivers.


class Driven(EmulatedUsbBackend):
    """A back end with a kernel driver on interface 0."""

    def __init__(self, wire: UsbWire) -> None:
        super().__init__(wire)
        self.calls: list[str] = []
        self.active = True

    def is_kernel_driver_active(self, dev_handle: Any, intf: int) -> bool:
        return self.active

    def detach_kernel_driver(self, dev_handle: Any, intf: int) -> None:
        self.calls.append(f"detach {intf}")
        self.active = False

    def attach_kernel_driver(self, dev_handle: Any, intf: int) -> None:
        self.calls.append(f"attach {intf}")
        self.active = True


class Driverless(EmulatedUsbBackend):
    """A back end that knows no kernel drivers."""

    def is_kernel_driver_active(self, dev_handle: Any, intf: int) -> bool:
        raise NotImplementedError


def test_a_kernel_driver_is_detached_and_given_back() -> None:
    host = Host(Driven)
    host.plug()
    device = host.bus.open_device(UsbMatch())
    device.claim(0)
    device.claim(0)
    device.close()
    assert host.bus._backend.calls == ["detach 0", "attach 0"]
    host.close()


def test_a_back_end_without_kernel_drivers() -> None:
    host = Host(Driverless)
    host.plug()
    host.bus.open_device(UsbMatch()).claim(0)
    host.close()


# Strings.


class Talking(UsbFunction):
    """Answers string requests with what it was made to say."""

    def __init__(self, about: Descriptors, answers: Callable[[int], bytes]) -> None:
        super().__init__(about, refuse, lambda: None)
        self.answers = answers
        self.asked: list[int] = []

    def _descriptor(self, kind: int, index: int) -> bytes:
        if kind != 3:
            return super()._descriptor(kind, index)
        self.asked.append(index)
        return self.answers(index)


def talking(host: Host, answers: Callable[[int], bytes]) -> Talking:
    about = Descriptors(1, 2, 3, "Acme", "Sensor", "A", (InterfaceDescriptor(0, 0, 0xFE, 1, 2, "Slot"),))
    function = Talking(about, answers)
    host.wire.plug(host.wire.new_port(), function)
    return function


def test_a_string_that_is_refused_hides_no_other(host: Host) -> None:
    def answers(index: int) -> bytes:
        if index == 1:
            raise Stall
        return {0: b"\x04\x03\x09\x04"}.get(index, b"\x04\x03" + bytes([ord("a") + index, 0]))

    talking(host, answers)
    (info,) = host.bus.list()
    assert (info.manufacturer, info.product, info.serial) == ("", "c", "d")


def test_a_mute_device_is_asked_but_once(host: Host) -> None:
    function = talking(host, lambda index: mute())
    (info,) = host.bus.list()
    assert (info.manufacturer, info.product, info.serial, info.interfaces[0].name) == ("", "", "", "")
    assert len(function.asked) == 1


@given(st.binary(max_size=64), st.binary(max_size=64))
@settings(max_examples=150, deadline=None)
def test_any_answer_to_a_string_request(languages: bytes, text: bytes) -> None:
    host = Host()
    try:
        talking(host, lambda index: text if index else languages)
        (info,) = host.bus.list()
        assert isinstance(info.serial, str)
        assert info.product_id == 2
    finally:
        host.close()


# Failures.


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        # The operating system's number where there is one; else libusb 1.0's, enum libusb_error.
        (usb.core.USBError("", -9, errno.EPIPE), UsbStall),
        (usb.core.USBError("", -7, errno.ETIMEDOUT), UsbTimeout),
        (usb.core.USBTimeoutError("", -7, errno.ETIMEDOUT), UsbTimeout),
        (usb.core.USBTimeoutError(""), UsbTimeout),
        (usb.core.USBError("", -4, errno.ENODEV), UsbGone),
        (usb.core.USBError("", -5, errno.ENOENT), UsbGone),
        (usb.core.USBError("", -1, errno.EIO), UsbGone),
        (usb.core.USBError("", -3, errno.EACCES), UsbForbidden),
        (usb.core.USBError("", -6, errno.EBUSY), UsbBusy),
        (usb.core.USBError("", -8, errno.EOVERFLOW), UsbFault),
        (usb.core.USBError("", -9), UsbStall),
        (usb.core.USBError("", -7), UsbTimeout),
        (usb.core.USBError("", -4), UsbGone),
        (usb.core.USBError("", -3), UsbForbidden),
        (usb.core.USBError("", -6), UsbBusy),
        (usb.core.USBError("", -99), UsbFault),
        (usb.core.USBError("odd"), UsbFault),
        (NotImplementedError(), UsbFault),
    ],
)
def test_what_an_error_of_pyusb_is(error: Exception, kind: type[TransportError]) -> None:
    assert kind_of(error) is kind


def test_an_unknown_error_says_what_it_was(host: Host) -> None:
    host.plug()
    device = host.bus.open_device(UsbMatch())

    def fail(*arguments: Any) -> Any:
        raise usb.core.USBError("Overflow", -8, errno.EOVERFLOW)

    host.bus._backend.ctrl_transfer = fail
    with pytest.raises(UsbFault, match="Overflow") as caught:
        device.control_in(0x80, 8, 0, 0, 1, Deadline.after(LONG))
    assert caught.value.remedy


@pytest.mark.real_time("the USB of this host")
def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    import usb.backend.libusb1

    with pytest.raises(UsbSettings, match="no key 'speed'"):
        UsbBus.open("usb", {"speed": "full"})
    monkeypatch.setattr(usb.backend.libusb1, "get_backend", lambda: None)
    with pytest.raises(UsbAbsent, match="libusb") as caught:
        UsbBus.open("usb", {})
    assert "apt install" in caught.value.remedy
    wire = UsbWire("given", pace=0)
    bus = UsbBus.open("usb", {"backend": EmulatedUsbBackend(wire)})
    assert list(bus.list()) == []
    wire.close()
