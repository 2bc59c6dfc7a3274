"""Each threat of Uptane and TUF that applies to a host that is handed an update: what an attacker does, and what comes of it.

The attacker can write into the folder that the update comes in, and knows every update that was ever signed; the bench
file and the state folder are the host's own. `apply` is the command line's: the parts' memory shows what it did.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators import records
from proxyflash.tests.updates.authoring import Publisher, changed, private_key
from proxyflash.tests.updates.kills import forked
from proxyflash.tools import commands
from proxyflash.transports import clock
from proxyflash.updates import errors
from proxyflash.updates.engine.results import ActionResult
from proxyflash.updates.handlers.flash import FlashHandler
from proxyflash.updates.manifests.resolved_update import load, staged

pytestmark = pytest.mark.simulated_time
EXAMPLE = Path(__file__).parents[2] / "examples" / "three_sensors"
NEW = {"imus": "imu-1.5.0.hex", "cameras": "camera-1.5.0.dfu", "radars": "radar-1.5.0.s19"}

PATIENT = {
    'match = "FW ([0-9.]+)"': 'match = "FW ([0-9.]+)", timeout = 60',
    "[profile.acme-r77]": "[profile.acme-r77]\ntimings = {latency = 20.0}",
    "[profile.contoso-imu]": "[profile.contoso-imu]\nanswer = 20.0",
}
"""How long answers are waited for: the parts are threads of this process, which a busy machine may let stand for seconds."""


class Gateway:
    """A host with three emulated sensors, which takes what its publisher signs and nothing else."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.incoming = folder / "incoming"
        self.publisher = Publisher(self.incoming)
        self._capsys = capsys
        shutil.copytree(EXAMPLE, folder / "bench", ignore=shutil.ignore_patterns("__pycache__"))
        self.incoming.mkdir()
        for name in NEW.values():
            shutil.copy(EXAMPLE / "update" / name, self.incoming)
        (folder / "root.jwk").write_text(json.dumps(self.publisher.root.public.jwk()))
        self.bench = folder / "bench" / "bench.toml"
        text = re.sub("^probe = .*$", "", self.bench.read_text(), flags=re.MULTILINE)
        text = re.sub("^emulated = true$", "emulated = true\npace = 0", text, flags=re.MULTILINE)
        for old, new in PATIENT.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        self._text = text
        self.policy()

    def policy(self, **more: str) -> None:
        """The bench file's policy: `more` are keys and their TOML."""
        keys = {"unsigned": '"refuse"', "roots": '["../root.jwk"]', **more}
        lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
        self.bench.write_text(f"[updates]\n{lines}\n{self._text}")

    def update(self, version: str = "1.5.0", *groups: str, criteria: str | None = None, **fields: Any) -> Path:
        """A signed update of these groups, or of all, to `version`; `fields` are put into the parent's manifest."""
        children = []
        for group in groups or NEW:
            file = self.incoming / NEW[group]
            children.append(self.publisher.component_update(group, version, criteria=criteria, given=(file,)))
        return self.publisher.sign(changed(self.publisher.update("gateway", version, *children), **fields))

    def apply(self, path: Path, *options: str) -> tuple[int, str]:
        """The exit status, and the code of the error, "" without one."""
        status, err = self.run("apply", str(path), "--yes", *options)
        found = re.search(r"^(E-[A-Z0-9-]+) ", err, re.MULTILINE)
        return status, found[1] if found else ""

    def run(self, *arguments: str) -> tuple[int, str]:
        return self.typed("--bench", str(self.bench), "--state", str(self.folder / "state"), *arguments)

    def typed(self, *arguments: str) -> tuple[int, str]:
        """A command line as it is, without a bench of its own. `said`, `err`: what came of it."""
        self._capsys.readouterr()
        status = commands.run(list(arguments))
        self.said, self.err = self._capsys.readouterr()
        return status, self.err

    def versions(self) -> dict[str, str]:
        self._capsys.readouterr()
        commands.run(["--bench", str(self.bench), "--state", str(self.folder / "state"), "scan", "--json"])
        found = json.loads(self._capsys.readouterr().out)["components"]
        return {item["group"]: item["version"] or item["presence"] for item in found}


OLD = dict.fromkeys(NEW, "1.4.2")
DONE = dict.fromkeys(NEW, "1.5.0")


@pytest.fixture
def gateway(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Gateway:
    monkeypatch.setattr(records, "SIGHT_SECONDS", 60.0)
    return Gateway(tmp_path, capsys)


def test_no_threat(gateway: Gateway) -> None:
    """The update itself is carried out: or else nothing of what follows would show anything."""
    assert gateway.apply(gateway.update()) == (0, "")
    assert gateway.versions() == DONE


def test_arbitrary_software(gateway: Gateway) -> None:
    """The attacker has a firmware of their own, and signs it as well as they can, or not at all."""
    deployment = gateway.update()
    manifest = gateway.incoming / "Contoso.gateway.1.5.0.importmanifest.json"
    assert gateway.apply(manifest) == (9, "E-SIGNATURE-MISSING")
    mallory = Publisher(gateway.incoming, root=private_key("mallory"), key=private_key("mallory's"))
    assert gateway.apply(mallory.sign(manifest)) == (9, "E-ROOT-UNKNOWN")
    named_like_it = replace(mallory.root, public=replace(mallory.root.public, kid="root"))
    mallory = Publisher(gateway.incoming, root=named_like_it, key=private_key("mallory's"))
    assert gateway.apply(mallory.sign(manifest)) == (9, "E-SIGNING-KEY")
    deployment = gateway.publisher.sign(manifest)
    (gateway.incoming / NEW["imus"]).write_bytes((EXAMPLE / "firmware" / "imu-1.4.2.bin").read_bytes())
    assert gateway.apply(deployment)[0] == 9
    assert gateway.versions() == OLD


@pytest.mark.parametrize("how", ["floor of a group", "floor of a component", "on request"])
def test_rollback(gateway: Gateway, how: str) -> None:
    """An old update, rightly signed when it was new, brings back an old fault."""
    match how:
        case "floor of a group":
            gateway.policy(floor='{imus = "1.4.0"}')
        case "floor of a component":
            gateway.policy(floor='{imu = "1.4.0"}')
        case _:
            gateway.policy(downgrade='"on-request"')
    status, _ = gateway.apply(gateway.update("1.3.0", "imus"))
    assert status == 9
    assert gateway.versions() == OLD
    # And what is newer is not a rollback.
    assert gateway.apply(gateway.update("1.5.0", "imus")) == (0, "")


def test_freeze(gateway: Gateway) -> None:
    """The attacker keeps new updates away, and goes on showing the same old one."""
    gateway.policy(max_age_days="30")
    old = datetime.now(UTC) - timedelta(days=31)
    deployment = gateway.update(createdDateTime=old.isoformat())
    assert gateway.apply(deployment) == (9, "E-MANIFEST-EXPIRED")
    assert gateway.versions() == OLD


def test_freeze_with_the_clock_set_back(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of the last update was seen, and it is not before that."""
    gateway.policy(max_age_days="30")
    old = datetime.now(UTC) - timedelta(days=40)
    assert gateway.apply(gateway.update("1.5.0", "imus")) == (0, "")
    deployment = gateway.update("1.5.1", "cameras", criteria="1.5.0", createdDateTime=old.isoformat())
    monkeypatch.setattr(clock, "now", lambda: datetime.now(UTC) - timedelta(days=20))
    load(deployment, gateway.publisher.policy(max_age_days=30))
    assert gateway.apply(deployment) == (9, "E-MANIFEST-EXPIRED")
    assert gateway.versions() == OLD | {"imus": "1.5.0"}


@pytest.mark.real_time("the host's own time of day")
def test_freeze_with_the_clock_once_in_the_future(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock was wrong at one update, whose begin is in the history: newer updates are taken all the same."""
    deployment = gateway.update("1.5.0", "imus")
    with monkeypatch.context() as patch:
        patch.setattr(clock, "now", lambda: datetime(2099, 1, 1, tzinfo=UTC))
        assert gateway.apply(deployment) == (0, "")
    status, _ = gateway.run("history")
    assert status == 0
    assert "2099-01-01" in gateway.said
    gateway.policy(max_age_days="30")
    assert gateway.apply(gateway.update("1.5.1", "cameras", criteria="1.5.0")) == (0, "")
    # And an update that is older than the one which began in that future is opened by the command that the error names.
    old = datetime.now(UTC) - timedelta(days=10)
    older = gateway.update("1.5.2", "radars", criteria="1.5.0", createdDateTime=old.isoformat())
    assert gateway.apply(older) == (9, "E-MANIFEST-EXPIRED")
    command = re.search(r"(mv \S+ \S+)", gateway.err)
    assert command is not None, gateway.err
    subprocess.run(shlex.split(command[1]), check=True)
    assert gateway.apply(older) == (0, "")
    assert gateway.versions() == DONE


@pytest.mark.real_time("the host's own time of day")
@pytest.mark.parametrize(
    "text", ["9999-12-31T23:59:59Z", "9999-12-31", "2099-01-01T00:00:00", "2099-01-01T00:00:00+14:00"]
)
def test_freeze_by_a_manifest_from_the_far_future(gateway: Gateway, text: str) -> None:
    """It would never be too old."""
    gateway.policy(max_age_days="30")
    assert gateway.apply(gateway.update(createdDateTime=text)) == (9, "E-MANIFEST-FUTURE")
    assert gateway.versions() == OLD
    soon = datetime.now(UTC) + timedelta(hours=20)
    assert gateway.apply(gateway.update("1.5.0", "imus", createdDateTime=soon.isoformat())) == (0, "")


def test_mix_and_match(gateway: Gateway) -> None:
    """Parts of two updates, each rightly signed, that were never meant to go together."""
    first = gateway.update("1.5.0", "imus", "cameras")
    names = ["Contoso.imus.1.5.0.updatemanifest.json", "Contoso.cameras.1.5.0.updatemanifest.json"]
    imus, cameras = ((gateway.incoming / name).read_bytes() for name in names)
    # A child manifest of another release by the name of this one's.
    again = gateway.update("1.5.0", "imus", "cameras", criteria="1.5.1")
    assert (gateway.incoming / names[0]).read_bytes() != imus
    (gateway.incoming / names[0]).write_bytes(imus)
    assert gateway.apply(again) == (9, "E-FILE-HASH")
    # Each by the other's name.
    (gateway.incoming / names[0]).write_bytes(cameras)
    (gateway.incoming / names[1]).write_bytes(imus)
    assert gateway.apply(first)[0] == 9
    # Two deployments' manifest and signature.
    other = json.loads(gateway.update("1.5.9", "imus").read_text())
    changed(first, updateManifestSignature=other["updateManifestSignature"])
    assert gateway.apply(first) == (9, "E-MANIFEST-DIGEST")
    assert gateway.versions() == OLD


@pytest.mark.parametrize("missing", ["file", "child manifest"])
def test_partial_installation(gateway: Gateway, missing: str) -> None:
    """A part of the update is held back, so that some components would get it and others not."""
    deployment = gateway.update()
    name = NEW["radars"] if missing == "file" else "Contoso.radars.1.5.0.updatemanifest.json"
    data = (gateway.incoming / name).read_bytes()
    (gateway.incoming / name).unlink()
    assert gateway.apply(deployment) == (12, "E-FILE-MISSING" if missing == "file" else "E-MANIFEST-MISSING")
    assert gateway.versions() == OLD
    (gateway.incoming / name).write_bytes(data)
    assert gateway.apply(deployment) == (0, "")
    assert gateway.versions() == DONE


def test_endless_data(gateway: Gateway) -> None:
    """A file that is larger than it should be, or grows for as long as it is read, fills neither memory nor disk."""
    deployment = gateway.update()
    path = gateway.incoming / NEW["imus"]
    with path.open("r+b") as file:
        file.truncate(1 << 42)
    assert gateway.apply(deployment) == (9, "E-FILE-SIZE")
    with deployment.open("r+b") as file:
        file.truncate(1 << 42)
    assert gateway.apply(deployment) == (12, "E-MANIFEST-SYNTAX")
    assert gateway.versions() == OLD


def test_endless_data_that_comes_while_it_is_read(gateway: Gateway, tmp_path: Path) -> None:
    update = load(gateway.update())
    path = gateway.incoming / NEW["imus"]
    size = path.stat().st_size
    real = os.fstat

    looks = 0

    def before_it_grew(number: int) -> os.stat_result:
        """The second look at the file is for its size; it grows right after."""
        nonlocal looks
        found = real(number)
        if os.path.samestat(found, path.stat()):
            looks += 1
            if looks == 2:
                with path.open("ab") as file:
                    file.write(bytes(5_000_000))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fstat", before_it_grew)
        with pytest.raises(errors.PayloadSize, match=f"has more than the {size:,} bytes"):
            staged(update, tmp_path / "copy")
    assert sum(file.stat().st_size for file in (tmp_path / "copy").iterdir()) < 2_000_000


@contextmanager
def trickling(path: Path) -> Iterator[None]:
    """A pipe, into which a byte comes now and then, for ever."""
    path.unlink()
    os.mkfifo(path)
    done = threading.Event()

    def trickle() -> None:
        while not done.wait(0.05):
            try:
                number = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                continue
            os.write(number, b"x")
            os.close(number)

    writer = threading.Thread(target=trickle)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()


@pytest.mark.parametrize("what", ["file", "child manifest", "deployment"])
def test_slow_retrieval(gateway: Gateway, what: str) -> None:
    """Data that comes too slowly to ever end: nothing is waited for once an update has begun, it is all there or not."""
    deployment = gateway.update()
    path = {"file": gateway.incoming / NEW["imus"], "deployment": deployment}.get(
        what, gateway.incoming / "Contoso.imus.1.5.0.updatemanifest.json"
    )
    with trickling(path):
        status, code = gateway.apply(deployment)
    assert (status, code) == ((9, "E-FILE-KIND") if what == "file" else (12, "E-MANIFEST-MISSING"))
    assert gateway.versions() == OLD


def test_wrong_installation(gateway: Gateway) -> None:
    """An update, rightly signed, for other components, or with the firmware of another kind of part."""
    children = [gateway.publisher.component_update("lidars", "1.5.0", given=(gateway.incoming / NEW["imus"],))]
    elsewhere = gateway.publisher.sign(gateway.publisher.update("gateway", "1.6.0", *children))
    assert gateway.apply(elsewhere) == (0, "")
    assert gateway.versions() == OLD
    # A camera's firmware says that it is for a camera.
    children = [gateway.publisher.component_update("imus", "1.5.0", given=(gateway.incoming / NEW["radars"],))]
    status, _ = gateway.apply(gateway.publisher.sign(gateway.publisher.update("gateway", "1.7.0", *children)))
    assert status != 0
    assert gateway.versions() == OLD


@pytest.mark.parametrize(("revoked", "code"), [("release", "E-SIGNING-KEY-REVOKED"), ("root", "E-ROOT-REVOKED")])
def test_key_compromise_and_revocation(gateway: Gateway, revoked: str, code: str) -> None:
    """A key is stolen, and revoked: what it signed is worth nothing, and what another key signs is taken again."""
    deployment = gateway.update()
    manifest = gateway.incoming / "Contoso.gateway.1.5.0.importmanifest.json"
    gateway.policy(revoked=f'["{revoked}"]', roots='["../root.jwk", "../root-2.jwk"]')
    new = Publisher(gateway.incoming, root=private_key("root-2"), key=private_key("release-2"))
    (gateway.folder / "root-2.jwk").write_text(json.dumps(new.root.public.jwk()))
    assert gateway.apply(deployment) == (9, code)
    assert gateway.versions() == OLD
    if revoked == "release":
        # The thief can give the key another name, but no root key vouches for that.
        renamed = replace(gateway.publisher.key.public, kid="release-3")
        forged = gateway.publisher.key.sign_key(renamed)
        text = json.loads(deployment.read_text())["updateManifest"]
        changed(deployment, updateManifestSignature=gateway.publisher.key.sign(text, forged))
        assert gateway.apply(deployment)[0] == 9
    assert gateway.apply(new.sign(manifest)) == (0, "")
    assert gateway.versions() == DONE


KILLED = -signal.SIGKILL


def killed_in_install(gateway: Gateway, deployment: Path) -> None:
    """A power cut while the second component is flashed: the first is new, the second half new."""
    install = FlashHandler.install
    seen = []

    def cut(self: FlashHandler) -> ActionResult:
        seen.append(self)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return install(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlashHandler, "install", cut)
        assert forked(lambda: gateway.apply(deployment)) == KILLED


@pytest.mark.real_time("a process that is killed")
@pytest.mark.parametrize("advised", ["rollback", "apply"])
def test_key_compromise_while_an_update_waits(gateway: Gateway, advised: str) -> None:
    """The key is revoked between a power cut and the resume: nothing more is installed, and the advice makes it whole."""
    deployment = gateway.update("1.5.0", "imus", "cameras")
    killed_in_install(gateway, deployment)
    gateway.policy(revoked='["release"]')
    status, err = gateway.run("resume")
    assert (status, re.findall(r"^(E-\S+)", err, re.MULTILINE)) == (9, ["E-SIGNING-KEY-REVOKED"])
    assert gateway.apply(deployment) == (9, "E-SIGNING-KEY-REVOKED")
    (command,) = re.findall(rf"proxyflash (--bench \S+ --state \S+ {advised}\b(?: --abandon)?)", err)
    words = shlex.split(command)
    if advised == "rollback":
        status, err = gateway.typed(*words, "--yes")
        assert (status, gateway.versions()) == (0, OLD), err
    else:
        gateway.policy(revoked='["release"]', roots='["../root.jwk", "../root-2.jwk"]')
        new = Publisher(gateway.incoming, root=private_key("root-2"), key=private_key("release-2"))
        (gateway.folder / "root-2.jwk").write_text(json.dumps(new.root.public.jwk()))
        manifest = gateway.incoming / "Contoso.gateway.1.5.0.importmanifest.json"
        status, err = gateway.typed(*words, str(new.sign(manifest)), "--yes")
        assert (status, gateway.versions()) == (0, OLD | {"imus": "1.5.0", "cameras": "1.5.0"}), err


@pytest.mark.real_time("a process that is killed")
def test_an_update_that_somebody_plants_in_the_history(gateway: Gateway) -> None:
    """An unfinished one, which was never signed: `resume`, which the host runs when it starts, carries it out for nobody."""
    gateway.policy(unsigned='"allow"', roots="[]")
    gateway.update("1.5.0", "imus", "cameras")
    killed_in_install(gateway, gateway.incoming / "Contoso.gateway.1.5.0.importmanifest.json")
    before = gateway.versions()
    gateway.policy()
    status, err = gateway.run("resume")
    assert (status, re.findall(r"^(E-\S+)", err, re.MULTILINE)) == (9, ["E-SIGNATURE-MISSING"])
    assert gateway.versions() == before


@pytest.mark.real_time("a process that is killed")
@pytest.mark.parametrize("what", ["the manifest", "a file"])
def test_arbitrary_software_put_into_the_state_folder(gateway: Gateway, what: str) -> None:
    """Between a power cut and the resume; the signature says what it was to be."""
    deployment = gateway.update("1.5.0", "imus", "cameras")
    killed_in_install(gateway, deployment)
    before = gateway.versions()
    name = deployment.name if what == "the manifest" else NEW["cameras"]
    (path,) = (gateway.folder / "state").rglob(f"files/{name}")
    path.write_bytes(path.read_bytes().replace(b"1.5.0", b"1.5.9", 1))
    status, err = gateway.run("resume")
    codes = re.findall(r"^(E-\S+)", err, re.MULTILINE)
    assert (status, codes) == (9, ["E-FILE-CHANGED"])
    assert gateway.versions() == before


@pytest.mark.real_time("a process that is killed")
def test_another_signed_manifest_put_into_the_state_folder(gateway: Gateway) -> None:
    """Between a power cut and the resume; its signature is right, and it is not the update that began."""
    deployment = gateway.update("1.5.0", "imus", "cameras")
    other = gateway.update("1.6.0", "radars")
    killed_in_install(gateway, deployment)
    before = gateway.versions()
    (path,) = (gateway.folder / "state").rglob(f"files/{deployment.name}")
    path.write_bytes(other.read_bytes())
    for command in ("resume", "rollback"):
        status, err = gateway.run(command)
        assert (status, re.findall(r"^(E-\S+)", err, re.MULTILINE)) == (9, ["E-FILE-CHANGED"])
    assert gateway.versions() == before


def test_a_cancelled_deployment_is_believed_after_its_signature(gateway: Gateway) -> None:
    deployment = gateway.update()
    document = json.loads(deployment.read_text())
    workflow = document["workflow"] | {"action": 255}
    changed(deployment, workflow=workflow, updateManifestSignature="")
    assert gateway.apply(deployment) == (9, "E-SIGNATURE-MISSING")
    changed(deployment, updateManifest=None)
    assert gateway.apply(deployment) == (9, "E-SIGNATURE-MISSING")
    changed(deployment, updateManifest="{}", updateManifestSignature=document["updateManifestSignature"])
    assert gateway.apply(deployment) == (9, "E-MANIFEST-DIGEST")
    changed(deployment, updateManifest=document["updateManifest"])
    assert gateway.apply(deployment) == (12, "E-DEPLOYMENT-CANCELLED")


@pytest.mark.parametrize("signature", ["garbage", " ", "e30.e30.e30", "a.b"])
@pytest.mark.parametrize("unsigned", ['"allow"', '"refuse"'])
def test_a_wrong_signature_is_never_taken_for_none(gateway: Gateway, signature: str, unsigned: str) -> None:
    gateway.policy(unsigned=unsigned)
    deployment = changed(gateway.update(), updateManifestSignature=signature)
    status, code = gateway.apply(deployment)
    assert status == 9
    assert code.startswith("E-SIGNATURE")
    assert code != "E-SIGNATURE-MISSING"
    assert gateway.versions() == OLD


def test_a_signature_that_is_stripped(gateway: Gateway) -> None:
    """With roots, and nothing said of unsigned updates, it is missed."""
    gateway.bench.write_text(gateway.bench.read_text().replace('unsigned = "refuse"\n', ""))
    deployment = gateway.update()
    assert gateway.apply(gateway.incoming / "Contoso.gateway.1.5.0.importmanifest.json") == (9, "E-SIGNATURE-MISSING")
    signature = json.loads(deployment.read_text())["updateManifestSignature"]
    assert gateway.apply(changed(deployment, updateManifestSignature=None)) == (9, "E-SIGNATURE-MISSING")
    assert gateway.versions() == OLD
    assert gateway.apply(changed(deployment, updateManifestSignature=signature)) == (0, "")


def test_a_manifest_may_be_a_link(gateway: Gateway) -> None:
    """Also a child's: what it leads to is read once, and held against the hash all the same."""
    deployment = gateway.update("1.5.0", "imus")
    child = gateway.incoming / "Contoso.imus.1.5.0.updatemanifest.json"
    for path in (deployment, child):
        elsewhere = gateway.folder / f"elsewhere-{path.name}"
        shutil.move(path, elsewhere)
        path.symlink_to(elsewhere)
    text = child.read_text()
    child.resolve().write_text(text.replace("1.5.0", "1.5.9", 1))
    assert gateway.apply(deployment) == (9, "E-FILE-HASH")
    child.resolve().write_text(text)
    assert gateway.apply(deployment) == (0, "")
    assert gateway.versions() == OLD | {"imus": "1.5.0"}


def test_replay_of_an_old_signed_manifest(gateway: Gateway) -> None:
    """What was installed long ago is handed in again, with its signature, after something newer was installed."""
    gateway.policy(downgrade='"on-request"')
    old = gateway.update("1.4.9", "imus", criteria="1.4.9")
    kept = {path: path.read_bytes() for path in gateway.incoming.iterdir() if path.is_file()}
    assert gateway.apply(gateway.update("1.5.0", "imus")) == (0, "")
    for path, data in kept.items():
        path.write_bytes(data)
    assert gateway.apply(old)[0] == 9
    assert gateway.versions()["imus"] == "1.5.0"


def test_a_file_that_is_swapped_between_check_and_write(gateway: Gateway, tmp_path: Path) -> None:
    """Until the copy: it is noticed. From the copy on: it changes nothing."""
    update = load(gateway.update())
    path = gateway.incoming / NEW["imus"]
    good = path.read_bytes()
    path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    with pytest.raises(errors.PayloadHash):
        staged(update, tmp_path / "copy")
    path.write_bytes(good)
    copy = staged(update, tmp_path / "copy")
    path.write_bytes(bytes(len(good)))
    used = copy.children["Contoso/imus 1.5.0"].files[NEW["imus"]]
    assert used.parent == tmp_path / "copy"
    assert used.read_bytes() == good
    assert (tmp_path / "copy").stat().st_mode & 0o077 == 0


def test_a_file_that_is_swapped_while_it_is_copied(gateway: Gateway, tmp_path: Path) -> None:
    """One pass: what was hashed was written, however often the original changes meanwhile."""
    update = load(gateway.update())
    path = gateway.incoming / NEW["imus"]
    good = path.read_bytes()
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for data in (bytes(len(good)), good):
                beside = path.with_suffix(".swap")
                beside.write_bytes(data)
                beside.replace(path)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for attempt in range(40):
            try:
                copy = staged(update, tmp_path / f"copy-{attempt}")
            except errors.PayloadHash:
                continue
            used = copy.children["Contoso/imus 1.5.0"].files[NEW["imus"]]
            assert used.read_bytes() == good
    finally:
        done.set()
        swapper.join()


@pytest.mark.parametrize("name", ["../escaped", "/etc/escaped", "a/../../escaped", "..\\escaped", "..", "", "a\0b"])
def test_a_path_that_leaves_the_folder(gateway: Gateway, name: str) -> None:
    """The publisher's key is the attacker's, or the policy takes unsigned updates: a file's name is a name all the same."""
    gateway.policy(unsigned='"allow"')
    gateway.update("1.5.0", "imus")
    for path, key in (
        ("Contoso.imus.1.5.0.importmanifest.json", "filename"),
        ("Contoso.imus.1.5.0.updatemanifest.json", "fileName"),
    ):
        document = json.loads((gateway.incoming / path).read_text())
        entries = document["files"] if key == "filename" else list(document["files"].values())
        entries[0][key] = name
        alone = gateway.incoming / "alone.json"
        alone.write_text(json.dumps(document))
        assert gateway.apply(alone) == (12, "E-MANIFEST-FIELD")
    assert gateway.versions() == OLD


def test_a_script_s_name_that_leaves_the_folder(gateway: Gateway) -> None:
    gateway.policy(unsigned='"allow"')
    (gateway.incoming / "run.sh").write_text("#!/bin/sh\n")
    (gateway.folder / "outside.sh").write_text(f"#!/bin/sh\ntouch {gateway.folder}/ran\n")
    for name in ("../outside.sh", str(gateway.folder / "outside.sh"), "/bin/sh"):
        assert gateway.apply(script_update(gateway, "run.sh", scriptFileName=name))[0] == 12
    assert not (gateway.folder / "ran").exists()


def script_update(gateway: Gateway, script: str, **properties: str) -> Path:
    """An update with one step: a script on the host."""
    data = (gateway.incoming / script).read_bytes()
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    document = {
        "updateId": {"provider": "Contoso", "name": "script", "version": "1.0"},
        "compatibility": [{"model": "host"}],
        "instructions": {
            "steps": [
                {
                    "handler": "microsoft/script:1",
                    "files": [script],
                    "handlerProperties": {"scriptFileName": script, **properties},
                }
            ]
        },
        "files": [{"filename": script, "sizeInBytes": len(data), "hashes": {"sha256": digest}}],
        "createdDateTime": "2026-01-01T00:00:00Z",
        "manifestVersion": "5.0",
    }
    path = gateway.incoming / "script.importmanifest.json"
    path.write_text(json.dumps(document))
    return path


def test_a_symlink_trick(gateway: Gateway, tmp_path: Path) -> None:
    """A link where a file should be, that leads to what the attacker can't read, or can change later."""
    deployment = gateway.update()
    path = gateway.incoming / NEW["imus"]
    elsewhere = gateway.folder / "elsewhere"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)
    assert gateway.apply(deployment) == (9, "E-FILE-KIND")
    # A link that comes between check and copy.
    path.unlink()
    shutil.copy(elsewhere, path)
    update = load(deployment)
    path.unlink()
    path.symlink_to(elsewhere)
    with pytest.raises(errors.PayloadKind):
        staged(update, tmp_path / "copy")
    # Links in the place of devices.
    for device in ("/dev/zero", "/dev/null"):
        path.unlink()
        path.symlink_to(device)
        assert gateway.apply(deployment) == (9, "E-FILE-KIND")
    assert gateway.versions() == OLD


def test_a_zip_trick(gateway: Gateway, tmp_path: Path) -> None:
    """An archive whose members would land elsewhere: no file of an update is unpacked, it is copied as it is."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../escaped", "x")
    child = gateway.publisher.component_update("imus", "1.5.0", archive=packed.getvalue())
    copy = staged(load(gateway.publisher.sign(gateway.publisher.update("gateway", "1.5.0", child))), tmp_path / "copy")
    assert copy.children["Contoso/imus 1.5.0"].files["archive.bin"].read_bytes() == packed.getvalue()
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.real_time("a script")
def test_a_script_s_environment(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another user or service put into ours (a library to load, a shell's start file, a secret) reaches no script."""
    gateway.policy(unsigned='"allow"')
    seen = gateway.folder / "seen"
    script = (
        f"#!/bin/sh\nenv >> {seen}\n"
        'while [ "$1" != --result-file ]; do shift; done\n'
        'printf \'{"resultCode": 900}\' > "$2"\n'
    )
    (gateway.incoming / "run.sh").write_text(script)
    secrets = {
        "LD_PRELOAD": "/nonexistent/evil.so",
        "LD_LIBRARY_PATH": "/nonexistent",
        "PYTHONPATH": "/nonexistent",
        "PYTHONSTARTUP": "/nonexistent",
        "BASH_ENV": "/nonexistent",
        "ENV": "/nonexistent",
        "IFS": "x",
        "AZURE_CLIENT_SECRET": "hush",
        "SSH_AUTH_SOCK": "/nonexistent",
    }
    path = os.environ["PATH"]
    for name, value in secrets.items():
        if not name.startswith("LD_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"/nonexistent/bin:{path}")
    assert gateway.apply(script_update(gateway, "run.sh")) == (0, "")
    found = dict(line.split("=", 1) for line in seen.read_text().splitlines() if "=" in line)
    assert set(found).isdisjoint(secrets)
    assert "/nonexistent/bin" not in found.get("PATH", "")


def test_a_component_that_lies_about_its_version(gateway: Gateway) -> None:
    """It is flashed and goes on reporting another version than the manifest wants: that is reported as a failure."""
    deployment = gateway.update("9.9.9", "imus", criteria="9.9.9")
    status, code = gateway.apply(deployment)
    assert status not in (0, 9)
    assert code
    # And again: a version that never comes is never taken for installed.
    assert gateway.apply(deployment)[0] not in (0, 9)
