"""Serial ports over real pseudo-terminals, sockets, pyserial's loop:// and its own RFC 2217 server."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import serial
import serial.rfc2217
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.tests.transports.threads import in_thread
from proxyflash.transports import clock
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import (
    SerialAbsent,
    SerialBusy,
    SerialFraming,
    SerialGone,
    SerialSettings,
    SerialTimeout,
)
from proxyflash.transports.serial import host, usb_tty
from proxyflash.transports.serial.port import SerialPort

pytestmark = pytest.mark.real_time("pseudo-terminals and sockets")

LONG = 300.0
"""Seconds that no test is meant to wait: a deadline this far is only reached by what hangs."""


class Pty:
    """A pseudo-terminal: the test holds the master, the port under test is the slave's path."""

    def __init__(self) -> None:
        self.master, slave = os.openpty()
        self.path = os.ttyname(slave)
        self._slave: int | None = slave
        self._open = True

    def port(self, **keys: Any) -> SerialPort:
        """Opens the slave; from then on nothing but the port holds it."""
        port = SerialPort.open("uart", {"url": self.path, "baudrate": 115_200, **keys})
        self.release()
        return port

    def release(self) -> None:
        if self._slave is not None:
            os.close(self._slave)
            self._slave = None

    def unplug(self) -> None:
        if self._open:
            self._open = False
            os.close(self.master)

    def close(self) -> None:
        self.release()
        self.unplug()


@pytest.fixture
def pty() -> Iterator[Pty]:
    pair = Pty()
    yield pair
    pair.close()


def soon() -> Deadline:
    return Deadline.after(LONG)


def past() -> Deadline:
    return Deadline.after(0.0)


# Reading and writing.


def test_bytes_pass_unchanged_both_ways(pty: Pty) -> None:
    every = bytes(range(256))
    with pty.port() as port:
        port.write(every, soon())
        assert os.read(pty.master, 1000) == every
        os.write(pty.master, every)
        assert port.read_exactly(256, soon()) == every


def test_a_unit_is_one_write(pty: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        writes.append(data)
        return real(descriptor, data)

    with pty.port() as port:
        monkeypatch.setattr(os, "write", write)
        port.write(b"\x11\xee", soon())
    assert writes == [b"\x11\xee"]


def test_read_exactly_waits_for_the_rest(pty: Pty) -> None:
    with pty.port() as port:
        os.write(pty.master, b"ab")
        reader = in_thread(lambda: port.read_exactly(4, soon()))
        os.write(pty.master, b"cdef")
        assert reader.result(LONG) == b"abcd"
        assert port.read_some(soon()) == b"ef"


def test_read_exactly_of_nothing_waits_for_nothing(pty: Pty) -> None:
    with pty.port() as port:
        assert port.read_exactly(0, soon()) == b""


def test_a_timeout_hands_over_what_came(pty: Pty) -> None:
    with pty.port() as port:
        os.write(pty.master, b"abc")
        with pytest.raises(SerialTimeout) as caught:
            port.read_exactly(5, Deadline.after(0.02))
        assert caught.value.received == b"abc"
        assert caught.value.cause.startswith("3 of 5 bytes")
        with pytest.raises(SerialTimeout) as caught:
            port.read_exactly(1, past())
        assert caught.value.received == b""


def test_what_is_there_is_read_even_when_the_deadline_has_passed(pty: Pty) -> None:
    with pty.port() as port:
        os.write(pty.master, b"abc")
        assert port.read_exactly(2, past()) == b"ab"
        assert port.read_some(past()) == b"c"
        assert port.read_some(past()) == b""


def test_read_some_takes_at_most_its_limit(pty: Pty) -> None:
    with pty.port() as port:
        os.write(pty.master, b"abcde")
        assert port.read_some(soon(), limit=2) == b"ab"
        assert port.read_some(soon()) == b"cde"


def test_read_until_leaves_what_follows(pty: Pty) -> None:
    with pty.port() as port:
        os.write(pty.master, b"one\r\ntwo\r\nthree")
        assert port.read_until(b"\r\n", soon()) == b"one\r\n"
        assert port.read_exactly(2, soon()) == b"tw"
        assert port.read_until(b"\r\n", soon()) == b"o\r\n"
        assert port.read_exactly(5, soon()) == b"three"


def test_read_until_without_the_end(pty: Pty) -> None:
    with pty.port() as port:
        os.write(pty.master, b"never")
        with pytest.raises(SerialTimeout) as caught:
            port.read_until(b"\n", Deadline.after(0.02))
        assert caught.value.received == b"never"


def test_read_until_gives_up_after_its_limit(pty: Pty) -> None:
    with pty.port() as port:
        os.write(pty.master, b"0123456789\n")
        with pytest.raises(SerialFraming, match="8 bytes"):
            port.read_until(b"\n", soon(), limit=8)
        assert port.read_until(b"\n", soon()) == b"89\n"


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=1, max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_lines_survive_any_split(data: bytes, cuts: list[int]) -> None:
    text = data + b"\n"
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pair = Pty()
    try:
        with pair.port() as port:
            pieces = [text[a:b] for a, b in pairwise(places)]
            writer = in_thread(lambda: [os.write(pair.master, piece) for piece in pieces])
            lines = [port.read_until(b"\n", soon()) for _ in range(text.count(b"\n"))]
            writer.result(LONG)
        assert lines == text.splitlines(keepends=True) if b"\r" not in text else b"".join(lines) == text
    finally:
        pair.close()


def test_drain_returns_what_it_forgets(pty: Pty) -> None:
    with pty.port() as port:
        os.write(pty.master, b"one\nrubbish")
        port.read_until(b"\n", soon())
        assert port.drain() == b"rubbish"
        assert port.drain() == b""
        assert port.read_some(past()) == b""


def test_write_stops_at_the_deadline_when_nobody_reads(pty: Pty) -> None:
    with pty.port() as port, pytest.raises(SerialTimeout, match="of 1000000 bytes"):
        port.write(bytes(1_000_000), Deadline.after(0.05))


def test_a_long_write_goes_on_as_the_other_side_reads(pty: Pty) -> None:
    data = os.urandom(200_000)
    with pty.port() as port:
        writer = in_thread(lambda: port.write(data, soon()))
        came = b""
        while len(came) < len(data):
            came += os.read(pty.master, 65_536)
        writer.result(LONG)
    assert came == data


# The port goes away.


@pytest.mark.parametrize(
    "read",
    [
        lambda port: port.read_exactly(1, soon()),
        lambda port: port.read_until(b"\n", soon()),
        lambda port: port.read_some(soon()),
    ],
)
def test_unplugging_ends_a_blocked_read(pty: Pty, read: Callable[[SerialPort], bytes]) -> None:
    with pty.port() as port:
        begun = clock.Event()

        def work() -> bytes:
            assert port.read_exactly(1, soon()) == b"x"
            begun.set()
            return read(port)

        reader = in_thread(work)
        os.write(pty.master, b"x")
        assert begun.wait(LONG)
        pty.unplug()
        with pytest.raises(SerialGone, match=pty.path):
            reader.result(LONG / 10)


def test_unplugging_ends_a_blocked_write(pty: Pty) -> None:
    with pty.port() as port:
        writer = in_thread(lambda: port.write(bytes(1_000_000), soon()))
        assert os.read(pty.master, 1) == b"\x00"
        pty.unplug()
        with pytest.raises(SerialGone):
            writer.result(LONG / 10)


def test_everything_on_an_unplugged_port_says_gone(pty: Pty) -> None:
    with pty.port() as port:
        pty.unplug()
        for use in (
            lambda: port.write(b"x", soon()),
            lambda: port.read_some(soon()),
            port.drain,
            lambda: port.set_line(baudrate=9600),
        ):
            with pytest.raises(SerialGone):
                use()


def test_a_closed_port_is_gone_and_closes_twice(pty: Pty) -> None:
    port = pty.port()
    port.close()
    port.close()
    with pytest.raises(SerialGone, match="closed"):
        port.read_some(soon())
    with pytest.raises(SerialGone, match="closed"):
        port.write(b"x", soon())


# Opening fails, each way by its own error.


def test_an_absent_port() -> None:
    with pytest.raises(SerialAbsent, match="no port /dev/ttyNothing"):
        SerialPort.open("uart", {"url": "/dev/ttyNothing"})


def test_an_absent_port_where_no_folder_lists_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """udev makes /dev/serial/by-id with the first USB port."""
    monkeypatch.setattr(usb_tty, "TTYS", tmp_path)
    for folder, told in ((tmp_path / "gone", "Is the adapter plugged in?"), (tmp_path, "ls -l /dev/serial/by-id")):
        monkeypatch.setattr(host, "BY_ID", folder)
        with pytest.raises(SerialAbsent) as caught:
            SerialPort.open("uart", {"url": "/dev/ttyNothing"})
        assert told in caught.value.remedy


def test_an_absent_port_in_an_absent_folder(tmp_path: Path) -> None:
    with pytest.raises(SerialAbsent, match=f"nor its folder {tmp_path}/by-id"):
        SerialPort.open("uart", {"url": f"{tmp_path}/by-id/usb-FTDI"})


def test_an_absent_port_while_another_error_is_handled() -> None:
    try:
        raise PermissionError(errno.EACCES, "of something else")
    except PermissionError:
        with pytest.raises(SerialAbsent):
            SerialPort.open("uart", {"url": "hwgrep://no-such-adapter"})


def test_a_port_that_another_process_has_locked(pty: Pty) -> None:
    program = f"import serial; port = serial.Serial({pty.path!r}, exclusive=True); print('locked', flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "locked\n"
        name = Path(f"/proc/{holder.pid}/comm").read_text().strip()
        with pytest.raises(SerialBusy) as caught:
            pty.port()
        assert f"{name} (pid {holder.pid})" in caught.value.cause
    finally:
        holder.communicate("\n")
    pty.port().close()


def test_a_port_that_this_process_has_open_already(pty: Pty) -> None:
    with pty.port(), pytest.raises(SerialBusy, match=f"pid {os.getpid()}"):
        pty.port()


def test_a_port_that_the_system_calls_busy(pty: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system call fails so for TIOCEXCL of another program, but not for root, whom tests may run as."""
    real = os.open

    def busy(path: Any, *rest: Any, **more: Any) -> int:
        if path == pty.path:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", busy)
    with pytest.raises(SerialBusy, match=r"\(pid"):
        pty.port()


FORBIDDEN = """
import os, sys
from proxyflash.transports.serial.port import SerialPort
from proxyflash.transports.errors import SerialForbidden
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    SerialPort.open("uart", {"url": sys.argv[1]})
except SerialForbidden as error:
    print(error.cause, "|", error.remedy)
"""


def test_a_forbidden_port_names_its_group(pty: Pty) -> None:
    import grp

    group = next(entry for entry in grp.getgrall() if entry.gr_gid == (20 if os.getuid() == 0 else os.getgid()))
    os.chown(pty.path, -1, group.gr_gid)
    Path(pty.path).chmod(0)
    done = subprocess.run([sys.executable, "-c", FORBIDDEN, pty.path], capture_output=True, text=True, check=True)
    assert done.stdout == (
        f"this user may not open {pty.path} | Add yourself to the port's group: "
        f"sudo usermod -aG {group.gr_name} $USER, then log in again.\n"
    )


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"baud": 9600}, "baud"),
        ({"timeout": 1.0}, "timeout"),
        ({"baudrate": "fast"}, "baudrate"),
        ({"baudrate": True}, "baudrate"),
        ({"baudrate": 0}, "baudrate"),
        ({"baudrate": 2**40}, "greater"),
        ({"bytesize": 9}, "byte size"),
        ({"parity": "even"}, "parity"),
        ({"stopbits": 3}, "stop bit"),
        ({"rtscts": "yes"}, "rtscts"),
        ({"url": ""}, "url"),
        ({"url": "telepathy://front-radar"}, "telepathy"),
        ({"url": "loop://?colour=red"}, "colour"),
        ({"url": "socket://localhost"}, "socket"),
        ({"url": "socket://localhost:99999"}, "socket"),
    ],
)
def test_bad_settings(pty: Pty, keys: dict[str, Any], word: str) -> None:
    with pytest.raises(SerialSettings) as caught:
        SerialPort.open("uart", {"url": pty.path, **keys})
    assert word in caught.value.cause


def test_a_rate_beyond_32_bits_is_refused_before_anything_is_opened() -> None:
    for rate in (2**31, 2**40, 10**3000):
        with pytest.raises(SerialSettings, match="greater than 2,147,483,647 bit/s"):
            SerialPort.check("uart", {"url": "/dev/ttyS0", "baudrate": rate})
    SerialPort.check("uart", {"url": "/dev/ttyS0", "baudrate": 2**31 - 1})


def test_a_file_is_no_port(tmp_path: Path) -> None:
    path = tmp_path / "firmware.bin"
    path.write_bytes(b"")
    for url in (path, tmp_path):
        with pytest.raises(SerialSettings, match=str(url)):
            SerialPort.open("uart", {"url": str(url)})


def test_a_failed_opening_leaves_the_port_free(pty: Pty) -> None:
    with pytest.raises(SerialSettings):
        pty.port(baudrate=2**40)
    pty.port().close()


# The line.


@pytest.mark.parametrize("keys", [{"parity": "E"}, {"parity": "O"}, {"bytesize": 7}, {"parity": "E", "bytesize": 7}])
def test_a_pseudo_terminal_opens_without_the_parity_that_it_lacks(pty: Pty, keys: dict[str, Any]) -> None:
    with pty.port(**keys) as port:
        os.write(pty.master, b"\x7f\xff")
        assert port.read_exactly(2, soon()) == b"\x7f\xff"


def test_a_pseudo_terminal_changes_rate_but_not_parity(pty: Pty) -> None:
    with pty.port(parity="E") as port:
        assert port.set_line(parity="O") is False
        assert port.set_line(parity="N") is True
        assert port.set_line(baudrate=9600, parity="E") is False
        assert (port.baudrate, port.parity) == (9600, "N")
        assert termios.tcgetattr(pty.master)[4] == termios.B9600
        assert port.set_line(baudrate=250_000) is True
        port.write(b"x", soon())
        assert os.read(pty.master, 10) == b"x"


def test_set_line_refuses_what_is_no_rate_and_no_parity(pty: Pty) -> None:
    with pty.port() as port:
        for keys in ({"baudrate": 0}, {"baudrate": 2**40}, {"parity": "even"}):
            with pytest.raises(SerialSettings):
                port.set_line(**keys)
        assert port.set_line(baudrate=19_200) is True
        assert termios.tcgetattr(pty.master)[4] == termios.B19200


def test_a_driver_that_refuses_parity_keeps_the_one_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with SerialPort.open("uart", {"url": "loop://"}) as port:
        before = serial.serial_for_url("loop://", do_not_open=True).parity

        def refuse(port: Any) -> None:
            if port.parity != before:
                raise termios.error(errno.EINVAL, "Invalid argument")

        monkeypatch.setattr("serial.urlhandler.protocol_loop.Serial._reconfigure_port", refuse)
        assert port.set_line(parity="E") is False
        assert port.set_line(baudrate=57_600) is True


def test_a_pseudo_terminal_has_no_modem_lines(pty: Pty) -> None:
    with pty.port(dtr=False, rts=False) as port:
        assert port.set_modem(dtr=True) is False
        assert port.set_modem(rts=False) is False


# Bits of TIOCMGET and TIOCMSET (Linux, include/uapi/asm-generic/termios.h).
DTR, RTS, CTS = 0x002, 0x004, 0x020


class ModemLines:
    """Answers the modem ioctls of a port as a UART would: pseudo-terminals have none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = DTR | RTS | CTS
        self.seen: list[int] = []
        self._ioctl = fcntl.ioctl
        monkeypatch.setattr(fcntl, "ioctl", self._answer)

    def _answer(self, descriptor: int, request: int, *rest: Any) -> Any:
        if request == termios.TIOCMGET:
            return struct.pack("I", self.state)
        if request in (termios.TIOCMSET, termios.TIOCMBIS, termios.TIOCMBIC):
            (bits,) = struct.unpack("I", rest[0])
            changed = {termios.TIOCMSET: bits, termios.TIOCMBIS: self.state | bits}
            self.state = changed.get(request, self.state & ~bits)
            self.seen.append(self.state)
            return rest[0]
        return self._ioctl(descriptor, request, *rest)


def test_both_modem_lines_change_at_once(pty: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ModemLines(monkeypatch)
    with pty.port() as port:
        lines.seen.clear()
        assert port.set_modem(dtr=False, rts=True) is True
        assert port.set_modem(dtr=True, rts=False) is True
        assert port.set_modem(rts=True) is True
    assert lines.seen == [RTS | CTS, DTR | CTS, DTR | RTS | CTS]


def test_named_lines_are_released_at_opening_and_unnamed_ones_stay(pty: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ModemLines(monkeypatch)
    with pty.port(dtr=False):
        assert lines.state == RTS | CTS
    assert DTR not in lines.seen


def test_opening_changes_no_unnamed_line(pty: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ModemLines(monkeypatch)
    with pty.port():
        assert set(lines.seen) <= {DTR | RTS | CTS}


@pytest.mark.parametrize("hupcl", [True, False])
def test_hupcl_is_set_as_named_and_survives_a_change_of_rate(pty: Pty, hupcl: bool) -> None:
    with pty.port(hupcl=hupcl) as port:
        port.set_line(baudrate=9600)
        assert bool(termios.tcgetattr(pty.master)[2] & termios.HUPCL) is hupcl


def test_low_latency_is_asked_of_the_driver(pty: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(serial.Serial, "set_low_latency_mode", lambda port, value: asked.append(value))
    pty.port().close()
    assert asked == [True]


def test_a_port_may_be_shared_if_asked(pty: Pty) -> None:
    with pty.port(exclusive=False), pty.port(exclusive=False):
        pass


# Other URLs.


def test_loop() -> None:
    with SerialPort.open("uart", {"url": "loop://", "baudrate": 115_200}) as port:
        port.write(b"abc\ndef", soon())
        assert port.read_until(b"\n", soon()) == b"abc\n"
        assert port.read_exactly(2, soon()) == b"de"
        with pytest.raises(SerialTimeout) as caught:
            port.read_exactly(2, Deadline.after(0.02))
        assert caught.value.received == b"f"
        port.write(b"rest", soon())
        assert port.drain() == b"rest"
        assert port.set_line(baudrate=9600, parity="E") is True
        assert port.set_modem(dtr=False, rts=True) is True
        with pytest.raises(SerialTimeout):
            port.write(bytes(5000), Deadline.after(0.01))


def test_a_handler_that_wraps_a_device_is_not_bypassed(pty: Pty, tmp_path: Path) -> None:
    log = tmp_path / "traffic.log"
    with SerialPort.open("uart", {"url": f"spy://{pty.path}?file={log}"}) as port:
        port.write(b"question", soon())
        os.write(pty.master, b"answer")
        assert port.read_exactly(6, soon()) == b"answer"
    log_text = log.read_text()
    assert "question" in log_text
    assert "RX" in log_text


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(LONG)
        yield server


def test_socket(listener: socket.socket) -> None:
    with SerialPort.open("uart", {"url": f"socket://127.0.0.1:{listener.getsockname()[1]}"}) as port:
        peer, _ = listener.accept()
        port.write(b"ping", soon())
        assert peer.recv(10) == b"ping"
        peer.sendall(b"pong\nmore")
        assert port.read_until(b"\n", soon()) == b"pong\n"
        assert port.read_exactly(4, soon()) == b"more"
        assert port.read_some(past()) == b""
        assert port.set_modem(dtr=True) is False
        assert port.set_line(parity="E") is False
        reader = in_thread(lambda: port.read_exactly(1, soon()))
        peer.close()
        with pytest.raises(SerialGone):
            reader.result(LONG / 10)


def test_a_socket_does_not_wait_to_fill_packets(listener: socket.socket) -> None:
    url = f"socket://127.0.0.1:{listener.getsockname()[1]}"
    with (
        SerialPort.open("uart", {"url": url}) as port,
        socket.socket(fileno=os.dup(port._port.fileno())) as copy,
    ):
        assert copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    with pytest.raises(SerialAbsent, match="refused"):
        SerialPort.open("uart", {"url": f"socket://127.0.0.1:{number}"})


class Rfc2217Server:
    """pyserial's server of RFC 2217, in front of its loop://: an echo with a line that can be set."""

    def __init__(self, listener: socket.socket) -> None:
        self.line = serial.serial_for_url("loop://", timeout=0)
        self.settings_taken = 0
        self._listener = listener
        self.connection: socket.socket | None = None
        clock.Thread(target=self._serve).start()

    def write(self, data: bytes) -> None:
        assert self.connection
        self.connection.sendall(data)

    def _serve(self) -> None:
        self.connection, _ = self._listener.accept()
        # The stubs take the server's ends for clients: it needs a port, and something with a `write`.
        ends: tuple[Any, Any] = (self.line, self)
        manager = serial.rfc2217.PortManager(*ends)
        while data := self.connection.recv(1024):
            self.settings_taken += data.count(b"\xff\xfa\x2c\x01")
            self.line.write(b"".join(manager.filter(data)))
            if self.line.in_waiting:
                self.write(b"".join(manager.escape(self.line.read(self.line.in_waiting))))


def test_rfc2217(listener: socket.socket) -> None:
    server = Rfc2217Server(listener)
    url = f"rfc2217://127.0.0.1:{listener.getsockname()[1]}"
    with SerialPort.open("uart", {"url": url, "baudrate": 57_600, "parity": "E", "dtr": False}) as port:
        assert (server.line.baudrate, server.line.parity, server.line.dtr) == (57_600, "E", False)
        negotiated = server.settings_taken
        for unit in (b"\x7f", bytes(range(256)), b"\xff\xff"):
            port.write(unit, soon())
            assert port.read_exactly(len(unit), soon()) == unit
        with pytest.raises(SerialTimeout):
            port.read_exactly(1, Deadline.after(0.02))
        assert server.settings_taken == negotiated
        assert port.set_line(baudrate=115_200, parity="N") is True
        assert (server.line.baudrate, server.line.parity) == (115_200, "N")
        assert port.set_modem(dtr=True, rts=False) is True
        assert (server.line.dtr, server.line.rts) == (True, False)
        reader = in_thread(lambda: port.read_exactly(1, soon()))
        assert server.connection
        server.connection.shutdown(socket.SHUT_RDWR)
        with pytest.raises(SerialGone):
            reader.result(LONG / 10)
