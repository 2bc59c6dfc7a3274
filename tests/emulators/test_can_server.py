"""The socket of a served wire, spoken to by hand: clients that lie, don't read, vanish, or send anything."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import can
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.emulators.can import server as can_server
from proxyflash.emulators.can.server import RemoteNode, pack, serve_can, unpack
from proxyflash.emulators.can.wire import CanNode, CanWire
from proxyflash.transports import clock
from proxyflash.transports.errors import CanBusy

pytestmark = pytest.mark.real_time("sockets between processes")

LONG = 300.0
RECORD = struct.Struct(">IBBHd64s")
"""As the module's head describes it: id, flags, length, credits, time, data."""
numbers = itertools.count()


class Served:
    def __init__(self, folder: Path) -> None:
        self.wire = CanWire(f"served-{next(numbers)}", pace=0.0)
        self.path = folder / "s"
        self.end = serve_can(self.wire, self.path)
        self.heard: clock.SomeQueue[can.Message] = clock.Queue()
        self.node: CanNode = self.wire.attach("part", self.heard.put)

    def connect(self) -> socket.socket:
        """A client, greeted."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(LONG)
        client.connect(str(self.path))
        assert len(client.recv(RECORD.size, socket.MSG_WAITALL)) == RECORD.size
        return client

    def works(self) -> None:
        """The wire still carries frames."""
        while not self.heard.empty():
            self.heard.get()
        other = self.wire.attach("probe", lambda message: None)
        assert other.send(can.Message(arbitration_id=0x1ABCDEF), LONG)
        while self.heard.get(timeout=LONG).arbitration_id != 0x1ABCDEF:
            pass
        other.detach()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.end()
    made.wire.close()


def record(identifier: int = 0x123, flags: int = 0, length: int = 2, data: bytes = b"\1\2") -> bytes:
    return RECORD.pack(identifier, flags, length, 0, 0.0, data)


def hung_up(client: socket.socket) -> bool:
    """Whether the server ends the connection, whatever else it sends before."""
    try:
        while client.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def test_the_greeting(served: Served) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(LONG)
        client.connect(str(served.path))
        identifier, flags, length, credits, stamp, data = RECORD.unpack(client.recv(RECORD.size, socket.MSG_WAITALL))
    assert (identifier, flags, length, credits, stamp, data) == (0x70667731, 32, 0, 32, 0.0, bytes(64))


def test_the_greeting_comes_ahead_of_what_waited_for_the_client(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that starts sends its first frame until somebody acknowledges it."""
    attach = served.wire.attach

    def slow(*arguments: Any, **keys: Any) -> CanNode:
        node = attach(*arguments, **keys)
        clock.sleep(0.2)
        return node

    monkeypatch.setattr(served.wire, "attach", slow)
    served.node.send(can.Message(arbitration_id=0x705, data=b"\0", is_extended_id=False), LONG)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(LONG)
        client.connect(str(served.path))
        records = [client.recv(RECORD.size, socket.MSG_WAITALL) for _ in range(2)]
    assert [RECORD.unpack(record)[0] for record in records] == [0x70667731, 0x705]


def test_a_frame_each_way_and_its_credit(served: Served) -> None:
    with served.connect() as client:
        client.sendall(record())
        message = served.heard.get(timeout=LONG)
        assert (message.arbitration_id, message.is_extended_id, bytes(message.data)) == (0x123, False, b"\1\2")
        assert RECORD.unpack(client.recv(RECORD.size, socket.MSG_WAITALL))[1:4] == (32, 0, 1)
        served.node.send(can.Message(arbitration_id=0x18DA00F1, data=b"\xaa"))
        identifier, flags, length, credits, stamp, data = RECORD.unpack(client.recv(RECORD.size, socket.MSG_WAITALL))
        assert (identifier, flags, length, credits, data[:2]) == (0x18DA00F1, 1, 1, 0, b"\xaa\0")
        assert abs(stamp - time.time()) < LONG


def test_records_in_any_split(served: Served) -> None:
    text = b"".join(record(data=bytes([number, 0])) for number in range(5))
    with served.connect() as client:
        for start in range(0, len(text), 33):
            client.sendall(text[start : start + 33])
        assert [served.heard.get(timeout=LONG).data[0] for _ in range(5)] == list(range(5))


@pytest.mark.parametrize(
    "wrong",
    [
        record(identifier=0x800),
        record(identifier=0x20000000, flags=1),
        record(length=9),
        record(flags=8, length=9),
        record(flags=8, length=8),
        record(flags=4),
        record(flags=2 | 8),
        record(flags=16),
    ],
    ids=["11-bit id", "29-bit id", "9 bytes", "9 FD bytes", "FD here", "error frame", "remote FD", "BRS without FD"],
)
def test_what_no_client_may_send_ends_its_connection(served: Served, wrong: bytes) -> None:
    with served.connect() as client:
        client.sendall(wrong + record())
        assert hung_up(client)
    assert served.heard.empty()
    served.works()


def test_more_frames_than_credits_end_the_connection(served: Served) -> None:
    served.node.power(False)  # Nothing is acknowledged, so nothing leaves the queue.
    with served.connect() as client:
        client.sendall(b"".join(record() for _ in range(33)))
        assert hung_up(client)
    served.node.power(True)
    served.works()


def test_a_client_that_does_not_read_does_not_stop_the_wire(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error frame reports what it loses: CAN_ERR_CRTL, CAN_ERR_CRTL_RX_OVERFLOW."""
    monkeypatch.setattr(can_server, "BACKLOG", 100)
    sent = 5000
    with served.connect() as client:
        sender = served.wire.attach("flood", lambda message: None)
        for _ in range(sent):
            assert sender.send(can.Message(arbitration_id=1), LONG)
        served.works()
        got = 0
        while True:
            identifier, flags, _, _, _, data = RECORD.unpack(client.recv(RECORD.size, socket.MSG_WAITALL))
            if flags & 4:
                assert (identifier, data[1]) == (0x04, 0x01)
                break
            got += 1
        assert 100 < got < sent


def test_a_client_that_vanishes_leaves_the_wire(served: Served) -> None:
    client = served.connect()
    client.sendall(record()[:30])
    client.close()
    served.works()
    for _ in range(1000):
        if not [thread for thread in threading.enumerate() if thread.name.startswith("can client")]:
            return
        time.sleep(0.01)
    pytest.fail("a thread of the client's is left")


def test_ending_leaves_neither_thread_nor_socket(tmp_path: Path) -> None:
    served = Served(tmp_path)
    client = served.connect()
    served.end()
    assert hung_up(client)
    client.close()
    served.wire.close()
    assert not served.path.exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("can client", "can server"))]


def test_ending_does_not_wait_for_a_client_whose_frames_nobody_takes(tmp_path: Path) -> None:
    served = Served(tmp_path)
    served.node.power(False)
    with served.connect() as client:
        client.sendall(b"".join(record() for _ in range(32)))
        served.end()
        assert hung_up(client)
    served.wire.close()


def test_a_path_that_is_served_is_busy_and_one_left_over_is_not(served: Served, tmp_path: Path) -> None:
    other = CanWire(f"served-{next(numbers)}")
    with pytest.raises(CanBusy, match="served by another"):
        serve_can(other, served.path)
    served.works()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left_over:
        left_over.bind(str(tmp_path / "left"))
    serve_can(other, tmp_path / "left")()
    other.close()


def test_a_stranger_is_no_server(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def greet() -> None:
            connection, _ = listener.accept()
            connection.sendall(b"220 mail.example ESMTP\r\n".ljust(RECORD.size))
            connection.close()

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(can.CanInitializationError, match="no emulated CAN wire"):
            RemoteNode(str(tmp_path / "s"), lambda message: None, lambda: None)
        thread.join()


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=RECORD.size, max_size=RECORD.size))
def test_any_record_is_a_frame_or_a_value_error(text: bytes) -> None:
    try:
        message = unpack(text)
    except ValueError:
        return
    if message is not None:
        again = unpack(pack(message))
        assert again is not None
        assert again.equals(message, timestamp_delta=None)


@pytest.fixture(scope="module")
def one_wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("wire"))
    yield made
    made.end()
    made.wire.close()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.builds(
                record, st.integers(0, 0xFFFFFFFF), st.integers(0, 255), st.integers(0, 255), st.binary(max_size=64)
            ),
        ),
        max_size=8,
    )
)
def test_any_bytes_of_a_client_leave_the_wire_working(one_wire: Served, pieces: list[bytes]) -> None:
    with one_wire.connect() as client:
        try:
            for piece in pieces:
                client.sendall(piece)
        except OSError:
            pass  # It hung up already.
    one_wire.works()


def hostile(chance: random.Random) -> bytes:
    """What a client may send: noise, or records with anything in their fields, whole or cut."""
    if chance.random() < 0.3:
        return chance.randbytes(chance.randrange(1, 600))
    stamps = (0.0, -1.0, 1e300, math.nan, math.inf, -math.inf)
    records = [
        RECORD.pack(
            chance.choice((0, 0x7FF, 0x1FFFFFFF, 0xFFFFFFFF, chance.getrandbits(32))), chance.getrandbits(8),
            chance.choice((0, 8, 9, 64, 65, 255)), chance.getrandbits(16), chance.choice(stamps), chance.randbytes(64),
        )
        for _ in range(chance.randrange(1, 40))
    ]  # fmt: skip
    whole = b"".join(records)
    return whole[: chance.randrange(1, len(whole) + 1)]


def test_hundreds_of_hostile_connections_leave_the_wire_working(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    chance = random.Random(708)
    for number in range(708):
        with served.connect() as client, contextlib.suppress(OSError):  # It may hang up while we send.
            client.sendall(hostile(chance))
            if number % 2:
                client.shutdown(socket.SHUT_WR)
                assert hung_up(client)
    served.works()
    assert raised == []


def test_clients_beyond_the_limit_are_hung_up_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(can_server, "MOST_CLIENTS", 3)
    taken = [served.connect() for _ in range(3)]
    for _ in range(20):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as refused:
            refused.settimeout(LONG)
            refused.connect(str(served.path))
            assert hung_up(refused)
    served.works()
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("can client")]
    assert len(threads) == 6
    taken.pop().close()
    until = time.monotonic() + LONG
    while True:
        assert time.monotonic() < until
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as again:
            again.settimeout(LONG)
            again.connect(str(served.path))
            if len(again.recv(RECORD.size, socket.MSG_WAITALL)) == RECORD.size:
                break
    for client in taken:
        client.close()


@pytest.mark.parametrize("stamp", [float("nan"), float("inf"), -float("inf")])
def test_a_time_that_is_none_ends_its_own_connection_alone(served: Served, stamp: float) -> None:
    with served.connect() as client:
        client.sendall(RECORD.pack(0x123, 0, 2, 0, stamp, b"\1\2"))
        assert hung_up(client)
    served.works()
