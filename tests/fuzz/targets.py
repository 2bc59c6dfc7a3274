"""Every reader of what comes from elsewhere, as one function from bytes: it returns, or raises where the reader is at fault.

What a reader is documented to raise is taken. Anything else that it raises is a fault, E-UNEXPECTED too. The tests
and `make fuzz` go through `TARGETS`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache, wraps
from io import BytesIO
from pathlib import Path
from typing import Any

from proxyflash.emulators.can import server as can_server
from proxyflash.emulators.uds.memory import Marker
from proxyflash.enumerators import probers
from proxyflash.enumerators.benchfile import schema as benchfile
from proxyflash.enumerators.benchfile.toml_positions import key_lines
from proxyflash.enumerators.component import distinct, parse_selector
from proxyflash.enumerators.errors import BenchError, SelectorWrong, StateFolder, TargetWrong
from proxyflash.enumerators.target import Target as NamedTarget
from proxyflash.enumerators.target import bus_of, is_target_or_file, without_settings
from proxyflash.flashers.avr import avr109_codec, stk500v1_codec, stk500v2_codec
from proxyflash.flashers.dfu import codec as dfu_codec
from proxyflash.flashers.dfu import identity as dfu_identity
from proxyflash.flashers.dfu.dfuse_layout import parse_layout
from proxyflash.flashers.dfu.discovery import as_discovered
from proxyflash.flashers.errors import ImageError, PartError, ProfileWrong, ProtocolError
from proxyflash.flashers.formats import dfu, elf, ihex, mcuboot, srec
from proxyflash.flashers.formats import raw as binary
from proxyflash.flashers.katapult import codec as katapult_codec
from proxyflash.flashers.mboot import codec as mboot_codec
from proxyflash.flashers.smp import codec as smp_codec
from proxyflash.flashers.smp.client import SmpClient, wanted_offset
from proxyflash.flashers.stm32 import codec as stm32_codec
from proxyflash.flashers.uds import codec as uds_codes
from proxyflash.flashers.uds import identity as uds_identity
from proxyflash.flashers.xcp import codec as xcp_codec
from proxyflash.flashers.xymodem import codec as xmodem_codec
from proxyflash.flashers.xymodem import sender as xmodem_sender
from proxyflash.flashers.xymodem.console import LoaderConsole, plain
from proxyflash.flashers.xymodem.flavours import YmodemFlasher
from proxyflash.flashers.xymodem.profile import loaders
from proxyflash.transports import json_text
from proxyflash.transports.errors import PluginUnknown
from proxyflash.transports.isotp import frames as isotp_frames
from proxyflash.transports.toml_text import toml_text
from proxyflash.transports.usb.bus import UsbInfo, UsbInterface
from proxyflash.updates.engine import attempts, journal, kept_plan
from proxyflash.updates.engine.engine import _component
from proxyflash.updates.engine.progress import Progress
from proxyflash.updates.engine.store import Store
from proxyflash.updates.errors import (
    JournalBroken,
    KeyFile,
    PlanChanged,
    PlanFile,
    ScriptFailed,
    StepFailed,
    TrustError,
    UpdateError,
)
from proxyflash.updates.handlers import app, apt, backup_store, flash, partition, script
from proxyflash.updates.manifests import device_manifest as dm
from proxyflash.updates.manifests import manifest as mf
from proxyflash.updates.manifests import signing, versions
from proxyflash.updates.manifests.policy import policy_of
from proxyflash.updates.manifests.resolved_update import read as read_update

Target = Callable[[bytes], None]
TARGETS: dict[str, Target] = {}


def reader(*documented: type[Exception]) -> Callable[[Target], Target]:
    """Makes a function a target of its own name; `documented`: what its reader may raise."""

    def register(function: Target) -> Target:
        @wraps(function)
        def target(data: bytes) -> None:
            try:
                function(data)
            except documented as error:
                # Whatever it is, it can be printed.
                str(error).encode("utf-8", "backslashreplace")

        TARGETS[function.__name__] = target
        return target

    return register


@cache
def folder() -> Path:
    """A folder of this process, in memory where the system has one there."""
    shared = Path("/dev/shm")
    made = tempfile.TemporaryDirectory(prefix="fuzz", dir=shared if os.access(shared, os.W_OK) else None)
    _FOLDERS.append(made)
    return Path(made.name)


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def file(name: str, data: bytes) -> Path:
    path = folder() / name
    path.write_bytes(data)
    return path


# Firmware files.


def _image(read: Callable[[BytesIO, str], Any], data: bytes) -> None:
    image = read(BytesIO(data), "fw")
    assert image.size <= 2 * len(data) + 64, "more bytes than the file has"


@reader(ImageError)
def format_raw(data: bytes) -> None:
    _image(binary.read, data)


@reader(ImageError)
def format_ihex(data: bytes) -> None:
    _image(ihex.read, data)


@reader(ImageError)
def format_ihex_checked(data: bytes) -> None:
    """Records whose counts and checksums are right."""
    text = b""
    for record in _pieces(data):
        body = bytes([max(0, len(record) - 3), *record[:3].ljust(3, b"\0"), *record[3:]])
        text += b":" + (body + bytes([-sum(body) & 0xFF])).hex().encode() + b"\n"
    _image(ihex.read, text)


@reader(ImageError)
def format_srec(data: bytes) -> None:
    _image(srec.read, data)


@reader(ImageError)
def format_srec_checked(data: bytes) -> None:
    text = b""
    for record in _pieces(data):
        kind, rest = record[:1] or b"\0", record[1:]
        body = bytes([len(rest) + 1]) + rest
        text += b"S%d" % (kind[0] % 10) + (body + bytes([~sum(body) & 0xFF])).hex().encode() + b"\n"
    _image(srec.read, text)


@reader(ImageError)
def format_elf(data: bytes) -> None:
    _image(elf.read, data)


@reader(ImageError)
def format_dfu(data: bytes) -> None:
    _image(dfu.read, data)
    _image(dfu.read, _with_suffix(data))


@reader(ImageError)
def format_dfuse(data: bytes) -> None:
    _image(dfu.read_dfuse, _with_suffix(data) if data[:1] != b"\0" else data[1:])


@reader(ImageError)
def format_mcuboot(data: bytes) -> None:
    _image(mcuboot.read, data)


@reader(ImageError)
def format_mcuboot_hashed(data: bytes) -> None:
    """An image whose hash is right, with whatever else in its TLVs."""
    body, rest = data[: len(data) // 2], data[len(data) // 2 :]
    head = mcuboot.HEADER.pack(mcuboot.MAGIC, 0, 32, 0, len(body), 0, 1, 2, 3, 4, 0)
    digest = hashlib.sha256(head + body).digest()
    entries = mcuboot.INFO.pack(mcuboot.Tlv.SHA256, 32) + digest + rest
    info = mcuboot.INFO.pack(mcuboot.INFO_MAGIC, min(0xFFFF, mcuboot.INFO.size + len(entries)))
    _image(mcuboot.read, head + body + info + entries)


def _pieces(data: bytes) -> list[bytes]:
    """Cut by their own first bytes."""
    found = []
    while data:
        size = data[0] % 40
        found.append(data[1 : 1 + size])
        data = data[1 + size :]
    return found


def _with_suffix(data: bytes) -> bytes:
    whole = data + dfu.SUFFIX.pack(0xFFFF, 0xFFFF, 0xFFFF, 0x011A, b"UFD", 16, 0)[:-4]
    return whole + (zlib.crc32(whole) ^ 0xFFFFFFFF).to_bytes(4, "little")


# Updates.


@reader(ValueError)
def json_document(data: bytes) -> None:
    json_text.parse(data, most=1 << 20)


@reader(UpdateError)
def import_manifest(data: bytes) -> None:
    mf.parse(mf.decoded(data, "m"), "m")


@reader(UpdateError)
def device_manifest(data: bytes) -> None:
    raw = mf.json_object(mf.decoded(data, "m"), "m")
    if dm.is_deployment(raw):
        dm.deployment(raw, "m")
    else:
        dm.device_manifest(raw, "m")


@reader(UpdateError)
def update(data: bytes) -> None:
    """A manifest in a folder, with what lies beside it."""
    read_update(file("update.importmanifest.json", data))


@reader(TrustError, UpdateError)
def signature(data: bytes) -> None:
    signing.verify("{}", data.decode("utf-8", "replace"), signing.Trust(), "m")


@reader(TrustError, UpdateError)
def signature_parts(data: bytes) -> None:
    """A signature whose parts are base64url, whatever is in them."""
    header, _, payload = data.partition(b"\0")
    inner = ".".join(map(signing.encoded, (header, payload, payload)))
    signing.signing_key_of(inner, "m")


@reader(KeyFile)
def key_file(data: bytes) -> None:
    signing.read_public_key(file("key", data))


@reader(JournalBroken)
def journal_file(data: bytes) -> None:
    Progress.of(journal.records(file("journal", data)), "journal")


@reader(JournalBroken, StateFolder)
def journal_records(data: bytes) -> None:
    """Records of a journal whose checksums and numbers are right."""
    updates = folder() / "updates" / "000001"
    updates.mkdir(parents=True, exist_ok=True, mode=0o700)
    lines = []
    for number, line in enumerate(data.split(b"\n")):
        with suppress(ValueError):
            record = json_text.parse(line, most=1 << 16)
            if isinstance(record, dict):
                lines.append(journal.encoded({**record, "seq": number + 1}))
    (updates / journal.NAME).write_bytes(b"".join(lines))
    store = Store(folder())
    store.seen(30)
    store.backed_up()
    for entry in store.entries():
        progress = entry.progress()
        str(progress.begin.get("update"))
        if progress.begin:
            [_component(fields) for fields in progress.begin["components"]]
            str(progress.begin["manifest"] + progress.begin["digest"])


@reader(StateFolder)
def attempts_file(data: bytes) -> None:
    attempts.Attempts(file("attempts.json", data))


@reader(StateFolder)
def backup_file(data: bytes) -> None:
    file(backup_store.NAME, data)
    for shape in (app._Kept, apt._Kept, flash._Kept, partition._Kept):
        backup_store.facts(folder(), shape)


@reader(StateFolder)
def emulated_marker(data: bytes) -> None:
    Marker(file("radar.json", data))


@reader(StepFailed)
def apt_manifest(data: bytes) -> None:
    apt.parse(data, "m")


@reader(ScriptFailed)
def script_result(data: bytes) -> None:
    script._read_result(file("result.json", data))


@reader(PlanFile, PlanChanged)
def kept_plan_file(data: bytes) -> None:
    found = kept_plan.read(file("plan.json", data))
    if found is not None:
        found.check(found)
        found.check(found.model_copy(update={"tasks": found.tasks[1:], "components": found.components[1:]}))


@reader(SelectorWrong)
def selector(data: bytes) -> None:
    parse_selector(data.decode("utf-8", "replace"))


@reader()
def version(data: bytes) -> None:
    one, _, other = data.decode("utf-8", "replace").partition("\n")
    versions.key(one)
    versions.older(one, other)
    mcuboot.Version.parse(one)


# The bench file.


@reader(BenchError, PluginUnknown)
def bench_file(data: bytes) -> None:
    policy_of(benchfile.load(file("bench.toml", data)))


@reader()
def bench_lines(data: bytes) -> None:
    with suppress(UnicodeDecodeError, ValueError):
        key_lines(data.decode())


@reader(BenchError, TargetWrong, PluginUnknown)
def named_target(data: bytes) -> None:
    """The words of a command line, as its bytes are read; with a profile after a zero byte, which no such word has."""
    text, _, profile = data.decode("utf-8", "surrogateescape").partition("\0")
    without_settings(text)
    is_target_or_file(text)
    path = file("profile.toml", profile.encode("utf-8", "surrogateescape")) if profile else None
    named = NamedTarget(text, path, whole_bus=True)
    found = named.file()
    # What is written into a bench file means the same.
    again = benchfile.from_text(found.path, found.text)
    assert (again.spec, list(again.names)) == (found.spec, list(found.names))
    bus_of(named)


# Parts on serial lines, CAN and USB.


class _Link:
    """Answers each request with the same packet."""

    def __init__(self, packet: smp_codec.Packet) -> None:
        self.packet = packet
        self.answer = 0.0

    def ask(self, *words: Any, **more: Any) -> smp_codec.Packet:
        return self.packet

    def send(self, *words: Any) -> smp_codec.Packet:
        return self.packet

    def await_reply(self, *words: Any) -> smp_codec.Packet:
        return self.packet


@reader(PartError)
def smp_packet(data: bytes) -> None:
    _answered(smp_codec.decode(data))


@reader(PartError)
def smp_body(data: bytes) -> None:
    """A packet whose header is right."""
    head = smp_codec.HEADER.pack(1, 0, len(data) & 0xFFFF, 1, 0, 0)
    _answered(smp_codec.decode(head + data[:0xFFFF]))


def _answered(packet: smp_codec.Packet | None) -> None:
    if packet is None:
        return
    if packet.refusal is not None:
        assert len(str(packet.refusal)) < 400
    client: Any = SmpClient(_Link(packet))  # type: ignore[arg-type]
    for ask in (
        lambda: client.echo(seconds=0), client.parameters, lambda: client.application_info("i"), client.bootloader,
        client.bootloader_mode, client.reset, client.images, client.image_state, client.slot_info,
        lambda: wanted_offset(packet),
    ):  # fmt: skip
        with suppress(PartError):
            assert len(str(ask())) < 100_000


@reader()
def smp_framing(data: bytes) -> None:
    for framing in (smp_codec.ConsoleFraming(), smp_codec.RawFraming()):
        for start in range(0, len(data), 7):
            for packet in framing.feed(data[start : start + 7]):
                smp_codec.decode(packet)
        framing.forget()


@reader(ProtocolError)
def dfuse_layout(data: bytes) -> None:
    parse_layout(data.decode("latin-1"), 4)


@reader(ProtocolError)
def usb_descriptors(data: bytes) -> None:
    functional = dfu_codec.parse_functional(data)
    assert functional is None or functional.transfer_size <= 0xFFFF
    dfu_codec.parse_status(data[:6])
    texts = [piece[: len(piece) // 2 * 2].decode("utf-16-le", "surrogatepass") for piece in _pieces(data)]
    texts += [""] * 4
    numbers = data.ljust(8, b"\0")
    item = UsbInterface(1, numbers[0], numbers[1], 0xFE, 1, numbers[2], texts[3], data)
    version = numbers[5] << 8 | numbers[6]
    info = UsbInfo(numbers[3], numbers[4], version, texts[0], texts[1], texts[2], "1-1", (item,))
    str(dfu_identity.probed(info))
    if dfu_identity.alternates(info):
        dfu_identity.common([dfu_identity.probed(info)] * 2)
    toml_text(info.serial)
    distinct([probers.unlisted_part("usb", "dfu", as_discovered(info, by_serial=True))], [], [])


@reader(ValueError)
def can_record(data: bytes) -> None:
    message = can_server.unpack(data[: can_server.RECORD.size].ljust(can_server.RECORD.size, b"\0"))
    if message is not None:
        str(message)
        can_server.pack(message)


@reader()
def isotp_frame(data: bytes) -> None:
    for prefix in (0, 1):
        isotp_frames.accepted_frame(data[1:65], prefix) if len(data) > 2 + prefix else None
        isotp_frames.pci_of(data, prefix)


@reader(PartError)
def uds_answer(data: bytes) -> None:
    size = data[0] % 8 if data else 0
    request, answer = data[1 : 2 + size] or b"\x22", data[2 + size :]
    # What is asked is ours: no service of ISO 14229-1 is above 0x3F and below its answers.
    request = bytes([request[0] & 0x3F, *request[1:]])
    found = uds_codes.decode(request, answer)
    if isinstance(found, uds_codes.NegativeResponse):
        assert len(str(found.error())) < 400
    elif found is not None:
        assert len(uds_identity.text(found)) <= uds_identity.LONGEST_TEXT + 3


@reader(PartError)
def avr_answers(data: bytes) -> None:
    """What STK500 and AVR109 loaders answer."""
    for parse in (
        lambda: stk500v1_codec.payload(data, "what"), lambda: avr109_codec.done(data, "what"),
        lambda: avr109_codec.block_size(data), lambda: avr109_codec.signature(data),
        lambda: avr109_codec.identifier(data),
        lambda: stk500v2_codec.result(data, stk500v2_codec.Command.SIGN_ON, data[0] if data else 0, "what"),
    ):  # fmt: skip
        with suppress(PartError):
            parse()
    heard = bytearray(data)
    while (body := stk500v2_codec.take(heard, 1)) is not None:
        assert len(body) <= len(data)


@reader()
def stm32_answer(data: bytes) -> None:
    if data:
        stm32_codec.is_checked(data)
    stm32_codec.crc32_mpeg2(data[: len(data) // 4 * 4])


@cache
def _consoles() -> list[LoaderConsole]:
    names = [name for name, table in loaders().items() if "ymodem" in table["protocols"]]
    profiles = [YmodemFlasher.Profile.model_validate({"loader": name}) for name in names]
    return [LoaderConsole(None, profile) for profile in profiles]  # type: ignore[arg-type]


@reader()
def loader_text(data: bytes) -> None:
    """What the loaders of XMODEM and YMODEM say."""
    assert len(plain(data)) <= 160
    assert len(xmodem_sender.said(data)) <= 400
    for console in _consoles():
        console.is_prompt(data)
        verdict = console.verdict_in(data)
        assert verdict is None or len(verdict.text) <= 160


@reader(PartError)
def katapult_answer(data: bytes) -> None:
    """What a bootloader sends, in pieces of 8 bytes, and what nodes say under the id of admin messages."""
    katapult_codec.unassigned(data[:8])
    kept = bytearray()
    for start in range(0, len(data), 8):
        kept += data[start : start + 8]
        with suppress(PartError):
            for _, payload in katapult_codec.messages_in(kept):
                assert len(payload) <= 255 * 4
                assert len(katapult_codec.about(payload).mcu) <= len(payload)
    assert len(kept) <= len(data)


@reader(PartError)
def mboot_answer(data: bytes) -> None:
    """What a bootloader sends, in pieces of 8 bytes, and a response's payload."""
    kept = bytearray()
    for start in range(0, len(data), 8):
        kept += data[start : start + 8]
        with suppress(PartError):
            while (found := mboot_codec.next_frame(kept)) is not None:
                assert len(found[1]) <= mboot_codec.MOST_PACKET
    assert len(kept) <= len(data)
    assert len(mboot_codec.answer(data).values) < 255


@reader(PartError)
def xcp_answers(data: bytes) -> None:
    """What a slave answers to CONNECT and PROGRAM_START, and to what it is asked then."""
    xcp_codec.slave_id(data)
    session = xcp_codec.connected(data[:8])
    programming = xcp_codec.programming(data[8:15], session.max_cto)
    assert 0 < programming.program_bytes(session.granularity) < 256
    assert programming.block_bytes(session.granularity) <= 255 * session.granularity
    assert session.upload_elements > 0
    found = session.checksum(data[15:23])
    assert found.compute is None or found.compute(data) >= 0
    assert len(session.uploaded(data[23:], 1)) == session.granularity


@reader(ProfileWrong)
def ymodem_header(data: bytes) -> None:
    name, _, size = data.partition(b"\0")
    header = xmodem_codec.header(name.decode("utf-8", "replace"), int.from_bytes(size[:8], "big"))
    assert len(header) in (xmodem_codec.SHORT, xmodem_codec.LONG)


def seeds() -> dict[str, list[bytes]]:
    """A few good inputs for each target, to start from."""
    root = Path(__file__).parents[2]
    microsoft = root / "tests" / "updates" / "microsoft"
    manifests = [path.read_bytes() for path in sorted(microsoft.glob("*.importmanifest.json"))]
    deployment = (microsoft / "deployment.json").read_bytes()
    carried = json.loads(deployment)
    inner = carried["updateManifest"].encode()
    begin = {
        "time": "2026-01-01T00:00:00+00:00", "kind": "begin", "update": "a/b 1.0", "tasks": 1, "components": [],
        "documents": [], "manifest": "m", "digest": "", "workflow": "",
    }  # fmt: skip
    end = {"time": "2026", "kind": "end", "task": 0, "action": "install", "code": 600, "extended": 0, "details": ""}
    records = "\n".join(map(json.dumps, (begin, {**end, "kind": "start"}, end))).encode()
    task = {"step": "1.1", "component": "imu", "handler": "proxyflash/flash:1", "wanted": "1.5.0", "status": "to do"}
    plan = {
        "format": kept_plan.FORMAT, "schema": 1, "manifest": "/m.json", "manifests": "0" * 64, "bench": "0" * 64,
        "components": [{"name": "imu", "id": "31", "version": "1.4.2", "presence": "ok"}],
        "tasks": [task | {"files": {"fw.hex": "0" * 64}}], "named": {"/keys.py": "0" * 64, "/gone": ""},
    }  # fmt: skip
    image = mcuboot.HEADER.pack(mcuboot.MAGIC, 0, 32, 0, 8, 0, 1, 2, 3, 4, 0) + bytes(8)
    tlv = mcuboot.INFO.pack(mcuboot.INFO_MAGIC, 40) + mcuboot.INFO.pack(mcuboot.Tlv.SHA256, 32)
    element = dfu.ELEMENT.pack(0x08000000, 4) + b"abcd"
    target = dfu.TARGET.pack(dfu.TARGET_SIGNATURE, 0, 0, b"", len(element), 1) + element
    prefix = dfu.PREFIX.pack(dfu.PREFIX_SIGNATURE, 1, dfu.PREFIX.size + len(target), 1)
    segment = bytes.fromhex("7f454c4601010100") + bytes(8)
    segment += elf_header() + b"data"
    bench = [(root / "examples" / "three_sensors" / "bench.toml").read_bytes()]
    bench.append(b'[updates]\nunsigned = "allow"\nfloor = {a = "1.0"}\nconditions = [{check = "x"}]\n')
    bench.append(
        b'[bus.c]\nkind = "can"\n[[component]]\nname = "a"\nbus = "c"\nprotocol = "uds"\naddress = {request = 1}'
    )
    slots = bytes.fromhex("bf66696d616765739fbf64736c6f740067" + "76657273696f6e65312e302e3064686173684401020304ffffff")
    return {
        "format_ihex": [b":04000000DEADBEEFC4\n:00000001FF\n"],
        "format_ihex_checked": [b"\x07\0\0\0abcd\x05\0\0\4\x08\0\x03\0\0\1"],
        "format_srec": [b"S1070000DEADBEEFC0\nS9030000FC\n"],
        "format_srec_checked": [b"\x07\1\0\0abcd\x03\x09\0\0"],
        "format_elf": [segment],
        "format_dfu": [b"abcd"],
        "format_dfuse": [prefix + target],
        "format_mcuboot": [image + tlv + hashlib.sha256(image).digest()],
        "format_mcuboot_hashed": [b"abcdefgh" + mcuboot.INFO.pack(mcuboot.Tlv.DEPENDENCY, 12) + bytes(12)],
        "json_document": [b'{"a": [1, 2.5, true, null, "\\u00e9"], "b": {"c": {}}}'],
        "import_manifest": manifests,
        "device_manifest": [deployment, inner],
        "update": [*manifests, deployment],
        "signature": [carried["updateManifestSignature"].encode()],
        "signature_parts": [b'{"alg":"RS256","kid":"root"}\0{"kty":"RSA","n":"' + b"A" * 342 + b'","e":"AQAB"}'],
        "key_file": [(microsoft / "ADU.200702.R.jwk").read_bytes()],
        "journal_file": [journal.encoded({"seq": 1, **begin}) + journal.encoded({"seq": 2, **end})],
        "journal_records": [records],
        "attempts_file": [b'{"host 00": 1}'],
        "backup_file": [
            b'{"files": {"a": {"kept": "0", "sha256": "%s", "mode": 420, "owner": [0, 0]}, "b": null}, "version": "1"}'
            % (b"0" * 64),
            b'{"packages": {"hello": ["1.0", "0/hello.deb", "%s"], "bye": null}}' % (b"0" * 64),
            b'{"sha256": "%s", "segments": [[0, 4]], "version": "", "target": {"vendor_id": 1}}' % (b"0" * 64),
            b'{"slot": "a", "version": "1.0"}',
        ],
        "emulated_marker": [b'{"complete": true, "segments": [[4096, 12]]}'],
        "apt_manifest": [b'{"name": "a", "version": "1", "packages": [{"name": "libc6", "version": "1.0"}]}'],
        "script_result": [b'{"resultCode": 900, "extendedResultCode": 0, "resultDetails": ""}'],
        "kept_plan_file": [json.dumps(plan).encode()],
        "selector": [b'{"group": "motors"}'],
        "version": [b"1.2.3\n1.2.3+4"],
        "bench_file": bench,
        "bench_lines": bench,
        "named_target": [
            b"stm32-uart:/dev/ttyUSB0?entry.reset=dtr&entry.boot0=rts&bus.baudrate=115200",
            b"uds:socketcan:can0?request=0x7E0&memory=[{start=0x10000,size=0x70000,erase_unit=4096}]\0part = 'R77'\n",
            b"dfu:0483:df11?serial=%220031%22&bus.emulated=true&component.emulated.part=stm32f405-dfu",
            b"smp-udp:[2001:db8::7]:1337",
            b"serial:socket://192.0.2.7:4000?ask=[{protocol='stm32-uart'}]",
        ],
        "smp_packet": [smp_codec.HEADER.pack(1, 0, len(slots), 1, 0, 0) + slots],
        "smp_body": [slots, b"\xa2brc\x05crsnax", b"\xa1cerr\xa2egroup\1brc\5"],
        "smp_framing": [b"".join(smp_codec.ConsoleFraming().wrap(b"\1\0\0\1\0\0\0\0\xa0"))],
        "dfuse_layout": [b"@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg"],
        "usb_descriptors": [bytes.fromhex("0921 0b ff00 0008 1a01".replace(" ", "")), b"\x08A\0B\0"],
        "can_record": [can_server.RECORD.pack(0x123, 0, 2, 0, 0.0, b"\1\2")],
        "isotp_frame": [b"\0\x02\x3e\0\0\0\0\0\0", b"\0\x10\x14abcdef", b"\0\x30\0\0"],
        "uds_answer": [b"\x02\x22\xf1\x89\x62\xf1\x891.4.2", b"\x01\x10\x02\x7f\x10\x22"],
        "avr_answers": [stk500v2_codec.message(1, b"\1\0\x08STK500_2"), b"\x14\x01\x10", b"CATERIN", b"Y\0\x80"],
        "loader_text": [b"\r\nU-Boot 2023.01\r\n=> ", b"Programming Completed Successfully!\r\n"],
        "katapult_answer": [
            katapult_codec.message(0xA0, bytes.fromhex("11000000 00010100 00200008 40000000") + b"rp2040\0\0"),
            bytes.fromhex("200e0d81e4210c11"),
        ],
        "mboot_answer": [
            bytes.fromhex("5aa7000201500000aaea5aa15aa40c002372a0000002 00000000 04000000"),
            bytes.fromhex("a0000002 69000000 04000000"),
        ],
        "xcp_answers": [bytes.fromhex("ff10000808000101 ff0001082a0100 ff090000ce97cd89 ff010203")],
        "ymodem_header": [b"fw.bin\0\0\0\1"],
    }


def elf_header() -> bytes:
    """The rest of a 32-bit header, one program header and one section header."""
    header = bytes.fromhex("0200 2800 01000000 00000008 34000000 00000000 00000000 3400 2000 0100 2800 0000 0000")
    program = b"".join(value.to_bytes(4, "little") for value in (1, 84, 0x08000000, 0x08000000, 4, 4, 5, 4))
    return header + program
