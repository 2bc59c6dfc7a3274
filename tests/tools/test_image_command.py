"""`proxyflash image`: what it shows, what it converts, what it refuses."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path

import pytest
from proxyflash.flashers.formats import load
from proxyflash.tools import commands

HEX = b":020000040800F2\n:0300300002337A1E\n:01004000615E\n:04000005080001CD21\n:00000001FF\n"
"""Three bytes at 0x08000030, one at 0x08000040, entry 0x080001CD."""


def run(*arguments: str | Path) -> int:
    return commands.run([str(item) for item in arguments])


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def dfu(payload: bytes) -> bytes:
    """A suffix as DFU 1.1, appendix B lays it out, for 1D50:6003, release 1.0.4."""
    body = payload + b"\x04\x01\x03\x60\x50\x1d\x00\x01UFD\x10"
    return body + (zlib.crc32(body) ^ 0xFFFFFFFF).to_bytes(4, "little")


def test_it_shows_segments_gaps_entry_and_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path / "fw.hex", HEX)
    assert run("image", path) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"{path}  ihex  4 bytes  SHA-256 {hashlib.sha256(HEX).hexdigest()}"
    assert [line.split() for line in rest] == [
        ["segment", "0x08000030..0x08000032", "3", "bytes"],
        ["segment", "0x08000040..0x08000040", "1", "bytes"],
        ["gap", "0x08000033..0x0800003F", "13", "bytes"],
        ["entry", "0x080001CD"],
    ]


def test_it_shows_whom_a_dfu_file_is_for_and_its_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("image", put(tmp_path / "fw.dfu", dfu(b"firmware"))) == 0
    rest = capsys.readouterr().out.splitlines()[1:]
    assert [line.split() for line in rest] == [
        ["segment", "anywhere", "8", "bytes"],
        ["version", "1.0.4"],
        ["vendor_id", "0x1D50"],
        ["product_id", "0x6003"],
        ["device", "0x0104"],
    ]


def test_it_says_the_same_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path / "fw.hex", HEX)
    assert run("image", path, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document.pop("sha256") == hashlib.sha256(HEX).hexdigest()
    assert document == {
        "schema": 1,
        "file": str(path),
        "format": "ihex",
        "bytes": 4,
        "version": None,
        "entry": 0x080001CD,
        "relocatable": False,
        "target": {},
        "segments": [{"address": 0x08000030, "bytes": 3}, {"address": 0x08000040, "bytes": 1}],
        "gaps": [{"address": 0x08000033, "bytes": 13}],
        "written": None,
    }


def test_json_tells_a_dfu_files_version_and_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("image", put(tmp_path / "fw.dfu", dfu(b"firmware")), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["version"], document["relocatable"]) == ("1.0.4", True)
    assert document["target"] == {"vendor_id": 0x1D50, "product_id": 0x6003, "device": 0x0104}


@pytest.mark.parametrize("ending", ["hex", "s19", "dfu"])
def test_it_converts(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, made = put(tmp_path / "fw.hex", HEX), tmp_path / f"made.{ending}"
    assert run("image", path, "--to", made) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["written", str(made)]
    assert load(made).sha256 == load(path).sha256
    assert run("image", path, "--to", made, "--json", "--force") == 0
    assert json.loads(capsys.readouterr().out)["written"] == str(made)


def test_it_converts_a_file_into_itself(tmp_path: Path) -> None:
    path = put(tmp_path / "fw.hex", HEX)
    assert run("image", path, "--to", path, "--force") == 0
    assert load(path).entry == 0x080001CD


def test_a_raw_binary_gets_its_address(tmp_path: Path) -> None:
    path = put(tmp_path / "fw.bin", b"firmware")
    assert run("image", path, "--address", "0x0800_0000", "--to", tmp_path / "fw.hex") == 0
    assert load(tmp_path / "fw.hex").start == 0x08000000


def test_a_raw_binary_without_one_becomes_no_hex_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path / "fw.bin", b"firmware")
    assert run("image", path, "--to", tmp_path / "fw.hex") == 1
    out, err = capsys.readouterr()
    assert (out, err.split()[0]) == ("", "E-IMAGE-WRITE")
    assert "--address" in err
    assert not (tmp_path / "fw.hex").exists()


@pytest.mark.parametrize("address", ["-1", "0xZZ", "eight", ""])
def test_an_address_that_is_no_number_is_wrong_usage(address: str, tmp_path: Path) -> None:
    assert run("image", put(tmp_path / "fw.bin", b"firmware"), "--address", address) == 2


BAD = {
    "missing": (None, "fw.hex", "E-IMAGE-MISSING", "can't be read: No such file or directory"),
    "empty": (b"", "fw.hex", "E-IMAGE-EMPTY", "is empty"),
    "without data": (b":00000001FF\n", "fw.hex", "E-IMAGE-EMPTY", "holds no bytes to write"),
    "checksum": (HEX.replace(b"7A1E", b"7A1F"), "fw.hex", "E-IMAGE-FORMAT", "line 2 has the checksum 0x1F"),
    "cut record": (HEX[:31], "fw.hex", "E-IMAGE-FORMAT", "line 2 announces 3 bytes of data and has 2"),
    "cut file": (HEX[:34], "fw.hex", "E-IMAGE-FORMAT", "line 2 is the last"),
    "overlap": (HEX[:-12] + HEX[16:], "fw.hex", "E-IMAGE-OVERLAP", "by lines 2 and 5"),
    "srec": (b"S1O512346162F1\n", "fw.s19", "E-IMAGE-FORMAT", "line 1 has 'O' in its digits"),
    "elf": (b"\x7fELF\x01\x01", "fw.elf", "E-IMAGE-FORMAT", "offset 0x0: the ELF identification should have 16"),
    "dfu": (dfu(b"firmware")[1:], "fw.dfu", "E-IMAGE-FORMAT", "offset 0x13: the DFU suffix has the CRC"),
    "unknown": (b"firmware", "fw.img", "E-IMAGE-FORMAT", "neither its content nor its ending"),
}


@pytest.mark.parametrize("name", BAD)
def test_each_bad_file_has_its_own_message(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, file, code, cause = BAD[name]
    path = tmp_path / file
    if data is not None:
        path.write_bytes(data)
    assert run("image", path, "--to", tmp_path / "out.hex") == 12
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{code} {path}")
    assert cause in err
    assert "Traceback" not in err
    # The remedy is a sentence of its own behind the cause.
    assert err.count(". ") >= 1
    assert not (tmp_path / "out.hex").exists()
    assert run("image", path, "--json") == 12
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["exit_status"]) == (code, 12)
    assert cause in error["cause"]


def test_an_address_beyond_all_memory_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("image", put(tmp_path / "fw.bin", b"firmware"), "--address", hex(1 << 64)) == 12
    assert capsys.readouterr().err.startswith("E-IMAGE-MISPLACED ")


def test_an_address_beyond_32_bits_goes_into_no_hex_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path / "fw.bin", b"firmware")
    for ending in ("hex", "s19", "dfu"):
        assert run("image", path, "--address", "0xFFFFFFFC", "--to", tmp_path / f"out.{ending}") == 1
        assert capsys.readouterr().err.startswith("E-IMAGE-WRITE ")
        assert not (tmp_path / f"out.{ending}").exists()


def test_an_address_for_a_file_that_has_its_own_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("image", put(tmp_path / "fw.hex", HEX), "--address", "0x1000") == 12
    assert "has addresses of its own" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["no/such/folder.hex", "fw.xyz", "."])
def test_what_cannot_be_written_is_said(to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("image", put(tmp_path / "fw.hex", HEX), "--to", tmp_path / to) == 1
    out, err = capsys.readouterr()
    assert (out, err.split()[0]) == ("", "E-IMAGE-WRITE")
    assert [path.name for path in tmp_path.iterdir()] == ["fw.hex"]
