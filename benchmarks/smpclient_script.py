"""smpclient's upload, timed in a process of its own: run by the interpreter of its environment.

smpclient_script.py URL FILE        prints [seconds, seconds of the processor] of the upload alone
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from smpclient import SMPClient  # type: ignore[import-not-found]

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "hil_tests" / "real"))
from smpclient_peer import SECONDS, SocketTransport  # type: ignore[import-not-found]


async def main(url: str, image: bytes) -> None:
    client = SMPClient(SocketTransport(), url)
    await client.connect(SECONDS)
    began, busy = time.perf_counter(), time.process_time()
    async for _ in client.upload(image, first_timeout_s=SECONDS):
        pass
    sys.stdout.write(json.dumps([time.perf_counter() - began, time.process_time() - busy]) + "\n")
    await client.disconnect()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]).read_bytes()))
