"""Runs a program in this network, which has a loopback alone, and passes datagrams between it and the host.

    relay.py DESCRIPTOR PROGRAM

DESCRIPTOR is a UDP socket of the host's network. The program listens on port 1337. It ends when this does.
"""

from __future__ import annotations

import ctypes
import fcntl
import select
import signal
import socket
import struct
import subprocess
import sys

PORT = 1337
SIOCSIFFLAGS, IFF_UP, PR_SET_PDEATHSIG = 0x8914, 1, 1


def main(descriptor: int, program: str) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    host = socket.socket(fileno=descriptor)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside:
        fcntl.ioctl(inside, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
        inside.connect(("127.0.0.1", PORT))
        child = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", program])
        client = None
        while child.poll() is None:
            for ready in select.select([host, inside], [], [], 1)[0]:
                try:
                    if ready is host:
                        data, client = host.recvfrom(65536)
                        inside.send(data)
                    elif client is not None:
                        host.sendto(inside.recv(65536), client)
                except ConnectionRefusedError:
                    pass  # It does not listen yet, or the client is gone.


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
