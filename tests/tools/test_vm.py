"""`vm`, all but the guest itself: what is missing, the kernel package, the initramfs, and what becomes of a QEMU.

Real apt and dpkg-deb, on a package archive of the test's own. QEMU's place is taken by a script that speaks as the guest
does; tests/tools/test_vm_guest.py boots real ones.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.tools import commands
from proxyflash.tools.commands.vm import CONSOLE
from proxyflash.tools.vm import guest, host, initramfs, kernel
from proxyflash.tools.vm.errors import VmError, VmModule
from proxyflash.transports import clock

from ..processes import until_ended
from .conftest import PROGRAM

pytestmark = pytest.mark.real_time("child programs and pseudo-terminals")

STATIC = b"\x7fELF\x02\x01\x01" + bytes(25) + struct.pack("<QQIHHHHHH", 64, 0, 0, 64, 56, 0, 64, 0, 0)
"""The header of a 64-bit ELF file without program headers, so without a loader (System V ABI, chapter 4)."""
PACKAGE = "linux-image-6.0.0-1-amd64"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, with all that a guest needs as far as this host has it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "apt-get", "apt-cache", "dpkg-deb", "tar", "rm", "setpriv"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    program(folder / guest.QEMU, "#!/bin/sh\nexit 1\n")
    program(folder / "busybox", STATIC)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def program(file: Path, content: str | bytes) -> None:
    file.unlink(missing_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    file.chmod(0o755)


def run(*arguments: str | Path) -> int:
    return commands.run(["vm", *map(str, arguments)])


# What is missing.


@pytest.mark.parametrize("arguments", [["run", "true"], ["prepare"]], ids=["run", "prepare"])
@pytest.mark.parametrize(
    ("missing", "code", "words"),
    [
        (guest.QEMU, "E-VM-QEMU", "apt-get install qemu-system-x86"),
        ("busybox", "E-VM-BUSYBOX", "apt-get install busybox-static"),
        ("apt-get", "E-VM-APT", "apt-get is not installed"),
        ("apt-cache", "E-VM-APT", "debian:12"),
        ("dpkg-deb", "E-VM-APT", "dpkg-deb is not installed"),
    ],
)
def test_what_is_missing_is_named_with_its_package(
    arguments: list[str], missing: str, code: str, words: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("apt-get", "apt-cache", "dpkg-deb"):
        if not (path / name).exists():
            program(path / name, "#!/bin/sh\nexit 1\n")
    (path / missing).unlink()
    assert run(*arguments) == 125
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{code} ")
    assert words in err


def test_the_busybox_that_needs_libraries_will_not_do(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Our own interpreter needs them.
    (path / "busybox").unlink()
    (path / "busybox").symlink_to(Path(sys.executable).resolve())
    assert run("run", "true") == 125
    assert capsys.readouterr().err.startswith(f"E-VM-BUSYBOX {path}/busybox is not the static busybox. sudo apt-get")


def test_another_processor(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert run("run", "true") == 125
    assert "E-VM-HOST guests run on Linux on x86-64 only; this is Linux on riscv64. " in capsys.readouterr().err


@pytest.mark.parametrize("cache", ["/proc/nowhere", "/dev/null", "/dev/null/below"])
def test_a_cache_folder_that_can_not_be(cache: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("prepare", "--cache", cache) == 125
    assert capsys.readouterr().err.startswith(f"E-VM-CACHE {cache}: ")


@pytest.mark.parametrize("target", ["precious", "missing"])
def test_a_link_in_the_place_of_the_lock_is_not_followed(
    target: str, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "precious").write_text("precious")
    cache = tmp_path / "shared"
    cache.mkdir()
    (cache / "lock").symlink_to(tmp_path / target)
    assert run("prepare", "--cache", cache) == 125
    assert capsys.readouterr().err.startswith(f"E-VM-CACHE {cache / 'lock'}: ")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "missing").exists()


def test_an_artefact_folder_that_can_not_be(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", "--artefacts", "/dev/null/x", "true") == 125
    assert capsys.readouterr().err.startswith("E-VM-ARTEFACTS /dev/null/x: ")


@pytest.mark.parametrize(
    "wrong", [["--env", "9=1"], ["--env", "=1"], ["--needs", "can,tea"], ["--time-limit", "0"], []]
)
def test_wrong_usage(wrong: list[str], path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", *wrong, *(["true"] if wrong else [])) == 2
    assert "Usage: " in capsys.readouterr().err


# The kernel package, from an archive of the test's own.


class Archive:
    """A package archive in a folder, as apt reads it (`deb [trusted=yes] file:FOLDER ./`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: list[str] = []
        self.configuration = folder / "apt.conf"
        for name in ("lists/partial", "cache/archives/partial", "debs"):
            (folder / name).mkdir(parents=True)
        (folder / "sources.list").write_text(f"deb [trusted=yes] file:{folder}/debs ./\n")
        self.configuration.write_text(
            f'Dir::State::lists "{folder}/lists";\nDir::State::status "/dev/null";\nDir::Cache "{folder}/cache";\n'
            f'Dir::Etc::sourcelist "{folder}/sources.list";\nDir::Etc::sourceparts "/dev/null";\n'
            'APT::Architecture "amd64";\nAPT::Sandbox::User "root";\n'
        )

    def add(self, name: str, version: str, depends: str = "", files: dict[str, bytes] | None = None) -> Path:
        tree = self.folder / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        (tree / "DEBIAN").mkdir(parents=True)
        control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody <no@body>\n"
        control += (f"Depends: {depends}\n" if depends else "") + "Description: a test\n"
        (tree / "DEBIAN" / "control").write_text(control)
        for file, content in (files or {}).items():
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            (tree / file).write_bytes(content)
        package = self.folder / "debs" / f"{name}_{version}_amd64.deb"
        subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--build", tree, package], check=True, stdout=subprocess.DEVNULL)
        content = package.read_bytes()
        self.entries.append(
            f"{control}Filename: ./{package.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
        )
        (self.folder / "debs" / "Packages").write_text("\n".join(self.entries))
        return package

    def update(self) -> None:
        environment = os.environ | {"APT_CONFIG": str(self.configuration)}
        subprocess.run(["apt-get", "-q", "update"], env=environment, check=True, capture_output=True)


def kernel_files(release: str, image: bytes = b"no kernel at all") -> dict[str, bytes]:
    """What a kernel package has of what the guest needs, each module of it a few bytes."""
    modules = f"lib/modules/{release}"
    names = [*initramfs.FIRST, *initramfs.MODULES]
    found = {f"{modules}/kernel/{name}.ko": b"\0depends=\0" for name in names}
    return found | {
        f"boot/vmlinuz-{release}": image,
        f"{modules}/modules.builtin": b"kernel/fs/ext4/ext4.ko\n",
        "usr/share/doc/changelog": b"of no use here",
    }


@pytest.fixture
def apt(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    for name in ("apt-get", "dpkg-deb"):
        if not (path / name).exists():
            pytest.skip(f"{name} is not installed")
    archive = Archive(tmp_path / "apt")
    monkeypatch.setenv("APT_CONFIG", str(archive.configuration))
    return archive


def with_kernel(apt: Archive, release: str = "6.0.0-1-amd64", version: str = "6.0.1-1", **more: bytes) -> Path:
    apt.entries.clear()
    package = apt.add(f"linux-image-{release}", version, files=kernel_files(release, **more))
    apt.add("linux-image-amd64", version, depends=f"linux-image-{release} (= {version})")
    apt.update()
    return package


def test_without_package_lists(apt: Archive, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("prepare") == 125
    err = capsys.readouterr().err
    assert err.startswith("E-VM-KERNEL ")
    assert "linux-image-amd64" in err
    assert err.endswith("sudo apt-get update, then again.\n")


def test_lists_that_name_a_kernel_that_has_left_the_archive(apt: Archive, capsys: pytest.CaptureFixture[str]) -> None:
    with_kernel(apt).unlink()
    assert run("prepare") == 125
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("downloading linux-image-6.0.0-1-amd64 6.0.1-1, ")
    assert said[1].startswith("E-VM-KERNEL apt-get download linux-image-6.0.0-1-amd64=6.0.1-1: E: ")
    assert said[1].endswith(". sudo apt-get update, then again.")


def test_the_kernel_is_fetched_once_and_renewed_on_demand(
    apt: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache" / "proxyflash" / "vm"
    with_kernel(apt)
    assert commands.run(["--json", "vm", "prepare"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["release"] == "6.0.0-1-amd64"
    assert Path(first["kernel"]) == cache / "linux-image-6.0.0-1-amd64_6.0.1-1/boot/vmlinuz-6.0.0-1-amd64"
    assert Path(first["initramfs"]).read_bytes().startswith(b"070701")
    assert not (cache / "linux-image-6.0.0-1-amd64_6.0.1-1" / "usr").exists()
    # An epoch's colon has no place in PATH-like lists.
    with_kernel(apt, "6.0.0-2-amd64", "1:6.0.2-1")
    found = kernel.kept(cache)
    assert found is not None
    assert found.release == "6.0.0-1-amd64"
    assert commands.run(["vm", "prepare"]) == 0
    assert sorted(item.name.partition("-")[0] for item in cache.iterdir()) == ["initramfs", "linux", "lock"]
    assert capsys.readouterr().out == f"linux-image-6.0.0-2-amd64_1%3a6.0.2-1  OK  {cache}\n"
    # What is there is not fetched again, and `run` doesn't ask apt at all.
    with_kernel(apt, "6.0.0-2-amd64", "1:6.0.2-1").unlink()
    assert commands.run(["vm", "prepare"]) == 0
    assert "downloading" not in capsys.readouterr().err


def test_an_archive_without_a_kernel(apt: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    apt.add(PACKAGE, "6.0.1-1", files={"usr/share/doc/x": b""})
    apt.add("linux-image-amd64", "6.0.1-1", depends=PACKAGE)
    apt.update()
    assert run("prepare") == 125
    assert f"E-VM-KERNEL {PACKAGE}_6.0.1-1_amd64.deb holds no kernel. " in capsys.readouterr().err
    assert [item.name for item in (tmp_path / "cache/proxyflash/vm").iterdir()] == ["lock"]


def test_a_module_that_the_kernel_lacks(apt: Archive, capsys: pytest.CaptureFixture[str]) -> None:
    with_kernel(apt)
    assert run("prepare", "--modules", "ext4,nonsense-bus") == 125
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("E-VM-MODULE the kernel 6.0.0-1-amd64 has no module nonsense_bus. ")


def test_a_full_disk(apt: Archive, tmp_path: Path) -> None:
    with_kernel(apt, image=bytes(40 << 20))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (32 << 20, 32 << 20))

    done = subprocess.run([PROGRAM, "vm", "prepare"], preexec_fn=limit, capture_output=True, text=True)
    assert done.returncode == 125
    assert f"\nE-VM-CACHE dpkg-deb can't unpack {PACKAGE}_6.0.1-1_amd64.deb: " in done.stderr
    assert [item.name for item in (tmp_path / "cache/proxyflash/vm").iterdir()] == ["lock"]


def test_a_disk_that_is_full_before_the_download_ends(
    apt: Archive, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_kernel(apt)
    program(path / "apt-get", "#!/bin/sh\necho 'E: Write error - write (28: No space left on device)' >&2\nexit 100\n")
    assert run("prepare") == 125
    assert "E-VM-CACHE apt-get download " in capsys.readouterr().err


# The kernel's image.


def boot_image(payload: bytes, *, setup_sectors: int = 3) -> bytes:
    """A bzImage as far as boot.rst says where its payload lies."""
    head = bytearray((1 + (setup_sectors or 4)) * 512)
    head[0x1F1] = setup_sectors
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 100, len(payload))
    return bytes(head) + bytes(100) + payload + b"what follows"


ELF = b"\x7fELF" + bytes(3000) + struct.pack("<III", 4, 4, 18) + b"Xen\0" + bytes(50)


@pytest.mark.parametrize("sectors", [0, 1, 39])
@pytest.mark.parametrize(
    "compressed", [lzma.compress(ELF, check=lzma.CHECK_CRC32), gzip.compress(ELF)], ids=["xz", "gzip"]
)
def test_the_program_in_a_boot_image(compressed: bytes, sectors: int) -> None:
    assert kernel.uncompressed(boot_image(compressed + b"size", setup_sectors=sectors)) == ELF


@pytest.mark.parametrize(
    "image",
    [
        b"",
        boot_image(lzma.compress(ELF)).replace(b"HdrS", b"Hdr!"),
        boot_image(lzma.compress(ELF)[:40]),
        boot_image(b"\x28\xb5\x2f\xfd, which is Zstandard"),
        boot_image(lzma.compress(b"no ELF")),
        boot_image(gzip.compress(ELF.replace(b"Xen", b"Zen"))),
    ],
    # A worker of its own would compress to other bytes: gzip writes the time.
    ids=["empty", "other magic", "cut", "Zstandard", "no ELF", "other ELF"],
)
def test_a_boot_image_that_is_left_as_it_is(image: bytes) -> None:
    assert not kernel.uncompressed(image)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    st.sampled_from([b"\xfd7zXZ\0", b"\x1f\x8b"]),
)
def test_any_boot_image_is_survived(data: bytes, sectors: int, offset: int, magic: bytes) -> None:
    image = bytearray(boot_image(magic + data, setup_sectors=sectors))
    assert kernel.uncompressed(bytes(image)) is None
    struct.pack_into("<I", image, 0x248, offset)
    assert kernel.uncompressed(bytes(image)) is None


# The initramfs.


def test_the_archive_is_what_cpio_takes_it_for(tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox-static is not installed")
    files = {"init": b"#!/bin/sh\n", "bin/deep/down": bytes(range(256)) * 5, "empty": b"", "x" * 90: b"odd"}
    packed = initramfs.archive(files)
    assert len(packed) % 4 == 0
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run([busybox, "cpio", "-id"], input=packed, cwd=out, check=True, capture_output=True)
    assert {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()} == files
    assert (out / "init").stat().st_mode == 0o100755
    assert (out / "bin" / "deep").stat().st_mode == 0o40755


def module(folder: Path, name: str, depends: str = "", *, xz: bool = False) -> None:
    content = f"\x7fELF\0license=GPL\0depends={depends}\0retpoline=Y\0".encode()
    file = folder / "kernel" / f"{name}.ko{'.xz' if xz else ''}"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(lzma.compress(content) if xz else content)


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    folder = tmp_path / "6.12-test"
    folder.mkdir()
    (folder / "modules.builtin").write_text("kernel/drivers/net/mii-core.ko\n")
    module(folder, "can-dev", xz=True)
    module(folder, "can")
    module(folder, "vcan", "can-dev", xz=True)
    module(folder, "gs_usb", "can-dev,usbcore,mii_core")
    module(folder, "usbcore", "usb-common")
    module(folder, "usb-common")
    module(folder, "lost", "nowhere")
    return folder


def test_modules_come_behind_what_they_need(modules: Path) -> None:
    order = [path.name for path in initramfs.load_order(modules, ["vcan", "gs_usb", "can", "mii_core"])]
    assert order == ["can-dev.ko.xz", "vcan.ko.xz", "usb-common.ko", "usbcore.ko", "gs_usb.ko", "can.ko"]


@pytest.mark.parametrize(("name", "words"), [("tea", "no module tea"), ("lost", "no module nowhere, which lost needs")])
def test_modules_that_are_not_there(name: str, words: str, modules: Path) -> None:
    with pytest.raises(VmModule, match=words):
        initramfs.load_order(modules, ["vcan", name])


# A guest, as far as the host sees it.

SPEAKER = """\
#!{python}
import os, re, sys, time
said = " ".join(sys.argv)
ports = [int(number) for number in re.findall(r"socket,id=port[123],fd=(\\d+)", said)]
initramfs = re.search(r"-initrd (\\S+)", said)[1]
job = open(initramfs, "rb").read()
end = re.search(rb"END=(\\w+)", job)[1]
control, out, err = ports
def say(*lines):
    os.write(control, "".join(line + "\\n" for line in lines).encode())
{body}
"""


@pytest.fixture
def speaker(path: Path, tmp_path: Path) -> Callable[..., Any]:
    """Runs a job with a QEMU whose part is taken by the lines of a script: `say`, `out`, `err`, `end`."""

    def run(
        body: str, heard: Callable[[bytes], object] = lambda data: None, **settings: Any
    ) -> tuple[int, bytes, bytes, bytes]:
        take_place(path, body)
        image = tmp_path / "image"
        image.write_bytes(b"")
        job = guest.Job(("true",), tmp_path, {}, **settings)
        said: dict[str, bytearray] = {name: bytearray() for name in ("out", "err", "console")}

        def on_console(data: bytes) -> None:
            said["console"].extend(data)
            heard(data)

        outcome = guest.run(image, image, job, said["out"].extend, said["err"].extend, on_console)
        return outcome.status, bytes(said["out"]), bytes(said["err"]), bytes(said["console"])

    return run


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Puts the clock forward, so that a time limit passes whenever a test says so, and never before."""
    passed = 0.0
    monotonic = clock.monotonic

    def put_forward(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    monkeypatch.setattr(clock, "monotonic", lambda: monotonic() + passed)
    return put_forward


def take_place(path: Path, body: str) -> None:
    program(path / guest.QEMU, SPEAKER.format(python=sys.executable, body=textwrap.dedent(body)))


def test_status_and_outputs_wait_for_each_other(speaker: Callable[..., Any]) -> None:
    body = """
        print("the kernel's own noise", flush=True)
        say("boot", "ready", "exit 3")
        os.write(out, b"a\\r\\n" + bytes(range(256)) + end[:20]); time.sleep(0.2)
        os.write(out, end[:5] + end[:7]); os.write(out, end[7:]); os.write(err, end)
        time.sleep(1000)
    """
    status, out, err, console = speaker(body)
    assert status == 3
    # Held back was no more than what could have been the mark of the end.
    assert out.startswith(b"a\r\n" + bytes(range(256)))
    assert len(out) == 3 + 256 + 20 + 5
    assert (err, console) == (b"", b"the kernel's own noise\n")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=6), st.sampled_from([b"en", b"ende", b"d"])), max_size=12), st.data())
def test_an_output_in_any_pieces(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts) + b"endend!"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    written = bytearray()
    stream = guest._Stream(written.extend, b"endend!")
    for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        if start < stop:
            assert not stream.ended
            stream.feed(whole[start:stop])
    assert stream.ended
    assert bytes(written) == b"".join(parts)


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("print('late'); time.sleep(1000)", "E-VM-TIME", "the guest's time limit of 900 s passed during the boot"),
        ("say('boot', 'ready'); print('late'); time.sleep(1000)", "E-VM-TIME", "passed during the command"),
        ("say('boot', 'failed all of it'); time.sleep(1000)", "E-VM-BOOT", "can't be set up: all of it"),
        ("print('no such machine'); sys.exit(1)", "E-VM-DIED", "QEMU ended with exit status 1"),
        ("os.kill(os.getpid(), 9)", "E-VM-DIED", "QEMU ended by SIGKILL"),
        ("say('boot', 'ready', 'exit 0')", "E-VM-DIED", "was switched off before its command ended"),
        (
            "print('[ 1.0] Kernel panic - not syncing: Attempted to kill init!\\r')",
            "E-VM-PANIC",
            "the guest's kernel panicked: Attempted to kill init!",
        ),
    ],
)
def test_a_guest_that_ends_badly(
    body: str, code: str, words: str, speaker: Callable[..., Any], later: Callable[[float], None]
) -> None:
    body = f"import functools\nprint = functools.partial(print, flush=True)\nprint('first\\nlast')\n{body}"
    with pytest.raises(VmError) as caught:
        speaker(body, lambda data: later(1000) if b"late" in data else None, time_limit=900)
    assert caught.value.code == code
    assert words in caught.value.cause
    assert "\n  | first\n  | last" in str(caught.value)


def test_a_guest_without_a_sign_of_life(
    speaker: Callable[..., Any], later: Callable[[float], None], tmp_path: Path
) -> None:
    body = f"""
        for number in range(8):
            say('alive')
            print(number, flush=True)
            while not os.path.exists(f'{tmp_path}/{{number}}'):
                time.sleep(0.001)
        print('quiet', flush=True)
        time.sleep(1000)
    """

    def heard(data: bytes) -> None:
        for word in data.decode().split():
            if word == "quiet":
                later(1100)
            else:  # Signs of life put it off.
                later(800)
                (tmp_path / word).touch()

    with pytest.raises(VmError) as caught:
        speaker(body, heard, silence=1000, time_limit=1e6)
    assert caught.value.code == "E-VM-SILENT"
    assert (tmp_path / "7").exists()


def test_the_console_s_last_lines_are_kept_and_no_more(speaker: Callable[..., Any]) -> None:
    with pytest.raises(VmError) as caught:
        speaker("for n in range(1000): print('line', n)")
    assert caught.value.console == tuple(f"line {n}" for n in range(1000 - guest.CONSOLE_LINES, 1000))


@pytest.fixture
def prepared(path: Path, tmp_path: Path) -> Path:
    """The cache, with a kernel that is one only in name."""
    folder = tmp_path / "cache/proxyflash/vm/linux-image-6.0.0-1-amd64_6.0.1-1"
    for name, content in kernel_files("6.0.0-1-amd64").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


RUNS = "say('boot', 'ready'); os.write(out, b'%d\\n' % os.getpid()); time.sleep(1000)"


@pytest.fixture
def running(path: Path, prepared: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`vm run` as a process, and the id of its QEMU."""
    take_place(path, RUNS)
    command = [str(PROGRAM), "vm", "run", "true"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_guest_at_once(number: signal.Signals, running: tuple[subprocess.Popen[str], int]) -> None:
    process, qemu = running
    process.send_signal(number)
    assert process.wait() == 130
    assert process.stderr is not None
    assert process.stderr.read().strip() == "E-CANCELLED stopped at once; nothing was changed."
    assert not Path(f"/proc/{qemu}").exists()


def test_no_guest_outlives_us(running: tuple[subprocess.Popen[str], int]) -> None:
    process, qemu = running
    process.kill()
    process.wait()
    until_ended(qemu)


def test_a_reader_that_went_away_ends_the_guest(path: Path, prepared: Path) -> None:
    take_place(path, "say('boot', 'ready')\nwhile True: os.write(out, b'y' * 1000)")
    with subprocess.Popen([PROGRAM, "vm", "run", "true"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait() == 1
        assert process.stderr.read() == b""


def test_an_output_on_a_full_disk(path: Path, prepared: Path) -> None:
    take_place(path, "say('boot', 'ready'); os.write(out, b'y'); time.sleep(1000)")
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run([PROGRAM, "vm", "run", "true"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("E-OUTPUT the command's output can't be written: ")


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo"])
def test_what_a_guest_left_in_the_place_of_the_console_is_not_opened(
    kind: str, path: Path, prepared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The folder of artefacts is the guest's as well, for this run and earlier ones."""
    take_place(path, "say('boot', 'ready', 'exit 0'); os.write(out, end); os.write(err, end); time.sleep(9999)")
    (tmp_path / "precious").write_text("precious")
    artefacts = tmp_path / "artefacts"
    artefacts.mkdir()
    console = artefacts / CONSOLE
    if kind == "fifo":
        os.mkfifo(console)
    else:
        console.symlink_to(tmp_path / ("precious" if kind == "link" else "missing"))
    assert run("run", "--artefacts", artefacts, "true") == 125
    assert capfd.readouterr().err.startswith(f"E-VM-ARTEFACTS {console}: ")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "missing").exists()


def test_a_link_in_the_place_of_the_initramfs_is_replaced(path: Path, prepared: Path, tmp_path: Path) -> None:
    take_place(path, "say('boot', 'ready', 'exit 0'); os.write(out, end); os.write(err, end); time.sleep(9999)")
    assert run("run", "true") == 0
    [built] = prepared.parent.glob("initramfs-*.cpio")
    content = built.read_bytes()
    built.unlink()
    (tmp_path / "precious").write_text("precious")
    for name in (built.name, f".{built.name}.partial", f"{built.stem}.{os.getpid()}"):
        (built.parent / name).symlink_to(tmp_path / "missing")
    assert run("run", "true") == 0
    assert (built.is_symlink(), built.read_bytes() == content) == (False, True)
    assert not (tmp_path / "missing").exists()


def test_where_a_program_reads(path: Path, prepared: Path, capfd: pytest.CaptureFixture[str]) -> None:
    take_place(
        path, "say('boot', 'ready', 'exit 7'); os.write(out, b'output' + end); os.write(err, end); time.sleep(9999)"
    )
    assert commands.run(["--json", "vm", "run", "true"]) == 7
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert (document["exit_status"], document["kernel"]) == (7, prepared.name)
    assert err == "output"


def test_what_the_command_is_given(prepared: Path, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the script that goes into the guest, which a shell carries out here."""
    jobs: list[guest.Job] = []

    def kept(kernel: Path, initramfs: Path, job: guest.Job, *writes: object) -> guest.Outcome:
        jobs.append(job)
        return guest.Outcome(0, 0, 0)

    monkeypatch.setattr(guest, "run", kept)
    odd = "a'b \udcff\n$(x)"
    folder = tmp_path / odd
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, value in {"PYTEST_ADDOPTS": odd, "SECRET": "kept", "LC_X": "l", "COLUMNS": "77", "GIVEN": "g"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    probe = "import os, sys, json; print(json.dumps([os.getcwd(), dict(os.environ), sys.argv[1:]]))"
    given = ["--env", "GIVEN", "--env", "NOT_THERE", "--env", "A=1=2"]
    assert run("run", *given, "--", sys.executable, "-c", probe, "-n", "--json", odd) == 0
    script = guest._job_files(jobs[0], "end")["job/command"]
    done = subprocess.run(["/bin/sh", "-c", script], env={}, capture_output=True, text=True, check=True)
    where, found, arguments = json.loads(done.stdout)
    assert where == str(folder)
    assert arguments == ["-n", "--json", odd]
    assert found["PYTEST_ADDOPTS"] == odd
    assert (found["LC_X"], found["COLUMNS"], found["GIVEN"], found["A"]) == ("l", "77", "g", "1=2")
    assert (found["USER"], found["PROXYFLASH_KERNEL_BENCH"]) == ("root", "1")
    assert not {"SECRET", "NOT_THERE", "PROXYFLASH_ARTEFACTS", "PYTHONDONTWRITEBYTECODE"} & set(found)
    assert found["PATH"].split(":") == [str(path), "/usr/local/sbin", "/usr/sbin", "/sbin"]


# This host instead.


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """This host has every driver."""
    monkeypatch.setattr(host, "CHECKS", dict.fromkeys(host.CHECKS, lambda: ""))


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["true"], 0),
        (["false"], 1),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "kill -9 $$"], 137),
        (["no-such-program"], 127),
        (["/dev/null"], 126),
    ],
)
def test_the_exit_status_without_a_guest(
    words: list[str], status: int, able: None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("run", "--needs", "can,isotp,slcan,usb,gadget", "--", *words) == status
    assert capfd.readouterr().err.startswith("this host has the drivers: no guest\n")


def test_the_same_surroundings_without_a_guest(
    able: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = "echo $PROXYFLASH_KERNEL_BENCH $PROXYFLASH_ARTEFACTS $X; pwd; echo no >&2"
    assert run("run", "--needs", "can", "--artefacts", "made/here", "--env", "X=2", "sh", "-c", shown) == 0
    assert capfd.readouterr().out == f"1 {tmp_path}/made/here 2\n{tmp_path}\n"
    assert (tmp_path / "made" / "here").is_dir()


def test_a_time_limit_without_a_guest(able: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    started = "sleep 1000 & echo $! > number; wait"
    assert run("run", "--needs", "can", "--time-limit", "1", "sh", "-c", f"cd {tmp_path}; {started}") == 125
    assert "E-VM-TIME the time limit of 1 s passed. --time-limit SECONDS." in capfd.readouterr().err
    until_ended(int((tmp_path / "number").read_text()))


def test_a_host_that_lacks_a_driver_boots_a_guest(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host, "SYS", tmp_path)
    (path / guest.QEMU).unlink()
    assert run("run", "--needs", "usb,gadget", "true") == 125
    err = capsys.readouterr().err
    assert err.startswith(
        f"in a guest, because drivers are missing on this host: {tmp_path}/devices/platform/vhci_hcd.0/attach can't be "
    )
    assert "E-VM-QEMU" in err


def test_what_a_host_has_is_asked_of_its_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "SYS", tmp_path)
    assert len(host.missing(["usb", "gadget"])) == 2
    (tmp_path / "devices/platform/vhci_hcd.0").mkdir(parents=True)
    (tmp_path / "devices/platform/vhci_hcd.0/attach").touch()
    (tmp_path / "kernel/config/usb_gadget").mkdir(parents=True)
    assert host.missing(["usb", "gadget"]) == ["dummy_hcd is not loaded"]
    (tmp_path / "class/udc/dummy_udc.0").mkdir(parents=True)
    assert host.missing(["usb", "gadget"]) == []
    # With that /sys there is no vcan0, whatever sockets the kernel has.
    assert len(host.missing(["can"])) == 1
