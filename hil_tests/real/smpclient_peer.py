"""smpclient, as a program: run by the interpreter of its own environment, on a console that is a socket.

    smpclient_peer.py URL [upload FILE | test HASH | confirm HASH | reset | echo TEXT | parameters | state | wait]...

Does these in turn and prints one line of JSON for each. `wait`: until the part answers.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import serial
from smpclient import SMPClient  # type: ignore[import-not-found]
from smpclient.requests.image_management import (  # type: ignore[import-not-found]
    ImageStatesRead,
    ImageStatesWrite,
)
from smpclient.requests.os_management import (  # type: ignore[import-not-found]
    EchoWrite,
    MCUMgrParametersRead,
    ResetWrite,
)
from smpclient.transport.serial import SMPSerialTransport  # type: ignore[import-not-found]

SECONDS = 60.0


class SocketTransport(SMPSerialTransport):  # type: ignore[misc]
    """Its serial transport opens device files alone."""

    async def connect(self, address: str, timeout_s: float) -> None:
        self._reset_state()
        port = serial.serial_for_url(address, timeout=0, write_timeout=0)
        object.__setattr__(port, "out_waiting", 0)
        object.__setattr__(self, "_conn", port)


async def states(client: Any) -> list[dict[str, Any]]:
    answer = await client.request(ImageStatesRead(), timeout_s=SECONDS)
    return [
        {
            "slot": image.slot,
            "version": image.version,
            "hash": image.hash.hex() if image.hash else "",
            "active": bool(image.active),
            "confirmed": bool(image.confirmed),
            "pending": bool(image.pending),
        }
        for image in answer.images
    ]


async def uploaded(client: Any, data: bytes) -> int:
    """It asks nothing twice, and on a busy machine a piece may be lost: then all of it again, which continues there."""
    done, ends = 0, time.monotonic() + 4 * SECONDS
    while done < len(data):
        try:
            async for offset in client.upload(data, first_timeout_s=SECONDS, subsequent_timeout_s=5):
                done = offset
        except TimeoutError:
            if time.monotonic() > ends:
                raise
    return done


async def answers(client: Any) -> str:
    ends = time.monotonic() + SECONDS
    while True:
        try:
            return str((await client.request(EchoWrite(d="there"), timeout_s=1)).r)
        except TimeoutError:
            if time.monotonic() > ends:
                raise


async def main(url: str, words: list[str]) -> None:
    client = SMPClient(SocketTransport(), url)
    await client.connect(SECONDS)
    while words:
        word = words.pop(0)
        told: Any = None
        if word == "upload":
            told = await uploaded(client, Path(words.pop(0)).read_bytes())
        elif word in ("test", "confirm"):
            digest = bytes.fromhex(words.pop(0))
            await client.request(ImageStatesWrite(hash=digest, confirm=word == "confirm"), timeout_s=SECONDS)
            told = await states(client)
        elif word == "reset":
            await client.request(ResetWrite(), timeout_s=SECONDS)
            await asyncio.sleep(0.5)
        elif word == "echo":
            told = (await client.request(EchoWrite(d=words.pop(0)), timeout_s=SECONDS)).r
        elif word == "parameters":
            answer = await client.request(MCUMgrParametersRead(), timeout_s=SECONDS)
            told = {"size": answer.buf_size, "count": answer.buf_count}
        elif word == "state":
            told = await states(client)
        elif word == "wait":
            told = await answers(client)
        sys.stdout.write(json.dumps({word: told}) + "\n")
    await client.disconnect()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
