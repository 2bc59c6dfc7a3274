"""The host's end of a `UartWire` as a tty of the Linux kernel: an emulated USB serial adapter at its `cdc_acm` driver.

    tty = AcmTty(wire, "imu-uart")      # needs root and the modules vhci_hcd and cdc_acm
    print(tty.path)                     # "/dev/ttyACM0", for any program
    tty.close()

Rate, parity, modem lines and breaks reach the wire as the program sets them, through the driver that serves real
adapters. (The other end of the kernel's own serial gadget, usb_f_acm's ttyGS0, shows none of them.)

The adapter leaves USB when the wire is gone, and the tty with it; it comes back with the wire.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from ...transports import clock
from ..errors import AcmDriverAbsent
from ..usb.cdc_acm import CdcAcm
from ..usb.vhci import CONTROLLER, VhciHost
from ..usb.wire import UsbWire
from .wire import TRANSMIT_BUFFER, UartWire

BUNCH = 16
"""Bytes that are carried to the host in one go while more come in, as by a UART's FIFO."""
DEVICES = Path("/sys/bus/usb/devices")
DRIVER_SECONDS = 10.0
"""How long the kernel may take to make the tty."""
LOOK_AGAIN = 0.01


class AcmTty:
    """Serves the wire until it is closed; `path` is the tty's. `name`: the adapter's serial number.

    Raises VhciAbsent, VhciForbidden, VhciFull, AcmDriverAbsent, and OSError when the wire's host end is in use.
    """

    def __init__(self, wire: UartWire, name: str, controller: Path = CONTROLLER) -> None:
        clock.real("a tty of the kernel")
        self._wire = wire
        self._adapter = CdcAcm(wire, name)
        self._usb = UsbWire(f"{wire.channel}-usb-{uuid.uuid4().hex[:8]}", pace=0)
        self._port = self._usb.new_port()
        self._plugged = False
        self._calls = 0
        self._ended = False
        wire.host.listener = self._call
        self._host: VhciHost | None = None
        self._thread = clock.Thread(target=self._run, name=f"acm-{wire.channel}")
        try:
            self._follow()
            self._host = VhciHost(self._usb, controller)
            self._thread.start()
            self.path = self.wait_path(DRIVER_SECONDS)
        except BaseException:
            self.close()
            raise

    def wait_path(self, seconds: float) -> str:
        """The tty's path, as soon as there is one. Raises AcmDriverAbsent when it takes longer than that."""
        assert self._host is not None
        (place,) = self._host.places()
        ends = clock.monotonic() + seconds
        while True:
            for tty in DEVICES.glob(f"{place}:1.0/tty/tty*"):
                path = Path("/dev", tty.name)
                if path.exists():
                    return str(path)
            if clock.monotonic() >= ends:
                raise AcmDriverAbsent(f"the kernel made no tty for the USB serial adapter at {place}")
            clock.sleep(LOOK_AGAIN)

    def close(self) -> None:
        """The adapter leaves USB, and the tty with it. A second call does nothing."""
        if self._ended:
            return
        self._ended = True
        self._call()
        if self._thread.is_alive():
            self._thread.join()
        if self._host is not None:
            self._usb.unplug(self._port)
            self._host.close()
        self._wire.host.listener = lambda: None
        self._usb.close()
        self._adapter.release()

    def _call(self) -> None:
        """The wire's listener: whoever calls may hold locks, so that nothing is done here."""
        with self._usb.changed:
            self._calls += 1
            self._usb.changed.notify_all()

    def _run(self) -> None:
        seen = (-1, -1)
        while not self._ended:
            self._follow()
            self._carry()
            left = self._until_next()
            with self._usb.changed:
                if (self._calls, self._usb.changes) == seen:
                    self._usb.changed.wait(left)
                seen = (self._calls, self._usb.changes)

    def _follow(self) -> None:
        """Plugs the adapter in and out with the wire; an adapter that others have detached stays off until then."""
        gone = self._wire.is_gone
        if self._plugged and (gone or self._port.function is None):
            self._usb.unplug(self._port)
            self._adapter.let_go()
        if not self._plugged and not gone:
            self._usb.plug(self._port, self._adapter.function)
        self._plugged = not gone

    def _carry(self) -> None:
        adapter, host = self._adapter, self._wire.host
        was_empty = not host.unsent()
        adapter.function.ready()
        if was_empty and not host.unsent():
            # What there was no room for has been taken back by the host.
            adapter.is_full = False

    def _until_next(self) -> float | None:
        """Seconds until the wire has bytes for the host, or has room for the host's; None: nothing is due."""
        host = self._wire.host
        times = [None if self._wire.is_gone else self._wire.gone_at]
        if not host.available():
            times.append(host.due(max(1, min(BUNCH, host.expected()))))
        if self._adapter.is_full:
            half = host.free_at - TRANSMIT_BUFFER // 2 * host.byte_seconds
            times.append(max(half, clock.monotonic() + LOOK_AGAIN))
        known = [at for at in times if at is not None]
        return max(0.0, min(known) - clock.monotonic()) if known else None
