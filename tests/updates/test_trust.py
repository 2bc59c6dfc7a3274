"""Which updates a bench takes: its policy, keys that were revoked, manifests that are too old, copies that are checked."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.benchfile import schema as benchfile
from proxyflash.enumerators.errors import BenchKey, StateFolder
from proxyflash.tests.updates.authoring import MICROSOFT, Publisher, changed, private_key
from proxyflash.transports.errors import ExitStatus
from proxyflash.updates import errors
from proxyflash.updates.engine import journal as journals
from proxyflash.updates.engine.store import Seen, Store
from proxyflash.updates.manifests.policy import Policy, policy_of
from proxyflash.updates.manifests.resolved_update import Update, load, staged


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path)


@pytest.fixture
def manifest(publisher: Publisher) -> Path:
    return publisher.update("gateway", "1.2", publisher.component_update("motors", "1.2", motor=b"firmware"))


@pytest.fixture
def deployment(publisher: Publisher, manifest: Path) -> Path:
    return publisher.sign(manifest)


def test_a_signed_update_is_taken(publisher: Publisher, deployment: Path) -> None:
    update = load(deployment, publisher.policy())
    assert update.signer is not None
    assert (update.signer.root, update.signer.key) == ("root", "release")
    assert list(update.children) == ["Contoso/motors 1.2"]


@pytest.mark.parametrize("make", ["import", "device", "deployment", "empty"])
def test_an_unsigned_update_is_refused_where_the_policy_says_so(
    publisher: Publisher, manifest: Path, deployment: Path, make: str
) -> None:
    path = {"import": manifest}.get(make, deployment)
    if make == "device":
        path.write_text(json.loads(path.read_text())["updateManifest"])
    elif make == "deployment":
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if "Signature" not in k}))
    elif make == "empty":
        changed(path, updateManifestSignature="")
    assert load(path, Policy()).signer is None
    with pytest.raises(errors.SignatureMissing) as caught:
        load(path, publisher.policy())
    assert caught.value.exit_status == ExitStatus.POLICY


def test_a_signature_that_is_there_counts_even_where_none_is_needed(publisher: Publisher, deployment: Path) -> None:
    changed(
        deployment, updateManifest=json.loads(deployment.read_text())["updateManifest"].replace("gateway", "gatewax")
    )
    with pytest.raises(errors.DigestWrong):
        load(deployment, publisher.policy(unsigned="allow"))


def test_without_a_root_a_signature_says_nothing(deployment: Path) -> None:
    update = load(deployment)
    assert update.signer is None
    assert update.signature_unverified


REFUSALS: dict[str, tuple[Callable[[Publisher], Policy], type[errors.TrustError]]] = {
    "another root": (
        lambda publisher: Publisher(publisher.folder, root=private_key("another")).policy(),
        errors.RootUnknown,
    ),
    "a forged root": (lambda publisher: forged_root(publisher).policy(), errors.SigningKeyForged),
    "a revoked root": (lambda publisher: publisher.policy(revoked=("root",)), errors.RootRevoked),
    "a revoked key": (lambda publisher: publisher.policy(revoked=("x", "release")), errors.SigningKeyRevoked),
    "too old": (lambda publisher: publisher.policy(max_age_days=1e-9), errors.ManifestExpired),
}


def forged_root(publisher: Publisher) -> Publisher:
    """Trusts another key by the name of the root's."""
    other = private_key("another")
    other = type(other)(type(other.public)("root", other.public.modulus), other._key)
    return Publisher(publisher.folder, root=other)


@pytest.mark.parametrize("name", REFUSALS)
def test_each_refusal_has_an_error_of_its_own(publisher: Publisher, deployment: Path, name: str) -> None:
    make, kind = REFUSALS[name]
    with pytest.raises(errors.TrustError) as caught:
        load(deployment, make(publisher))
    assert type(caught.value) is kind
    assert str(deployment) in caught.value.cause


def test_a_signature_is_looked_at_before_the_manifest(publisher: Publisher, deployment: Path) -> None:
    changed(deployment, updateManifest="{")
    with pytest.raises(errors.DigestWrong):
        load(deployment, publisher.policy())


def test_the_root_s_file(publisher: Publisher, deployment: Path) -> None:
    with pytest.raises(errors.KeyFile):
        load(deployment, publisher.policy(roots=("none.jwk",)))


def test_azure_s_own_deployment_under_its_root() -> None:
    """Taken as far as it is published; the first file that is missed is asked for after the signature."""
    policy = Policy(unsigned="refuse", roots=(str(MICROSOFT / "ADU.200702.R.jwk"),))
    with pytest.raises(errors.ManifestMissing, match="virtual-motors"):
        load(MICROSOFT / "deployment.json", policy)


# Age.


def made(path: Path, when: datetime) -> Path:
    return changed(path, createdDateTime=when.strftime("%Y-%m-%dT%H:%M:%SZ"))


NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("age", "seen", "taken"),
    [
        (timedelta(days=29), None, True),
        (timedelta(days=31), None, False),
        (timedelta(days=29), NOW - timedelta(days=5), True),
        (timedelta(days=29), NOW + timedelta(days=2), False),
        (timedelta(days=-400), NOW + timedelta(days=429), True),
        (timedelta(days=-400), NOW + timedelta(days=431), False),
    ],
)
def test_an_old_manifest(manifest: Path, age: timedelta, seen: datetime | None, taken: bool) -> None:
    """The latest time that was seen counts where the clock says less."""
    made(manifest, NOW - age)
    policy = Policy(max_age_days=30)
    known = Seen(seen, Path("updates/000007")) if seen else None
    if taken:
        load(manifest, policy, seen=known)
    else:
        with pytest.raises(errors.ManifestExpired, match="30 days"):
            load(manifest, policy, seen=known)


@pytest.mark.parametrize("text", ["2020-01-01", "2020-01-01T00:00:00", "2020-01-01T00:00:00+14:00"])
def test_a_time_without_a_zone_is_utc(manifest: Path, text: str) -> None:
    changed(manifest, createdDateTime=text)
    assert load(manifest).created.tzinfo is not None
    with pytest.raises(errors.ManifestExpired):
        load(manifest, Policy(max_age_days=30))


# The policy's table.


def policy_in(folder: Path, text: str) -> Policy:
    (folder / "bench.toml").write_text(f"# A bench.\n[updates]\n{text}\n")
    return policy_of(benchfile.load(folder / "bench.toml"))


HOST = '[[component]]\nname = "gateway"\ngroup = "host"\nversion_from = {command = "true"}'


def test_the_policy_of_a_bench_file(tmp_path: Path) -> None:
    found = policy_in(
        tmp_path, 'unsigned = "refuse"\nroots = ["keys/root.jwk"]\nrevoked = ["old"]\nmax_age_days = 90\n'
        'on_failure = "rollback"\nparallel = true\nattempts = 3\ndowngrade = "on-request"\nfloor = {host = "1.2"}\n'
        'conditions = [{check = "parked"}]\nreboot = "systemctl reboot"\nrestart = "true"\n' + HOST
    )  # fmt: skip
    assert found.roots == (str(tmp_path / "keys" / "root.jwk"),)
    assert (found.unsigned, found.revoked, found.max_age_days) == ("refuse", ("old",), 90)
    assert policy_in(tmp_path, "") == Policy()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('unsigned = "maybe"', "unsigned"),
        ('unsigned = "refuse"', "needs roots"),
        ("unsigned = true", "unsigned"),
        ('roots = "root.jwk"', "roots"),
        ("max_age_days = 0", "max_age_days"),
        ("max_age_days = -1", "max_age_days"),
        ('max_age_days = "90"', "max_age_days"),
        ("attempts = 1.5", "attempts"),
        ('floor = {motors = "new"}', r"floor\.motors"),
        ('rots = ["root.jwk"]', r"unknown key updates\.rots"),
        ('revoked = ["release "]', "blank"),
        ('revoked = ["fine", " release"]', "blank"),
        ('revoked = ["release\\u0000"]', "control character"),
        ('revoked = ["release\\u202e"]', "control character"),
        ('revoked = ["release\\n"]', "control character"),
        ('revoked = [""]', "at least 1 character"),
    ],
)
def test_a_policy_that_does_not_hold(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BenchKey, match=words) as caught:
        policy_in(tmp_path, text)
    assert f"{tmp_path / 'bench.toml'}:" in caught.value.cause


@pytest.mark.parametrize(
    ("text", "signed_only"),
    [
        ("", False),
        ('roots = ["root.jwk"]', True),
        ('roots = ["root.jwk"]\nunsigned = "allow"', False),
        ('roots = ["root.jwk"]\nunsigned = "refuse"', True),
        ('unsigned = "allow"', False),
    ],
)
def test_who_names_roots_means_signed_updates(tmp_path: Path, text: str, signed_only: bool) -> None:
    assert policy_in(tmp_path, text).signed_only is signed_only


# The latest time that was seen.

DAY = timedelta(days=1)


def history(folder: Path, **begins: Any) -> Store:
    """A history of updates, by their number: when each began, and when its manifest was made."""
    store = Store(folder)
    for number, fields in begins.items():
        entry = store.folder / f"{int(number[1:]):06}"
        entry.mkdir(parents=True)
        (entry / journals.NAME).write_bytes(journals.encoded({"seq": 1, "kind": "begin", **fields}))
    return store


@pytest.mark.parametrize(
    ("began", "made", "believed"),
    [
        ("2026-03-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00", "2026-03-01"),
        # Later than the policy could have taken it: the clock was wrong, and it is known by how much at most.
        ("2099-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00", "2026-05-02"),
        ("9999-12-31T23:59:59+00:00", "2026-02-01T00:00:00+00:00", "2026-05-02"),
        # Times without a zone are UTC, and what is not a time counts as none.
        ("2026-03-01T00:00:00+00:00", "2026-02-01", "2026-03-01"),
        ("2026-03-01T00:00:00+00:00", None, "2026-03-01"),
        ("2026-03-01T00:00:00+00:00", "yesterday", "2026-03-01"),
        ("yesterday", "2026-02-01", None),
        (7, 8, None),
        # A manifest of a time that the clock had not come to.
        ("2026-03-01T00:00:00+00:00", "9999-12-31", "2026-03-01"),
    ],
)
def test_a_time_of_the_history_is_believed_as_far_as_it_can_be_true(
    tmp_path: Path, began: object, made: object, believed: str | None
) -> None:
    seen = history(tmp_path, n3={"time": began, "created": made}).seen(max_age_days=90)
    assert (f"{seen.time:%Y-%m-%d}" if seen else None) == believed
    assert seen is None or seen.number == 3
    assert history(tmp_path / "again", n3={"time": began, "created": made}).seen(max_age_days=None) is None


def test_no_time_of_the_history_closes_the_door_for_good(tmp_path: Path, manifest: Path) -> None:
    """Whatever the clock was at an update, a manifest as new as that update's is taken."""
    store = history(tmp_path, n1={"time": "2099-01-01T00:00:00+00:00", "created": NOW.isoformat()})
    policy = Policy(max_age_days=30)
    load(made(manifest, NOW + timedelta(seconds=1)), policy, seen=store.seen(30))
    with pytest.raises(errors.ManifestExpired) as caught:
        load(made(manifest, NOW - DAY), policy, seen=store.seen(30))
    assert f"mv {tmp_path}/updates/000001 " in caught.value.remedy


# Copies.


def names(update: Update) -> set[str]:
    return {path.name for path in update.path.parent.iterdir()}


@pytest.mark.parametrize("kind", ["import", "deployment"])
def test_a_copy_is_the_update(manifest: Path, deployment: Path, tmp_path: Path, kind: str) -> None:
    source = manifest if kind == "import" else deployment
    update = load(source)
    copy = staged(update, tmp_path / "state" / "files")
    assert copy.manifest == update.manifest
    assert stat.S_IMODE((tmp_path / "state" / "files").stat().st_mode) == 0o700
    assert names(copy) == {"motor.bin", source.name} | {child.path.name for child in update.children.values()}
    # Nothing of the source is needed any more, and the copy can be read again.
    for path in [*tmp_path.glob("*.json"), tmp_path / "motor.bin"]:
        path.unlink()
    again = load(copy.path)
    assert again.manifest == update.manifest
    child = next(iter(again.children.values()))
    assert child.files["motor.bin"].read_bytes() == b"firmware"
    assert child.files["motor.bin"].parent == tmp_path / "state" / "files"


def test_a_manifest_that_changed_since_it_was_read_does_not_come_along(manifest: Path, tmp_path: Path) -> None:
    update = load(manifest)
    changed(manifest, description="another one")
    copy = staged(update, tmp_path / "files")
    assert load(copy.path).manifest.description is None


def test_what_a_cut_left_of_a_copy_is_replaced(manifest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "motor.bin").write_bytes(b"firm")
    (tmp_path / "precious").write_bytes(b"kept")
    (folder / manifest.name).symlink_to(tmp_path / "precious")
    copy = staged(load(manifest), folder)
    assert (folder / "motor.bin").read_bytes() == b"firmware"
    assert not copy.path.is_symlink()
    assert (tmp_path / "precious").read_bytes() == b"kept"


def test_a_folder_that_cannot_be_written(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "files").write_text("a file")
    with pytest.raises(StateFolder):
        staged(load(manifest), tmp_path / "files")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is not installed")
def test_a_full_disk(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own: what is created is /dev/full by another name."""
    real = os.open

    def full(path: Any, flags: int, *more: Any, **options: Any) -> int:
        return (
            real("/dev/full", os.O_WRONLY)
            if str(path).endswith("files/motor.bin")
            else real(path, flags, *more, **options)
        )

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(StateFolder, match="No space left"):
        staged(load(manifest), tmp_path / "files")
