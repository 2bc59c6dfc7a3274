"""Bad input, one case a row: each has its own message and exit status, and leaves every part as it was."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from proxyflash.tests.users import shared_folder

from .conftest import Desk, Hardware

OLD = {"front-radar": "1.4.2", "imu": "1.4.2", "camera": "1.4.2"}
IMU = "wiring = "
RADAR = 'part = "acme-r77", '


@dataclass(frozen=True, slots=True)
class Case:
    """`change` makes the input bad; `arguments` is then refused with `status`, `code` and `words` in the message."""

    name: str
    status: int
    code: str
    words: str
    arguments: list[str]
    change: Callable[[Desk], None] = lambda desk: None
    seen: dict[str, str] = field(default_factory=lambda: OLD)
    """What `scan` shows before and after."""


def bench(*changes: tuple[str, str]) -> Callable[[Desk], None]:
    return lambda desk: desk.edit(*changes)


def file(name: str, content: bytes | str) -> Callable[[Desk], None]:
    data = content.encode() if isinstance(content, str) else content

    def write(desk: Desk) -> None:
        (desk.folder / name).write_bytes(data)

    return write


def record(kind: int, address: int, data: bytes) -> str:
    """A record of Intel's hexadecimal object file format, revision A."""
    body = bytes([len(data), address >> 8, address & 0xFF, kind]) + data
    return f":{body.hex().upper()}{-sum(body) & 0xFF:02X}\n"


def hex_file(upper: int, *records: tuple[int, bytes]) -> str:
    lines = [record(4, 0, upper.to_bytes(2, "big"))]
    return "".join([*lines, *(record(0, address, data) for address, data in records), record(1, 0, b"")])


def cut_image(desk: Desk) -> None:
    """A transfer that broke off in the midst of a record."""
    desk.image("imu").write_bytes(desk.image("imu").read_bytes()[:5000])


def for_another_part(desk: Desk) -> None:
    """The camera's file, its suffix (USB DFU 1.1, appendix B) naming vendor 0x1234."""
    data = desk.image("camera").read_bytes()
    assert data[-8:-5] == b"UFD"
    body = data[:-12] + (0x1234).to_bytes(2, "little") + data[-10:-4]
    # The document's CRC is the usual one without its final inversion.
    desk.image("camera").write_bytes(body + (zlib.crc32(body) ^ 0xFFFFFFFF).to_bytes(4, "little"))


def manifest(change: Callable[[dict[str, Any]], None], name: str = "imu") -> Callable[[Desk], None]:
    """Changes a manifest of the update."""

    def write(desk: Desk) -> None:
        path = desk.folder / "update" / f"{name}.importmanifest.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return write


def wrong_hash(document: dict[str, Any]) -> None:
    document["files"][0]["hashes"]["sha256"] = base64.b64encode(hashlib.sha256(b"other").digest()).decode()


def file_named(document: dict[str, Any], name: str) -> None:
    document["files"][0]["filename"] = document["instructions"]["steps"][0]["files"][0] = name


def broken_image(desk: Desk) -> None:
    """The last component's file is not firmware, though its hash is right."""
    data = b"no firmware at all"
    (desk.folder / "update" / "camera-1.5.0.dfu").write_bytes(data)

    def fit(document: dict[str, Any]) -> None:
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        document["files"][0] |= {"sizeInBytes": len(data), "hashes": {"sha256": digest}, "filename": "camera.hex"}
        document["instructions"]["steps"][0]["files"] = ["camera.hex"]

    manifest(fit, "camera")(desk)
    (desk.folder / "update" / "camera-1.5.0.dfu").rename(desk.folder / "update" / "camera.hex")


FLASH_IMU = ["flash", "imu", "update/imu-1.5.0.hex"]
FLASH_RADAR = ["flash", "front-radar", "update/radar-1.5.0.s19"]
FLASH_CAMERA = ["flash", "camera", "update/camera-1.5.0.dfu"]
APPLY = ["apply", "update/update.importmanifest.json"]

PARTS = [
    Case(
        "mute over CAN", 4, "E-PART-MUTE", "front-radar", FLASH_RADAR, bench((RADAR, RADAR + "mute = true, ")),
        seen=OLD | {"front-radar": "absent"},
    ),
    Case(
        "mute on a serial line", 4, "E-PART-MUTE", "imu", FLASH_IMU, bench((IMU, "mute = true, " + IMU)),
        seen=OLD | {"imu": "absent"},
    ),
    Case(
        "absent from USB", 4, "E-PART-MUTE", "0483:df12", FLASH_CAMERA,
        bench(("product_id = 0xDF11, runtime", "product_id = 0xDF12, runtime"),
              ("runtime_product_id = 0x0C24", "runtime_product_id = 0x0C25")),
        seen=OLD | {"camera": "absent"},
    ),
    Case(
        "not under these conditions", 1, "E-PART-REFUSED", "conditionsNotCorrect", FLASH_RADAR,
        bench((RADAR, RADAR + "refuse = 0x22, ")),
    ),
    Case(
        "in the wrong mode", 1, "E-PART-MODE", "alternate setting 9", FLASH_CAMERA,
        bench(("runtime_product_id = 0x0C24}", "runtime_product_id = 0x0C24, alt = 9}")),
    ),
    Case(
        "no way into its bootloader", 4, "E-PART-MUTE", "BOOT0", FLASH_IMU,
        bench((', wiring = "dtr-reset,!rts-boot0"', "")),
    ),
    Case("protected against reading", 7, "E-PART-PROTECTED", "imu", FLASH_IMU, bench((IMU, "rdp = 1, " + IMU))),
    Case(
        "protected against writing", 7, "E-PART-PROTECTED", "imu", FLASH_IMU,
        bench((IMU, "write_protected = [0, 1, 2], " + IMU)),
    ),
    Case(
        "another key", 7, "E-PART-SECURITY", "key", FLASH_RADAR,
        bench(('key = "xor", secret = "5a5a5a5a"', 'key = "xor", secret = "a5a5a5a5"')),
    ),
    Case(
        "of another family", 12, "E-PART-FAMILY", "STM32F40x", FLASH_IMU,
        bench(('part = "STM32F40x"', 'part = "STM32F1 medium-density"')),
    ),
]  # fmt: skip

BLOCK = bytes(range(16))
IMAGES = [
    Case(
        "too large", 12, "E-IMAGE-TOO-LARGE", "0x080FFFFF", ["flash", "imu", "x.bin"],
        file("x.bin", bytes(1 << 20) + b"\1"),
    ),
    Case(
        "misplaced", 12, "E-IMAGE-MISPLACED", "0x20000000", ["flash", "imu", "x.hex"],
        file("x.hex", hex_file(0x2000, (0, BLOCK))),
    ),
    Case(
        "overlapping", 12, "E-IMAGE-OVERLAP", "0x08000008", ["flash", "imu", "x.hex"],
        file("x.hex", hex_file(0x0800, (0, BLOCK), (8, BLOCK))),
    ),
    Case("empty", 12, "E-IMAGE-EMPTY", "x.hex", ["flash", "imu", "x.hex"], file("x.hex", b"")),
    Case("without a byte", 12, "E-IMAGE-EMPTY", "x.hex", ["flash", "imu", "x.hex"], file("x.hex", hex_file(0x0800))),
    Case("truncated", 12, "E-IMAGE-FORMAT", "imu-1.5.0.hex", FLASH_IMU, cut_image),
    Case("no firmware", 12, "E-IMAGE-FORMAT", "x.txt", ["flash", "imu", "x.txt"], file("x.txt", "hello, part")),
    Case("not there", 12, "E-IMAGE-MISSING", "x.hex", ["flash", "imu", "x.hex"]),
    Case("a folder", 12, "E-IMAGE-MISSING", "update", ["flash", "imu", "update"]),
    Case("for another part", 12, "E-IMAGE-WRONG-PART", "1234", FLASH_CAMERA, for_another_part),
]  # fmt: skip

MANIFESTS = [
    Case("a wrong hash", 9, "E-FILE-HASH", "imu-1.5.0.hex", APPLY, manifest(wrong_hash)),
    Case(
        "a wrong size", 9, "E-FILE-SIZE", "115,016", APPLY,
        manifest(lambda document: document["files"][0].update(sizeInBytes=115015)),
    ),
    Case(
        "a missing file", 12, "E-FILE-MISSING", "camera-1.5.0.dfu", APPLY,
        lambda desk: desk.image("camera").unlink(),
    ),
    Case(
        "an unknown handler", 12, "E-HANDLER", "acme/magic:1", APPLY,
        manifest(lambda document: document["instructions"]["steps"][0].update(handler="acme/magic:1")),
    ),
    Case(
        "an unknown field", 12, "E-MANIFEST-FIELD", "surprise", APPLY,
        manifest(lambda document: document.update(surprise=1)),
    ),
    Case(
        "a path in a file name", 12, "E-MANIFEST-FIELD", "plain name", APPLY,
        manifest(lambda document: file_named(document, "../imu-1.5.0.hex")),
    ),
    Case(
        "a child that is not there", 12, "E-MANIFEST-MISSING", "Example/Camera", APPLY,
        lambda desk: (desk.folder / "update" / "camera.importmanifest.json").unlink(),
    ),
    Case("no manifest", 12, "E-MANIFEST-MISSING", "none.json", ["apply", "none.json"]),
    Case("no JSON", 12, "E-MANIFEST-SYNTAX", "bench.toml", ["plan", "bench.toml"]),
    Case("a broken image, last of all", 12, "E-IMAGE-FORMAT", "camera.hex", APPLY, broken_image),
    Case(
        "an absent component", 4, "E-COMPONENT-ABSENT", "front-radar", APPLY,
        bench((RADAR, RADAR + "mute = true, ")), seen=OLD | {"front-radar": "absent"},
    ),
]  # fmt: skip

REQUESTS = [
    Case("an unknown component", 4, "E-COMPONENT", "left-motor", ["flash", "left-motor", "update/imu-1.5.0.hex"]),
    Case("a range that is none", 2, "E-UNSUPPORTED", "0x00000010", ["erase", "imu", "--start", "16", "--size", "4"]),
    Case("a folder to read into", 1, "E-IMAGE-WRITE", "no/x.bin", ["read", "camera", "no/x.bin"]),
    Case("an ending that says nothing", 1, "E-IMAGE-WRITE", "x.docx", ["read", "camera", "x.docx"]),
    Case("no bench file", 12, "E-BENCH-MISSING", "none.toml", ["scan", "--bench", "none.toml"]),
    Case(
        "a bench file that is none",
        12,
        "E-BENCH-SYNTAX",
        "imu-1.5.0.hex:1",
        ["scan", "--bench", "update/imu-1.5.0.hex"],
    ),
    Case("a log file nowhere", 2, "E-LOG", "no/log", ["scan", "--log-file", "no/log"]),
]

CASES = [*PARTS, *IMAGES, *MANIFESTS, *REQUESTS]


RUNS_A_SCRIPT = pytest.mark.real_time("a step runs a script")


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=RUNS_A_SCRIPT if case.arguments is APPLY else ()) for case in CASES]
)
def test_each_has_its_message_and_leaves_the_parts_as_they_were(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    monkeypatch.chdir(desk.folder)
    case.change(desk)
    assert desk.seen() == case.seen
    before = desk.memory()
    done = desk.run(*case.arguments)
    first = done.err.strip().splitlines()[-1]
    assert (done.status, first.split()[0]) == (case.status, case.code), done.err
    assert case.words in first
    assert "Traceback" not in done.err
    assert "OK" not in done.out
    assert desk.memory() == before
    assert desk.seen() == case.seen


@pytest.mark.parametrize("case", [PARTS[0], IMAGES[2], MANIFESTS[0], REQUESTS[0]], ids=lambda case: case.name)
@pytest.mark.parametrize("form", ["--json", "--jsonl"])
def test_a_program_reads_the_same(desk: Desk, monkeypatch: pytest.MonkeyPatch, case: Case, form: str) -> None:
    monkeypatch.chdir(desk.folder)
    case.change(desk)
    done = desk.run(form, *case.arguments)
    assert (done.status, done.err) == (case.status, "")
    last = done.document if form == "--json" else done.lines[-1]
    assert last["schema"] == 1
    assert last["error"]["code"] == case.code
    assert last["error"]["exit_status"] == case.status
    assert case.words in f"{last['error']['component']}: {last['error']['cause']} {last['error']['remedy']}"


# Adapters.

PORT = """
[bus.line]
kind = "serial"
url = "{port}"

[[component]]
name = "imu"
bus = "line"
protocol = "stm32-uart"
"""


@pytest.fixture
def port() -> Iterator[str]:
    """A serial port of this host."""
    ends = os.openpty()
    yield os.ttyname(ends[1])
    for end in ends:
        os.close(end)


@pytest.mark.real_time("a port of this host")
def test_an_adapter_that_is_not_there(desk: Desk) -> None:
    desk.bench.write_text(PORT.format(port="/dev/serial/by-id/usb-none"))
    done = desk.run("flash", "imu", desk.image("imu"))
    assert done.status == 4
    assert done.err.startswith("E-SERIAL-ABSENT imu: there is no port /dev/serial/by-id/usb-none")


@pytest.mark.real_time("a port of this host")
def test_a_can_interface_that_is_not_there(desk: Desk) -> None:
    interface = '[bus.line]\nkind = "can"\ninterface = "socketcan"\nchannel = "none0"\n'
    address = "address = {request = 0x7E0, response = 0x7E8}\n"
    desk.bench.write_text(interface + f'[[component]]\nname = "ecu"\nbus = "line"\nprotocol = "uds"\n{address}')
    done = desk.run("scan")
    assert done.status == 4
    # The latter where the kernel has no CAN at all.
    assert done.err.split()[0] in ("E-CAN-ABSENT", "E-CAN-DRIVER")
    assert "none0" in done.err


HOLD = (
    "import serial, sys; port = serial.Serial(sys.argv[1], exclusive=True); print('held', flush=True); sys.stdin.read()"
)


@pytest.mark.real_time("a port of this host")
def test_a_busy_adapter_names_its_holder(desk: Desk, port: str) -> None:
    desk.bench.write_text(PORT.format(port=port))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, port], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        done = desk.run("flash", "imu", desk.image("imu"))
        holder.communicate("")
    assert done.status == 6
    assert "E-SERIAL-BUSY" in done.err
    assert f"(pid {holder.pid})" in done.err


AS_ANOTHER_USER = """
import os, sys
import proxyflash.updates.errors
from proxyflash.tools import commands

arguments = sys.argv[1:]
commands.run(arguments)  # once as root: what it imports, another user may not read
os.truncate(1, 0), os.lseek(1, 0, os.SEEK_SET)
for folder, _, files in os.walk(arguments[arguments.index("--state") + 1]):
    for path in (folder, *(os.path.join(folder, name) for name in files)):
        os.chown(path, 65534, 65534)
os.seteuid(65534)
sys.exit(commands.run(arguments))
"""


@pytest.mark.real_time("a port of this host")
def test_a_forbidden_adapter_says_how_it_is_allowed(desk: Desk, port: str, tmp_path: Path) -> None:
    desk.bench.write_text(PORT.format(port=port))
    if os.geteuid() != 0:
        Path(port).chmod(0)
        done = desk.run("--json", "scan")
        status, out = done.status, done.out
    else:
        # Not in pytest's folder: other tests' state folders lie in it, so nobody else may write to it.
        with shared_folder() as folder:
            desk.bench = Path(shutil.copy(desk.bench, folder / "bench.toml"))
            desk.state = folder / "state"
            desk.state.mkdir()
            command = [sys.executable, "-c", AS_ANOTHER_USER, *desk.arguments("--json", "scan")]
            with (tmp_path / "out").open("w+") as stream:
                status = subprocess.run(command, stdout=stream).returncode
                stream.seek(0)
                out = stream.read()
    assert status == 7, out
    error = json.loads(out)["errors"][0]
    assert error["code"] == "E-SERIAL-FORBIDDEN"
    assert "usermod -aG" in error["remedy"] or "udev" in error["remedy"]


# Disks.


def small_files() -> None:
    """What a full disk does, for one process: writes fail beyond the first bytes of a file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["read", "camera", "out.bin", "--start", "0x08000000", "--size", "0x8000"], 1, "E-IMAGE-WRITE"),
        (["image", "update/imu-1.5.0.hex", "--to", "out.bin"], 1, "E-IMAGE-WRITE"),
        # It keeps copies of its files: without room for them it does not begin.
        (APPLY, 1, "E-STATE"),
    ],
)
def test_a_full_disk(desk: Desk, arguments: list[str], status: int, code: str) -> None:
    assert desk.seen() == OLD
    # Bytecode that Python caches would be cut short, and break whoever runs the program next.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    process = desk.start(*arguments, preexec_fn=small_files, env=environment)
    out, err = process.communicate(timeout=600)
    assert (process.returncode, err.split()[-1:] != []) == (status, True), (out, err)
    assert code in err
    assert "Traceback" not in err
    assert not list(desk.folder.glob("*out.bin*"))
    assert desk.seen() == OLD


def test_a_log_on_a_full_disk_ends_no_update(desk: Desk) -> None:
    process = desk.start(*APPLY, "--log-file", "/dev/full")
    out, err = process.communicate(timeout=600)
    assert (process.returncode, "E-OUTPUT" in err, "Traceback" in err) == (1, True, False)
    assert "camera  OK" in out


def test_stdout_on_a_full_disk_ends_no_flash(desk: Desk) -> None:
    with Path("/dev/full").open("w") as full:
        process = desk.start("--jsonl", *FLASH_CAMERA, stdout=full)
        _, err = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "E-OUTPUT the output can't be written: No space left on device" in err
    assert desk.seen() == OLD | {"camera": "1.5.0"}


@pytest.mark.parametrize("arguments", [["scan"], FLASH_IMU, APPLY], ids=lambda arguments: arguments[0])
def test_a_state_folder_that_can_not_be_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(desk.folder)
    done = desk.run("--state", "/proc/none", *arguments)
    assert done.status == 1
    assert done.err.count("E-STATE") == 1
    assert "--state FOLDER" in done.err


# Terminals.


def closed(stream: str, command: list[str]) -> list[str]:
    return ["sh", "-c", f'exec "$@" {stream}', "sh", *command]


@pytest.mark.parametrize("stdin", ["</dev/null", "<&-"])
@pytest.mark.parametrize(
    "arguments",
    [FLASH_IMU, ["erase", "imu"], ["apply", "update/imu.importmanifest.json"]],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.real_time("a child program")
def test_real_hardware_is_not_erased_unasked(hardware: Hardware, stdin: str, arguments: list[str]) -> None:
    server, host = hardware.server, hardware.host
    before = server.memory()
    runs = arguments[0] == "apply"
    if runs:
        # A plan looks at what runs, and here nothing does yet: let the part run its application.
        assert host.run("reset", "imu").status == 0
        deployable(server)
    done = subprocess.run(
        closed(stdin, host.command(*arguments)), cwd=server.folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 2, done
    assert "E-NOT-CONFIRMED" in done.stderr
    assert "Add --yes." in done.stderr
    assert "Traceback" not in done.stderr
    assert server.memory() == before
    assert hardware.in_bootloader() == (not runs)
    assert not runs or host.seen() == {"imu": "1.4.2"}


def deployable(desk: Desk) -> None:
    """Makes an update of its own, with a step for the components, of the IMU's."""
    folder = desk.folder / "update"
    child = json.loads((folder / "imu.importmanifest.json").read_text())
    (folder / "only.importmanifest.json").write_text(json.dumps(child))
    step = {"type": "reference", "updateId": child["updateId"]}
    parent = child | {
        "updateId": child["updateId"] | {"name": "Parent"},
        "isDeployable": True,
        "instructions": {"steps": [step]},
        "files": [],
    }
    (folder / "imu.importmanifest.json").write_text(json.dumps(parent))


@pytest.mark.parametrize("stream", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_ends_no_flash(desk: Desk, stream: str) -> None:
    command = closed(stream, desk.command("-v", *FLASH_CAMERA))
    done = subprocess.run(command, cwd=desk.folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done
    assert "Traceback" not in done.stderr
    assert desk.seen() == OLD | {"camera": "1.5.0"}
