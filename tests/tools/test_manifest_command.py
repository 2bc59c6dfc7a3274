"""`manifest create`, `check`, `sign` and `key`, as an author and a gateway's maintainer use them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from proxyflash.tests.updates.authoring import private_key
from proxyflash.tools import commands

MOTOR = ["--provider", "Contoso", "--name", "motors", "--version", "1.2", "--group", "motors"]
GATEWAY = ["--provider", "Contoso", "--name", "gateway", "--version", "1.2"]
CHILD = "Contoso.motors.1.2.importmanifest.json"
PARENT = "Contoso.gateway.1.2.importmanifest.json"
DEPLOYMENT = "Contoso.gateway.1.2.deployment.json"
Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """`proxyflash manifest ...` in an empty folder, without a bench."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.delenv("PROXYFLASH_BENCH", raising=False)
    (tmp_path / "motor.bin").write_bytes(b"firmware")

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = commands.run(["manifest", *arguments])
        return status, *capsys.readouterr()

    return run


def created(say: Say) -> None:
    assert say("create", "motor.bin", *MOTOR, "--property", "address=0x08000000")[0] == 0
    assert say("create", *GATEWAY, "--child", CHILD)[0] == 0


def with_keys(say: Say, *, new: bool = False) -> None:
    """`new`: by keys that the command makes; else by such as were there, which takes less time."""
    created(say)
    for name in () if new else ("root", "release"):
        Path(f"{name}.pem").write_bytes(private_key(name).pem())
        Path(f"{name}.pem").chmod(0o600)
    assert say("key", "root.pem", "--kid", "acme-root")[0] == 0
    assert say("key", "release.pem", "--kid", "acme-release", "--root", "root.pem")[0] == 0
    assert say("sign", PARENT, "--key", "release.pem")[0] == 0


def test_from_a_file_to_a_signed_deployment(say: Say, tmp_path: Path) -> None:
    with_keys(say, new=True)
    status, out, err = say("check", DEPLOYMENT, "--root", "root.jwk")
    assert (status, err) == (0, "")
    assert "by acme-release, under the root key acme-root" in out
    assert "Contoso/motors 1.2, on each component with group motors" in out
    assert out.splitlines()[-1] == f"{DEPLOYMENT}  OK"
    for name in ("root.pem", "release.pem"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {
        "motor.bin", "root.pem", "root.jwk", "release.pem", "release.jwk", "release.sjwk",
        CHILD, PARENT, DEPLOYMENT, "Contoso.motors.1.2.updatemanifest.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("handler", "properties", "made"),
    [
        ("proxyflash/app:1", ['executable:=["motor.bin"]'], {"installedCriteria": "1.2", "executable": ["motor.bin"]}),
        ("proxyflash/partition:1", [], {"installedCriteria": "1.2"}),
        ("proxyflash/partition:1", ["installedCriteria=7"], {"installedCriteria": "7"}),
        ("proxyflash/check:1", ['condition:={"check": "parked"}'], {"condition": {"check": "parked"}}),
        (
            "proxyflash/flash:1",
            ['proxyflash:={"attempts": 3}'],
            {"installedCriteria": "1.2", "proxyflash": {"attempts": 3}},
        ),
    ],
)
def test_what_other_handlers_want(
    say: Say, tmp_path: Path, handler: str, properties: list[str], made: dict[str, object]
) -> None:
    options = [word for text in properties for word in ("--property", text)]
    status, _, err = say("create", "motor.bin", *MOTOR, "--handler", handler, *options)
    assert (status, err) == (0, "")
    (step,) = json.loads((tmp_path / CHILD).read_text())["instructions"]["steps"]
    assert step["handlerProperties"] == made
    explained = say("check", CHILD)[1]
    for key, value in made.items():
        assert f"{key} {value if isinstance(value, str) else json.dumps(value)}" in explained


def test_openssl_makes_keys_too(say: Say, tmp_path: Path) -> None:
    created(say)
    for name in ("root", "release"):
        make = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", f"{name}.pem"]
        subprocess.run(make, check=True, capture_output=True)
        subprocess.run(["openssl", "pkey", "-in", f"{name}.pem", "-pubout", "-out", f"{name}.pub"], check=True)
    assert say("key", "release.pem", "--root", "root.pem")[0] == 0
    assert say("sign", PARENT, "--key", "release.pem")[0] == 0
    assert say("check", DEPLOYMENT, "--root", "root.pub")[0] == 0
    assert say("check", DEPLOYMENT, "--root", "release.pub")[0] == 9


def test_what_is_wrong_is_told_with_its_code(say: Say, tmp_path: Path) -> None:
    with_keys(say)
    (tmp_path / "motor.bin").write_bytes(b"firmwarE")
    status, out, err = say("check", DEPLOYMENT, "--root", "root.jwk")
    assert status == 9
    assert err.startswith("E-FILE-HASH ")
    assert out.splitlines()[-1].startswith(f"{DEPLOYMENT}  WRONG")
    status, out, _ = say("check", PARENT, "--root", "root.jwk", "--json")
    assert (status, json.loads(out)["error"]["code"]) == (9, "E-SIGNATURE-MISSING")
    status, out, _ = say("check", PARENT, "--json")
    document = json.loads(out)
    assert (status, [fault["code"] for fault in document["faults"]]) == (9, ["E-FILE-HASH"])
    assert document["signer"] is None


def test_the_policy_is_the_bench_s(say: Say, tmp_path: Path) -> None:
    with_keys(say)
    (tmp_path / "bench.toml").write_text('[updates]\nunsigned = "refuse"\nroots = ["root.jwk"]\n')
    assert say("check", DEPLOYMENT)[0] == 0
    status, _, err = say("check", PARENT)
    assert (status, err.split()[0]) == (9, "E-SIGNATURE-MISSING")
    assert f"Name the deployment beside it instead: {DEPLOYMENT}" in err
    (tmp_path / "bench.toml").write_text(
        '[updates]\nunsigned = "refuse"\nroots = ["root.jwk"]\nrevoked = ["acme-release"]\n'
    )
    status, _, err = say("check", DEPLOYMENT)
    assert (status, err.split()[0]) == (9, "E-SIGNING-KEY-REVOKED")
    assert say("check", DEPLOYMENT, "--bench", "none.toml")[0] == 12


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["create", *MOTOR], 2, "Name files"),
        (["create", "motor.bin", *MOTOR, "--select", "group"], 2, "KEY=VALUE"),
        (["create", "motor.bin", *MOTOR, "--property", "x"], 2, "KEY=TEXT"),
        (["create", "motor.bin", *MOTOR, "--property", ":=1"], 2, "KEY=TEXT"),
        (["create", "motor.bin", *MOTOR, "--property", "x=1", "--property", "x:=1"], 2, "a second one"),
        (["create", "motor.bin", *MOTOR, "--property", "x:=docked"], 2, "not JSON"),
        (["create", "motor.bin", *MOTOR, "--property", "x:=" + "[" * 100_000], 2, "not JSON"),
        (["create", "motor.bin", *MOTOR, "--host", "a=b"], 2, "--host"),
        (["create", "none.bin", *MOTOR], 12, "E-FILE-MISSING"),
        (["create", "motor.bin", *MOTOR, "--version", "1"], 12, "E-MANIFEST-FIELD"),
        (["create", "motor.bin", *GATEWAY], 12, "E-MANIFEST-FIELD"),
        (["create", "motor.bin", *MOTOR, "--handler", "acme/magic:1"], 12, "E-HANDLER"),
        (["create", "motor.bin", *MOTOR, "-o", "none/m.json"], 12, "E-MANIFEST-RULE"),
        (["create", *GATEWAY, "--child", "none.json"], 12, "E-MANIFEST-MISSING"),
        (["check", "motor.bin"], 12, "E-MANIFEST-SYNTAX"),
        (["check", "none.json"], 12, "E-MANIFEST-MISSING"),
        (["key", "none/root.pem"], 2, "E-MANIFEST-OUTPUT"),
        (["key", "motor.bin"], 12, "E-KEY-FILE"),
        (["key", "new.pem", "--root", "none.pem"], 12, "E-KEY-FILE"),
    ],
)
def test_what_can_not_be_done(say: Say, arguments: list[str], status: int, words: str) -> None:
    found, _, err = say(*arguments)
    assert (found, words in err) == (status, True), err


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("motor.hex", b":10000000000102030405060708090A0B0C0D0E0F78\n", "no end-of-file record"),
        ("motor.hex", b":00000001FF\n", "no bytes to write"),
        ("motor.bin", b"PK\x03\x04" + bytes(99), "a zip archive, not firmware for this part"),
        ("motor.bin", b"PK\x03\x04" + bytes(99), "name the format: manifest create --property format=bin"),
        ("motor.bin", b"", "motor.bin is empty"),
    ],
)  # fmt: skip
def test_no_manifest_is_good_whose_firmware_no_part_takes(
    say: Say, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    status, _, err = say("create", name, *MOTOR)
    assert (status, words in err) == (12, True), err
    if content:
        status, out, err = say("check", CHILD)
        assert (status, words in err, out.splitlines()[-1]) == (12, True, f"{CHILD}  WRONG  1 of the above"), err


def test_what_firmware_is_only_some_part_knows(say: Say, tmp_path: Path) -> None:
    """A bootloader's own container, and whatever another handler takes."""
    for name, content, handler in (
        ("motor.gbl", b"\xeb\x17\xa6\x03\x08\0\0\0" + bytes(99), "proxyflash/flash:1"),
        ("motor.zip", b"PK\x03\x04" + bytes(99), "proxyflash/partition:1"),
    ):
        (tmp_path / name).write_bytes(content)
        assert say("create", name, *MOTOR, "--handler", handler)[::2] == (0, "")


def test_a_key_that_no_root_vouches_for_signs_nothing(say: Say, tmp_path: Path) -> None:
    with_keys(say)
    (tmp_path / "other.pem").write_bytes(private_key("other").pem())
    say("key", "other.pem")
    status, _, err = say("sign", PARENT, "--key", "other.pem")
    assert (status, err.split()[0]) == (12, "E-KEY-FILE")
    assert "If other.pem is one, make a signing key" in err
    assert "proxyflash manifest key --root other.pem -- RELEASE.pem" in err
    assert "proxyflash manifest key --root ROOT.pem -- other.pem" in err
    status, _, err = say("sign", PARENT, "--key", "other.pem", "--sjwk", "release.sjwk")
    assert (status, "another key" in err) == (12, True)
    os.truncate(tmp_path / "release.sjwk", 40)
    assert say("sign", PARENT, "--key", "release.pem")[0] == 9


@pytest.mark.parametrize("use", ["roots", "report_key"])
@pytest.mark.parametrize("place", ["bench.toml", "deep/below/bench.toml", "../elsewhere/bench.toml"])
def test_the_printed_lines_work_in_the_bench_file(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, use: str
) -> None:
    """Of a key in another folder, for a bench file here, below and beside: `bench check` reads the named file."""
    monkeypatch.chdir(tmp_path)
    bench, keys = tmp_path / place, tmp_path / "keys and more"
    bench.parent.mkdir(parents=True, exist_ok=True)
    bench.write_text('[bus.usb]\nkind = "usb"\nemulated = true\n')
    keys.mkdir()
    (keys / "own.pem").write_bytes(private_key("root").pem())
    (keys / "own.pem").chmod(0o600)
    status, out, _ = say("key", "keys and more/own.pem", "--bench", place)
    assert status == 0
    lines = out.splitlines()
    pasted = [text.strip() for at, text in enumerate(lines) for line in lines[at + 1 : at + 2] if use in line]
    pasted += [line.strip() for line in lines if use in line]
    assert pasted[0] == "[updates]"
    bench.write_text(bench.read_text() + "\n".join(pasted))
    assert commands.run(["--bench", place, "bench", "check"]) == 0


def test_a_key_in_a_folder_that_is_not_there(say: Say) -> None:
    status, _, err = say("key", "no such/root.pem")
    assert (status, err.split("\n")[0]) == (
        2,
        "E-MANIFEST-OUTPUT no such/root.pem: there is no folder no such. Make it: mkdir -p 'no such'",
    )


def test_a_key_stays_when_another_root_vouches_for_it(say: Say, tmp_path: Path) -> None:
    with_keys(say)
    before = (tmp_path / "release.pem").read_bytes()
    (tmp_path / "root-2.pem").write_bytes(private_key("root-2").pem())
    say("key", "root-2.pem", "--kid", "acme-root-2")
    assert say("key", "release.pem", "--root", "root-2.pem")[0] == 0
    assert (tmp_path / "release.pem").read_bytes() == before
    assert say("sign", PARENT, "--key", "release.pem")[0] == 0
    status, out, _ = say("check", DEPLOYMENT, "--root", "root-2.jwk")
    assert (status, "by acme-release, under the root key acme-root-2" in out) == (0, True)
    assert say("check", DEPLOYMENT, "--root", "root.jwk")[0] == 9


def test_files_of_another_folder(say: Say, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other.bin").write_bytes(b"x")
    status, _, err = say("create", "motor.bin", "sub/other.bin", *MOTOR)
    assert (status, err.split()[0]) == (12, "E-MANIFEST-RULE")
    assert not list(tmp_path.glob("*.json"))


def test_private_keys_beside_a_deployment_are_warned_of(say: Say, tmp_path: Path) -> None:
    """Also in a folder below it. The document's own commands keep them in a folder elsewhere."""
    with_keys(say)
    warning = "holds a private key, and lies in the folder that goes to the gateways: move it elsewhere"
    _, _, err = say("sign", PARENT, "--key", "release.pem")
    assert err.splitlines() == [f"{name} {warning}" for name in ("release.pem", "root.pem")]
    (tmp_path / "keys").mkdir()
    for name in ("root.pem", "release.pem", "release.sjwk"):
        (tmp_path / name).rename(tmp_path / "keys" / name)
    _, _, err = say("sign", PARENT, "--key", "keys/release.pem")
    assert err.splitlines() == [f"keys/{name} {warning}" for name in ("release.pem", "root.pem")]
    elsewhere = (tmp_path / "keys").rename(tmp_path.with_name(f"{tmp_path.name}-keys"))
    status, _, err = say("sign", PARENT, "--key", elsewhere / "release.pem")
    assert (status, err) == (0, "")
