"""A plain udsoncan script, as its users write it: the other side of the UDS benchmark. Run as a program:

    python -m benchmarks.udsoncan_script CHANNEL FD START FILE VERSION

CHANNEL is one of python-can's interface "proxyflash"; FD is 0 or 1; START is the address that FILE (raw) goes to;
VERSION must be reported by the application after it.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import can
import isotp
import udsoncan
from udsoncan.client import Client
from udsoncan.connections import PythonIsoTpConnection

REQUEST, RESPONSE = 0x7E0, 0x7E8
PROGRAM_UNIT = 8
"""Bytes; blocks have to be multiples of it."""
VERSION = 0xF189
"""The data identifier of the application's version."""


def key(level: int, seed: bytes, params: object) -> bytes:
    """The key function of the emulated part: the seed with every bit of the secret turned."""
    return bytes(a ^ b for a, b in zip(seed, SECRET, strict=True))


SECRET = bytes.fromhex("5a5a5a5a")


def main(channel: str, fd: bool, start: int, data: bytes, version: str) -> None:
    bus = can.Bus(interface="proxyflash", channel=channel, fd=fd)
    params = {"tx_padding": 0xCC, "can_fd": fd, "tx_data_length": 64 if fd else 8, "bitrate_switch": fd}
    address = isotp.Address(isotp.AddressingMode.Normal_11bits, txid=REQUEST, rxid=RESPONSE)
    notifier = can.Notifier(bus, [])
    stack = isotp.NotifierBasedCanStack(bus, notifier, address=address, params=params)
    config = udsoncan.configs.default_client_config.copy()
    # The ECU's own P2 of 50 ms leaves a busy host no time.
    config |= {"request_timeout": 30, "security_algo": key, "use_server_timing": False, "p2_timeout": 1}
    with Client(PythonIsoTpConnection(stack), config=config) as client:
        client.change_session(3)
        client.change_session(2)
        client.unlock_security_access(1)
        location = udsoncan.MemoryLocation(start, len(data), address_format=32, memorysize_format=32)
        client.start_routine(0xFF00, b"\x44" + start.to_bytes(4, "big") + len(data).to_bytes(4, "big"))
        answer = client.request_download(location)
        assert answer is not None
        size = (answer.service_data.max_length - 2) // PROGRAM_UNIT * PROGRAM_UNIT
        for number, offset in enumerate(range(0, len(data), size), 1):
            client.transfer_data(number & 0xFF, data[offset : offset + size])
        client.request_transfer_exit()
        client.start_routine(0x0202, zlib.crc32(data).to_bytes(4, "big"))
        client.start_routine(0xFF01)
        client.ecu_reset(1)
        wait_for(client, version)
    notifier.stop()
    bus.shutdown()


def wait_for(client: Client, version: str) -> None:
    """Asks for the version until the application answers. Raises AssertionError when it is another one."""
    client.set_config("request_timeout", 0.05)
    client.set_config("data_identifiers", {VERSION: udsoncan.AsciiCodec(len(version))})
    for _ in range(100):
        try:
            answer = client.read_data_by_identifier(VERSION)
        except udsoncan.exceptions.TimeoutException:
            continue
        assert answer is not None
        assert answer.service_data.values[VERSION] == version
        return
    raise AssertionError("the application does not answer")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "1", int(sys.argv[3], 0), Path(sys.argv[4]).read_bytes(), sys.argv[5])
