"""The emulated SMP part and its MCUboot, updated by programs that nobody here wrote, over a pseudo-terminal.

smpclient and smpmgr are Zephyr's clients in Python, imgtool is MCUboot's own maker of images (all of PyPI); they are
installed into an environment of their own under build/peers, once.
"""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators import application
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.serial.board import Stage
from proxyflash.emulators.serial.pty import serve_pty
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.emulators.smp.device import SmpDevice
from proxyflash.tests.peers import environment

pytestmark = pytest.mark.real_time("peer programs at pseudo-terminals")

SMPMGR = "smpmgr==0.19.1"
SMPCLIENT = "smpclient[serial]==7.3.0"
IMGTOOL = "imgtool==2.5.0"
OLD, NEW = "1.0.0", "2.1.0"
HEADER = 0x200


@dataclass(frozen=True)
class Served:
    """A part behind a path."""

    device: SmpDevice
    path: str

    def runs(self, version: str | None) -> bool:
        """Whether it runs this application in the end; None: serial recovery."""
        board = self.device.board
        stage = Stage.LOADER if version is None else Stage.APPLICATION
        with board.changed:
            return board.changed.wait_for(
                lambda: self.device.application_version == version and board.stage is stage, 30
            )


@pytest.fixture(scope="session")
def peers() -> Path:
    """The folder of the programs."""
    return environment(SMPMGR, SMPCLIENT, IMGTOOL).parent


@pytest.fixture
def sign(peers: Path, tmp_path: Path) -> Callable[..., Path]:
    """Images as imgtool makes them, for a slot 0 that begins at `start`."""

    def make(version: str, start: int, *options: str, size: int = 3000) -> Path:
        firmware = tmp_path / f"{version}.bin"
        firmware.write_bytes(application.make(version, "imu", "Acme", size, start=start + HEADER))
        image = tmp_path / f"{version}.signed.bin"
        run(peers / "imgtool", "sign", "--version", version, "--header-size", hex(HEADER), "--pad-header", "--align", "8",
            "--slot-size", "0xC0000", *options, firmware, image)  # fmt: skip
        return image

    return make


@pytest.fixture
def serve(sign: Callable[..., Path]) -> Iterator[Callable[..., Served]]:
    closers: list[Callable[[], None]] = []

    def make(part: str = "acme-s1", *, pace: float = 0, blank: bool = False, **table: Any) -> Served:
        wire = UartWire(uuid.uuid4().hex, pace=pace)
        device = SmpDevice.attach(DeviceSpec("imu", settings={"part": part, **table}, pace=pace), wire)
        if not blank:
            device.flash.load(device.application_start, sign(OLD, device.application_start).read_bytes())
            device.board.reset()
        path, close = serve_pty(wire)
        closers.extend([close, device.close, wire.close])
        served = Served(device, path)
        assert served.runs(OLD if not blank and not table.get("recovery") else None)
        return served

    yield make
    for close in closers:
        close()


def run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


CLIENT = """
import asyncio, json, sys
from smpclient import SMPClient
from smpclient.generics import success
from smpclient.mcuboot import IMAGE_TLV, ImageInfo
from smpclient.requests.image_management import (
    ImageErase, ImageStatesRead, ImageStatesWrite, ImageUploadWrite)
from smpclient.requests.os_management import (
    BootloaderInformationRead, EchoWrite, MCUMgrParametersRead, OSApplicationInfoRead, ResetWrite)
from smpclient.transport.serial import SMPSerialRawTransport, SMPSerialTransport

path, framing, steps = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
said = []

def plain(answer):
    if not success(answer):
        return {"error": repr(getattr(answer, "rc", None) or getattr(answer, "err", None))}
    return answer.model_dump(exclude={"header", "version", "sequence", "smp_data"})

async def main():
    transport = SMPSerialRawTransport() if framing == "raw" else SMPSerialTransport()
    async with SMPClient(transport, path, timeout_s=20) as client:
        for name, argument in steps:
            if name == "upload":
                data = open(argument, "rb").read()
                offsets = [offset async for offset in client.upload(data, first_timeout_s=40, subsequent_timeout_s=20)]
                said.append(offsets[-1] == len(data))
                continue
            if name in ("test", "confirm") and argument:
                digest = ImageInfo.load_file(argument).get_tlv(IMAGE_TLV.SHA256).value
                request = ImageStatesWrite(hash=digest, confirm=name == "confirm")
            else:
                request = {
                    "echo": lambda: EchoWrite(d=argument),
                    "params": MCUMgrParametersRead,
                    "info": lambda: OSApplicationInfoRead(format="a"),
                    "loader": BootloaderInformationRead,
                    "states": ImageStatesRead,
                    "confirm": lambda: ImageStatesWrite(confirm=True),
                    "erase": ImageErase,
                    "reset": ResetWrite,
                }[name]()
            said.append(plain(await client.request(request)))

asyncio.run(main())
print(json.dumps(said, default=lambda value: value.hex() if isinstance(value, bytes) else str(value)))
"""


@pytest.fixture
def smpclient(peers: Path) -> Callable[..., list[Any]]:
    """Carries out steps, each a name with an argument; what was answered to each."""

    def client(served: Served, *steps: tuple[str, str | Path | None], framing: str = "console") -> list[Any]:
        wanted = json.dumps([(name, None if argument is None else str(argument)) for name, argument in steps])
        out = run(peers / "python", "-c", CLIENT, served.path, framing, wanted)
        told: list[Any] = json.loads(next(line for line in out.splitlines() if line.startswith("[")))
        return told

    return client


def flags(answer: dict[str, Any]) -> list[str]:
    names = ("pending", "confirmed", "active", "permanent")
    return [f"{image['version']}: {' '.join(name for name in names if image[name])}" for image in answer["images"]]


class TestSmpclient:
    def test_what_it_is_told(self, serve: Callable[..., Served], smpclient: Callable[..., list[Any]]) -> None:
        served = serve(buf_size=512, buf_count=3)
        steps = ("echo", "hello"), ("params", None), ("info", None), ("loader", None)
        echo, params, info, loader = smpclient(served, *steps)
        assert echo["r"] == "hello"
        assert params == {"buf_size": 512, "buf_count": 3}
        assert info["output"].split() == ["Zephyr", "imu", "v4.4.0", "4.4.0", "arm", "cortex-m0", "acme_s1", "Zephyr"]
        assert loader["bootloader"] == "MCUboot"

    @pytest.mark.parametrize(
        ("part", "table"),
        [
            ("acme-s1", {}),
            ("microbit", {"log": "lines"}),
            ("nrf52840", {"framing": "raw", "buf_size": 1024}),
            ("stm32h743", {"buf_size": 2048}),
            ("acme-s1", {"build": "old"}),
            ("acme-s1", {"progressive_erase": True}),
        ],
        ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value),
    )
    def test_tried_reverted_confirmed(
        self,
        serve: Callable[..., Served],
        smpclient: Callable[..., list[Any]],
        sign: Callable[..., Path],
        part: str,
        table: dict[str, Any],
    ) -> None:
        served = serve(part, **table)
        framing = table.get("framing", "console")
        new = sign(NEW, served.device.application_start)
        steps: list[tuple[str, Any]] = [("upload", new), ("test", new), ("states", None), ("reset", None)]
        uploaded, _, states, _ = smpclient(served, *steps, framing=framing)
        assert uploaded
        assert flags(states) == ["1.0.0: confirmed active", "2.1.0: pending"]
        assert served.runs(NEW)
        states, _ = smpclient(served, ("states", None), ("reset", None), framing=framing)
        assert flags(states) == ["2.1.0: active", "1.0.0: confirmed"]
        assert served.runs(OLD)
        smpclient(served, ("test", new), ("reset", None), framing=framing)
        assert served.runs(NEW)
        states, _ = smpclient(served, ("confirm", None), ("reset", None), framing=framing)
        assert flags(states) == ["2.1.0: confirmed active", "1.0.0: "]
        assert served.runs(NEW)
        assert served.device.board.fault is None

    def test_serial_recovery(
        self, serve: Callable[..., Served], smpclient: Callable[..., list[Any]], sign: Callable[..., Path]
    ) -> None:
        for build in ("new", "old"):
            served = serve(blank=True, build=build)
            new = sign(NEW, served.device.application_start)
            states, uploaded, _ = smpclient(served, ("states", None), ("upload", new), ("reset", None))
            assert states["images"] == []
            assert uploaded
            assert served.runs(NEW)

    def test_it_understands_refusals(
        self, serve: Callable[..., Served], smpclient: Callable[..., list[Any]], sign: Callable[..., Path]
    ) -> None:
        """In words of its own library, from the numbers that the part reports."""
        served = serve()
        new = sign(NEW, served.device.application_start)
        told = smpclient(served, ("test", new), ("upload", new), ("test", new), ("confirm", None), ("erase", None))
        assert "HASH_NOT_FOUND" in told[0]["error"]
        assert "IMAGE_ALREADY_PENDING" in told[3]["error"]
        assert "NO_FREE_SLOT" in told[4]["error"]
        (params,) = smpclient(serve(build="old"), ("params", None))
        assert "ENOTSUP" in params["error"]


class TestSmpmgr:
    def test_an_upgrade(self, serve: Callable[..., Served], peers: Path, sign: Callable[..., Path]) -> None:
        served = serve()
        command = (peers / "smpmgr", "--timeout", "30", "--port", served.path)
        assert "r='hello'" in run(*command, "os", "echo", "hello")
        run(*command, "upgrade", "--slot", "1", sign(NEW, served.device.application_start))
        assert served.runs(NEW)
        assert f"version='{NEW}'" in run(*command, "image", "state-read")
        run(*command, "image", "state-write", "--confirm")
        run(*command, "os", "reset")
        assert served.runs(NEW)
        assert served.device.loader.pairs[0].swap().name == "NONE"

    def test_at_the_pace_of_the_line(
        self, serve: Callable[..., Served], peers: Path, sign: Callable[..., Path]
    ) -> None:
        served = serve(pace=1.0)
        command = (peers / "smpmgr", "--timeout", "30", "--port", served.path)
        run(*command, "upgrade", "--slot", "1", "--confirm", sign(NEW, served.device.application_start))
        assert served.runs(NEW)


class TestImgtool:
    """MCUboot's own images, and what it puts into them."""

    @pytest.mark.parametrize(
        "options",
        [
            (),
            ("--security-counter", "3"),  # In the protected records.
            ("--pad", "--confirm"),
            ("--overwrite-only",),
            ("--dependencies", "(0, 1.0.0+0)"),
        ],
        ids=lambda options: options[0] if options else "plain",
    )
    def test_they_run(self, serve: Callable[..., Served], sign: Callable[..., Path], options: tuple[str, ...]) -> None:
        served = serve("nrf52840", blank=True)
        slot = served.device.loader.pairs[0].primary
        padded = () if "--pad" not in options else ("--slot-size", hex(slot.size))
        served.device.flash.load(slot.start, sign(NEW, slot.start, *options, *padded).read_bytes())
        served.device.board.reset()
        assert served.runs(NEW)

    def test_its_trailer_is_the_loader_s(self, serve: Callable[..., Served], sign: Callable[..., Path]) -> None:
        """A padded image in slot 1 is to be tried; a padded image that is also confirmed is to stay."""
        for options, swap in ((("--pad",), "TEST"), (("--pad", "--confirm"), "PERM")):
            served = serve("nrf52840")
            pair = served.device.loader.pairs[0]
            image = sign(NEW, pair.primary.start, *options, "--slot-size", hex(pair.secondary.size))
            served.device.flash.load(pair.secondary.start, image.read_bytes())
            assert pair.swap().name == swap
            served.device.board.reset()
            assert served.runs(NEW)
