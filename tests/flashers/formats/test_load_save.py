"""Which format a file has, what can't be read, and that a file is written whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxyflash.flashers import formats
from proxyflash.flashers.errors import ImageEmpty, ImageError, ImageFormat, ImageMissing, ImageNotWritten, Unsupported
from proxyflash.flashers.formats import load, save
from proxyflash.flashers.image import FirmwareImage, Segment, join
from proxyflash.transports import plugins
from proxyflash.transports.errors import PluginBroken

HEX = b":0300300002337A1E\n:00000001FF\n"
SREC = b"S10512346162F1\nS9030000FC\n"
IMAGE = FirmwareImage((Segment(0x08000000, b"firmware"), Segment(0x08004000, b"more")), "elf", "fw.elf")
RAW = FirmwareImage((Segment(0, b"firmware"),), "bin", "fw.bin", relocatable=True)


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def names(folder: Path | str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def contents(image: FirmwareImage) -> list[tuple[int, bytes]]:
    return [(segment.address, bytes(segment.data)) for segment in image.segments]


# What a file is.


@pytest.mark.parametrize(
    ("name", "data", "format"),
    [
        ("fw.hex", HEX, "ihex"),
        ("fw.s19", SREC, "srec"),
        ("fw.hex", SREC, "srec"),
        ("fw.s19", HEX, "ihex"),
        ("fw.bin", HEX, "ihex"),
        ("fw", HEX, "ihex"),
        ("fw.txt", b"\r\n" + SREC, "srec"),
        ("fw.bin", b":) no Intel HEX", "bin"),
        ("fw.bin", b"S1 no S-record", "bin"),
        ("fw.BIN", b"\x7fEL", "bin"),
        ("fw.bin", b"DfuSe\2 of no known version", "bin"),
    ],
)
def test_the_content_says_what_it_is_and_else_the_ending(name: str, data: bytes, format: str, tmp_path: Path) -> None:
    assert load(put(tmp_path / name, data)).format == format


def test_a_raw_binary_with_a_suffix_is_dfu_whatever_its_name(tmp_path: Path) -> None:
    save(RAW, tmp_path / "fw.dfu")
    (tmp_path / "fw.dfu").rename(tmp_path / "fw.bin")
    assert load(tmp_path / "fw.bin").format == "dfu"


def test_the_ending_says_what_broken_content_should_have_been(tmp_path: Path) -> None:
    with pytest.raises(ImageFormat, match=r"fw\.hex: line 1 does not begin with ':'"):
        load(put(tmp_path / "fw.hex", b"this is not a firmware"))
    with pytest.raises(ImageFormat, match=r"fw\.mot: line 1 does not begin with 'S'"):
        load(put(tmp_path / "fw.mot", b"this is not a firmware"))
    with pytest.raises(ImageFormat, match=r"fw\.elf: offset 0x0: no ELF file"):
        load(put(tmp_path / "fw.elf", b"this is not a firmware"))
    with pytest.raises(ImageFormat, match=r"fw\.dfu: offset 0x6: no DFU suffix"):
        load(put(tmp_path / "fw.dfu", b"this is not a firmware"))


def test_what_nothing_is_known_of_is_refused_unless_it_has_an_address(tmp_path: Path) -> None:
    path = put(tmp_path / "fw.img", b"firmware")
    with pytest.raises(ImageFormat, match="neither its content nor its ending"):
        load(path)
    assert contents(load(path, address=0x100)) == [(0x100, b"firmware")]


def test_a_format_that_is_named_is_not_guessed(tmp_path: Path) -> None:
    path = put(tmp_path / "fw.hex", HEX)
    assert contents(load(path, format="bin")) == [(0, HEX)]
    with pytest.raises(ImageFormat):
        load(path, format="srec")
    with pytest.raises(Unsupported, match="'hex'") as raised:
        load(path, format="hex")
    assert "ihex, mcuboot, srec" in raised.value.remedy


@pytest.mark.parametrize(("name", "data"), [("fw.hex", HEX), ("fw.s19", SREC)])
def test_an_address_for_a_file_that_has_its_own_is_refused(name: str, data: bytes, tmp_path: Path) -> None:
    path = put(tmp_path / name, data)
    with pytest.raises(ImageFormat, match=rf"{name} has addresses of its own .* placed at 0x8000000") as raised:
        load(path, address=0x8000000)
    assert raised.value.exit_status == 12


# What can't be read.


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(user)


def test_a_file_that_may_not_be_read() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = put(Path(folder) / "fw.hex", HEX)
        Path(folder).chmod(0o755)
        path.chmod(0)
        with as_nobody(), pytest.raises(ImageMissing, match="can't be read: Permission denied") as raised:
            load(path)
    assert raised.value.remedy == "May you read it?"


def test_a_file_that_fails_while_it_is_read() -> None:
    # A regular file by its status, whose first page can't be read even by root.
    path = Path("/proc/self/mem")
    if not path.exists():
        pytest.skip("there is no /proc here")
    with pytest.raises(ImageMissing, match="/proc/self/mem can't be read: Input/output error"):
        load(path)


@pytest.mark.parametrize("make", ["nothing", "folder", "pipe", "loop", "device", "long"])
def test_what_is_no_file(make: str, tmp_path: Path) -> None:
    path = tmp_path / "fw.hex"
    match make:
        case "folder":
            path.mkdir()
        case "pipe":
            # Opening it would wait for a writer.
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "long":
            path = tmp_path / ("x" * 300)
    with pytest.raises(ImageMissing) as raised:
        load(path)
    assert str(path) in raised.value.cause
    assert (raised.value.code, raised.value.exit_status) == ("E-IMAGE-MISSING", 12)
    assert raised.value.remedy


def test_links_are_followed(tmp_path: Path) -> None:
    put(tmp_path / "fw.hex", HEX)
    (tmp_path / "latest").symlink_to("fw.hex")
    assert contents(load(tmp_path / "latest")) == [(0x30, b"\x02\x33\x7a")]


@pytest.mark.parametrize("name", ["fw.hex", "fw.s19", "fw.elf", "fw.bin", "fw.dfu", "fw"])
def test_an_empty_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImageEmpty, match="is empty") as raised:
        load(put(tmp_path / name, b""))
    assert (raised.value.code, raised.value.exit_status) == ("E-IMAGE-EMPTY", 12)


def test_what_no_part_could_hold_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "disk.bin"
    with path.open("wb") as stream:
        # A hole: it takes no room on the disk.
        stream.truncate(formats.LARGEST_FILE + 1)
    with pytest.raises(ImageFormat, match="1,073,741,825 bytes, more than any firmware"):
        load(path)


# Writing.


@pytest.mark.parametrize("name", ["fw.hex", "fw.ihex", "fw.s19", "fw.srec", "fw.mot", "fw.dfu", "FW.HEX"])
def test_the_ending_picks_the_format(name: str, tmp_path: Path) -> None:
    save(IMAGE, tmp_path / name)
    again = load(tmp_path / name)
    assert again.sha256 == IMAGE.sha256
    assert again.segments == IMAGE.segments
    assert names(tmp_path) == [name]


def test_dfu_without_an_address_is_no_dfuse(tmp_path: Path) -> None:
    save(RAW, tmp_path / "raw.dfu")
    save(IMAGE, tmp_path / "placed.dfu")
    assert load(tmp_path / "raw.dfu").format == "dfu"
    assert load(tmp_path / "placed.dfu").format == "dfuse"


@pytest.mark.parametrize("name", ["fw.hex", "fw.s19"])
def test_a_format_with_addresses_needs_one(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImageNotWritten, match=r"fw\.bin has no address") as raised:
        save(RAW, tmp_path / name)
    assert "--address" in raised.value.remedy
    assert names(tmp_path) == []
    save(RAW.at(0), tmp_path / name)
    assert contents(load(tmp_path / name)) == [(0, b"firmware")]


@pytest.mark.parametrize("name", ["fw", "fw.txt", "fw.elf"])
def test_endings_that_are_not_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImageNotWritten) as raised:
        save(IMAGE, tmp_path / name)
    assert ".hex" in raised.value.remedy
    assert ".elf" not in raised.value.remedy
    assert names(tmp_path) == []


def test_a_format_may_be_named(tmp_path: Path) -> None:
    save(IMAGE, tmp_path / "fw.txt", format="srec")
    assert load(tmp_path / "fw.txt").format == "srec"
    with pytest.raises(Unsupported):
        save(IMAGE, tmp_path / "fw.txt", format="s19")


def test_an_image_without_bytes_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ImageNotWritten, match="no bytes"):
        save(FirmwareImage((), "bin"), tmp_path / "fw.hex")
    assert names(tmp_path) == []


def test_a_file_that_is_there_is_replaced_whole(tmp_path: Path) -> None:
    path = put(tmp_path / "fw.hex", b"x" * 100_000)
    save(IMAGE, path)
    assert contents(load(path)) == contents(IMAGE)
    assert names(tmp_path) == ["fw.hex"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "fw.hex").symlink_to("there/real.hex")
    for _ in range(2):
        save(IMAGE, tmp_path / "fw.hex")
        assert (tmp_path / "fw.hex").is_symlink()
        assert names(tmp_path / "there") == ["real.hex"]
    assert contents(load(tmp_path / "there" / "real.hex")) == contents(IMAGE)


def test_the_longest_name_there_is(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".hex")
    save(IMAGE, path)
    assert contents(load(path)) == contents(IMAGE)


@pytest.mark.parametrize("make", ["folder missing", "folder is a file", "folder", "pipe", "socket", "loop", "long"])
def test_where_nothing_can_be_written(make: str, tmp_path: Path) -> None:
    path = tmp_path / "fw.hex"
    match make:
        case "folder missing":
            path = tmp_path / "no" / "fw.hex"
        case "folder is a file":
            put(tmp_path / "file", b"")
            path = tmp_path / "file" / "fw.hex"
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "socket":
            # Stands for all that is not a file: a device that is replaced had better not be this machine's /dev/null.
            os.mknod(path, stat.S_IFSOCK)
        case "loop":
            path.symlink_to(path)
        case "long":
            path = tmp_path / ("x" * 300 + ".hex")
    before = [(found, found.lstat().st_mode) for found in sorted(tmp_path.rglob("*"))]
    with pytest.raises(ImageNotWritten) as raised:
        save(IMAGE, path)
    assert str(path) in raised.value.cause
    assert raised.value.remedy
    assert (raised.value.code, raised.value.exit_status) == ("E-IMAGE-WRITE", 1)
    assert [(found, found.lstat().st_mode) for found in sorted(tmp_path.rglob("*"))] == before


def test_a_folder_that_may_not_be_written_to() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        with as_nobody(), pytest.raises(ImageNotWritten, match="Permission denied"):
            save(IMAGE, Path(folder) / "fw.hex")
        assert names(folder) == []


FULL = """
import resource
import sys
from pathlib import Path
from proxyflash.flashers.errors import ImageNotWritten
from proxyflash.flashers.formats import save
from proxyflash.flashers.image import FirmwareImage, Segment
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save(FirmwareImage((Segment(0, bytes(200_000)),), "bin"), Path(sys.argv[1]))
except ImageNotWritten as error:
    print(error.cause)
"""


@pytest.mark.parametrize("name", ["fw.hex", "fw.s19", "fw.bin", "fw.dfu"])
def test_a_disk_that_takes_no_more_leaves_what_was_there(name: str, tmp_path: Path) -> None:
    # The kernel refuses to let a file grow any further, as it does on a full disk.
    path = put(tmp_path / name, b"the old one")
    done = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True)
    assert done.stdout == f"{path} can't be written: File too large\n", done.stderr
    assert path.read_bytes() == b"the old one"
    assert names(tmp_path) == [name]


class Interrupted(tuple[Segment, ...]):
    """Segments at the second of which a person presses Ctrl-C."""

    def __iter__(self) -> Iterator[Segment]:
        yield self[0]
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["fw.hex", "fw.s19", "fw.dfu"])
def test_an_interrupt_leaves_what_was_there(name: str, tmp_path: Path) -> None:
    path = put(tmp_path / name, b"the old one")
    with pytest.raises(KeyboardInterrupt):
        save(FirmwareImage(Interrupted(IMAGE.segments), "bin"), path)
    assert path.read_bytes() == b"the old one"
    assert names(tmp_path) == [name]


# Every format that can hold an image gives it back.


@st.composite
def images(draw: st.DrawFn) -> FirmwareImage:
    end, chunks = 0, []
    for data in draw(st.lists(st.binary(min_size=1, max_size=70), min_size=1, max_size=3)):
        chunks.append(Segment(end + draw(st.integers(1, 0x1000)), data))
        end = chunks[-1].end
    return FirmwareImage(join(chunks), "bin", "fw.bin")


@given(images(), st.sampled_from([".hex", ".s19", ".dfu", ".bin"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_saved_loads_as_the_same(tmp_path: Path, image: FirmwareImage, ending: str) -> None:
    path = tmp_path / f"fw{ending}"
    save(image, path)
    if ending == ".bin":
        assert load(path, address=image.start, format="bin").read(image.start, image.end - image.start) == image.read(
            image.start, image.end - image.start
        )
    else:
        again = load(path)
        assert (again.segments, again.sha256) == (image.segments, image.sha256)


@given(st.sampled_from([b"\x7fELF", b"DfuSe\x01", HEX, SREC, b""]), st.binary(max_size=200), st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_gives_an_image_or_an_image_error(tmp_path: Path, head: bytes, rest: bytes, suffix: bool) -> None:
    path = put(tmp_path / "fw.img", head + rest + (b"UFD\x10" + bytes(4) if suffix else b""))
    try:
        image = load(path)
    except ImageError:
        return
    assert image.segments


# What a large file costs.

COST = """
import re, sys
from pathlib import Path
from proxyflash.flashers.formats import load

def most() -> int:  # of the memory that this process ever had, in bytes
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

before = most()
image = load(sys.argv[1])
print(image.size, most() - before)
"""


@pytest.mark.parametrize(("ending", "mib"), [(".hex", 16), (".s19", 8), (".dfu", 8), (".bin", 8)])
def test_a_large_image_takes_memory_in_proportion_to_its_bytes(ending: str, mib: int, tmp_path: Path) -> None:
    data = bytes(range(251)) * ((mib << 20) // 251 + 1)
    save(FirmwareImage((Segment(0x08000000, data[: mib << 20]),), "bin"), tmp_path / f"fw{ending}")
    done = subprocess.run([sys.executable, "-c", COST, tmp_path / f"fw{ending}"], capture_output=True, text=True)
    size, grown = map(int, done.stdout.split())
    assert size == mib << 20
    # The text of a HEX file alone has 2.4 bytes for each of these.
    assert size // 2 < grown < 2.5 * size


@pytest.fixture
def broken_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a format whose package can't be imported."""
    info = tmp_path / "site" / "acme_formats-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-formats\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[proxyflash.formats]\nacme = a_module_that_is_not_there:Format\n")
    monkeypatch.syspath_prepend(str(info.parent))
    plugins._installed.cache_clear()
    plugins._group.cache_clear()
    yield "acme"
    plugins._installed.cache_clear()
    plugins._group.cache_clear()


def test_a_format_that_is_broken_stops_no_other(broken_format: str, tmp_path: Path) -> None:
    path = tmp_path / "file.hex"
    path.write_bytes(HEX)
    assert load(path).format == "ihex"
    with pytest.raises(PluginBroken, match="a_module_that_is_not_there"):
        load(path, format=broken_format)
