"""`manifest create`, `check`, `sign` and `key`: updates from their author's side."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...transports import json_text, named_files
from ...transports.errors import ExitStatus, ProxyflashError
from ...transports.plain import CAUSE, plain
from ...transports.quoting import shell_line
from ..output import describe
from .session import Session, command, group

if TYPE_CHECKING:
    from ...updates.manifests.policy import Policy
    from ...updates.manifests.signing import PrivateKey, PublicKey

PATH = click.Path(path_type=Path)

MOST_LOOKED_AT = 1000
"""Files of a deployment's folder that are looked at for private keys."""
MOST_PROPERTY = 1 << 20
"""Characters of a property that is given as JSON."""


class ManifestOutput(ProxyflashError):
    """A manifest or a key can't be written to the named file, or another file is there."""

    code = "E-MANIFEST-OUTPUT"
    exit_status = ExitStatus.USAGE
    default_remedy = "Name another file or folder."


@group("manifest")
def manifest() -> None:
    """Writes, explains and signs the manifests of updates.

    \b
    proxyflash manifest create motor-1.2.hex --provider Contoso --name motors --version 1.2 --group motors
    proxyflash manifest check Contoso.motors.1.2.importmanifest.json
    """


@command("create")
@click.argument("files", nargs=-1, type=PATH)
@click.option("--provider", required=True, help="Who makes the update: a company's name.")
@click.option("--name", required=True, help="What is updated: a class of device.")
@click.option("--version", required=True, help="Of the update: two to four numbers, 1.2.0.")
@click.option("--description", default="", help="For people.")
@click.option("--group", multiple=True, help="For components of this group.")
@click.option("--model", multiple=True, help="For components of this model.")
@click.option("--select", multiple=True, metavar="K=V,K=V", help="For components with all of these.")
@click.option("--host", multiple=True, metavar="K=V,K=V", help="For hosts with all of these.")
@click.option("--child", multiple=True, type=PATH, metavar="FILE", help="A child update's manifest; in order.")
@click.option("--handler", default="proxyflash/flash:1", show_default=True, help="Carries out the step.")
@click.option("--installed-criteria", metavar="TEXT", help="By which it counts as installed; by default VERSION.")
@click.option(
    "--property", "properties", multiple=True, metavar="KEY=TEXT", help="More for the handler; KEY:=JSON for no text."
)
@click.option("--manifest-version", type=click.Choice(["4.0", "5.0"]), default="5.0", show_default=True)
@click.option("-o", "--output", type=PATH, metavar="FILE", help="Else PROVIDER.NAME.VERSION.importmanifest.json.")
def create(
    session: Session,
    files: tuple[Path, ...],
    provider: str,
    name: str,
    version: str,
    description: str,
    group: tuple[str, ...],
    model: tuple[str, ...],
    select: tuple[str, ...],
    host: tuple[str, ...],
    child: tuple[Path, ...],
    handler: str,
    installed_criteria: str | None,
    properties: tuple[str, ...],
    manifest_version: str,
    output: Path | None,
) -> int | None:
    """Writes an import manifest for FILES, beside them.

    With --group, --model or --select it is for components, and another update refers to it. With --child it refers to
    such updates. FILES are one step: flashed into each of the components, or what --handler makes of them.

    \b
    proxyflash manifest create motor-1.2.hex --provider Contoso --name motors --version 1.2 --group motors
    proxyflash manifest create --provider Contoso --name gateway --version 1.2 \\
        --child Contoso.motors.1.2.importmanifest.json
    """
    from ...updates.manifests import creating
    from ...updates.manifests.explaining import explain
    from ...updates.manifests.resolved_update import read

    if not files and not child:
        raise click.UsageError("Name files for a step, or child updates by --child.")
    try:
        for_components = creating.selectors(
            (*(f"group={text}" for text in group), *(f"model={text}" for text in model), *select), "--select"
        )
        draft = creating.Draft(
            provider,
            name,
            version,
            description,
            for_components,
            creating.selectors(host, "--host"),
            files,
            handler,
            _properties(properties, installed_criteria),
            child,
            manifest_version,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if host and for_components:
        raise click.UsageError("--host is for updates of hosts; --group, --model and --select are for components.")
    text, made = creating.import_manifest(draft)
    folder = (files or child)[0].parent
    path = output or folder / creating.file_name(made.updateId, "importmanifest.json")
    creating.one_folder((*files, *child), path.parent)
    data = text.encode("utf-8", "surrogateescape")
    _refuse_other_update(path, data)
    _write(path, data)
    faults = explain(read(path)).faults
    session.output.document({"manifest": str(path), "update": str(made.updateId), "faults": [*map(describe, faults)]})
    session.output.line(f"{path}  {made.updateId}")
    return _told(session, faults)


def _properties(texts: tuple[str, ...], installed_criteria: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {} if installed_criteria is None else {"installedCriteria": installed_criteria}
    for text in texts:
        key, equals, value = text.partition("=")
        as_json = key.endswith(":")
        key = key.removesuffix(":")
        if not equals or not key or key in found:
            raise ValueError(f"--property {text!r} is neither KEY=TEXT nor KEY:=JSON, or a second one of its key")
        try:
            found[key] = json_text.parse(value, most=MOST_PROPERTY) if as_json else value
        except ValueError as error:
            raise ValueError(f"--property {text!r}: what follows := is not JSON: {error}") from error
    return found


def _write(path: Path, data: bytes, mode: int = 0o644) -> None:
    from ...updates.manifests.creating import write

    with _unwritten(path):
        write(path, data, mode=mode)


@contextmanager
def _unwritten(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        make = shell_line(["mkdir", "-p", path.parent])
        raise ManifestOutput(f"{path}: there is no folder {path.parent}", remedy=f"Make it: {make}") from error
    except OSError as error:
        raise ManifestOutput(f"{path}: {error.strerror}", remedy="Name another file.") from error


def _refuse_other_update(path: Path, data: bytes) -> None:
    """A manifest replaces one of its own kind and update, as when it is made again. Raises ManifestOutput."""
    from ...updates.manifests.manifest import MAX_MANIFEST

    with _unwritten(path):
        named_files.refuse_other(
            path, lambda found: _kind_of(found) == _kind_of(data), "this manifest of this update", MAX_MANIFEST
        )


def _kind_of(data: bytes) -> tuple[bool, bool, Any]:
    """Of a manifest: whether it is signed for devices, whether it is an import manifest, and its update."""
    with suppress(ValueError, TypeError, KeyError):
        raw = json_text.parse(data, most=len(data))
        is_deployment = "updateManifest" in raw
        inner = json_text.parse(raw["updateManifest"], most=len(data)) if is_deployment else raw
        return is_deployment, "." in inner["manifestVersion"], inner["updateId"]
    return False, False, None


def _refuse_other_key(path: Path, found_in: Callable[[bytes], PublicKey], key: PublicKey) -> None:
    """What is made of a key replaces what was made of the same key. Raises ManifestOutput."""
    from ...updates.manifests.signing import LONGEST_KEY_FILE

    def is_ours(data: bytes) -> bool:
        with suppress(ProxyflashError, UnicodeDecodeError):
            return found_in(data).modulus == key.modulus
        return False

    with _unwritten(path):
        named_files.refuse_other(path, is_ours, "made of this key", LONGEST_KEY_FILE)


def _told(session: Session, faults: tuple[ProxyflashError, ...]) -> int | None:
    for fault in faults:
        session.output.fault(fault)
    return faults[0].exit_status if faults else None


@command("check")
@click.argument("manifest", type=PATH)
@click.option("--root", multiple=True, type=PATH, metavar="FILE", help="Must be signed under this root key.")
def check(session: Session, manifest: Path, root: tuple[Path, ...]) -> int | None:
    """What an update means in plain words, and all that is wrong with it. Touches nothing.

    Takes import manifests and what a device receives. The policy is that of the bench file, if there is one.

    \b
    proxyflash manifest check update.importmanifest.json
    proxyflash manifest check update.deployment.json --root root.jwk
    """
    from ...updates.manifests.explaining import explain
    from ...updates.manifests.resolved_update import read

    update = read(manifest, _policy(session, root))
    told = explain(update)
    out = session.output
    out.document(
        {
            "update": str(update.manifest.updateId),
            "deployment": update.workflow_id or None,
            "signer": {"root": update.signer.root, "key": update.signer.key} if update.signer else None,
            "children": list(update.children),
            "explanation": list(told.lines),
            "faults": [describe(fault) for fault in told.faults],
        }
    )
    out.lines(plain(line, CAUSE) for line in told.lines)
    status = _told(session, told.faults)
    out.line(f"{manifest}  {'OK' if status is None else f'WRONG  {len(told.faults)} of the above'}")
    return status


def _policy(session: Session, roots: tuple[Path, ...]) -> Policy:
    from ...enumerators.errors import BenchMissing
    from ...updates.manifests.policy import Policy, policy_of

    if roots:
        return Policy(unsigned="refuse", roots=tuple(str(path) for path in roots))
    try:
        return policy_of(session.bench.file)
    except BenchMissing:
        # An author's computer needs no bench; a bench file that is named must be there.
        if session.bench_path or os.environ.get("PROXYFLASH_BENCH"):
            raise
        return Policy()


@command("sign")
@click.argument("manifest", type=PATH)
@click.option("--key", required=True, type=PATH, metavar="FILE", help="The signing key: a private key, PEM.")
@click.option("--sjwk", type=PATH, metavar="FILE", help="By which a root key vouches for it; else beside the key.")
@click.option("--url", default="", metavar="BASE", help="Where the update's files will be, for Azure's agent.")
@click.option("--workflow", default="", metavar="ID", help="The deployment's id; else the update's.")
@click.option("-o", "--output", type=PATH, metavar="FILE", help="Else PROVIDER.NAME.VERSION.deployment.json.")
def sign(
    session: Session, manifest: Path, key: Path, sjwk: Path | None, url: str, workflow: str, output: Path | None
) -> int | None:
    """Makes what a device receives of an update: the signed deployment, beside the manifest.

    Its child manifests are written beside it; they and every file are under the one signature.

    \b
    proxyflash manifest sign Contoso.gateway.1.2.importmanifest.json --key release.pem
    proxyflash apply Contoso.gateway.1.2.deployment.json
    """
    from ...updates.errors import KeyFile
    from ...updates.manifests import creating, signing
    from ...updates.manifests.resolved_update import load

    update = load(manifest)
    private = signing.PrivateKey.read(key)
    vouching = sjwk or key.with_suffix(".sjwk")
    try:
        text = named_files.read(vouching, signing.LONGEST_KEY_FILE).decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFile(
            f"{vouching}: {getattr(error, 'strerror', None) or 'no text'}",
            remedy=f"A root key signs no updates. If {key} is one, make a signing key and sign with that: "
            + shell_line(["proxyflash", "manifest", "key", "--root", key, "--", "RELEASE.pem"])
            + ". Else have its root key vouch for it: "
            + shell_line(["proxyflash", "manifest", "key", "--root", "ROOT.pem", "--", key]),
        ) from error
    if signing.signing_key_of(text, str(vouching)).modulus != private.public.modulus:
        raise KeyFile(
            f"{vouching} vouches for another key than {key}", remedy="Name the signing key that belongs to it."
        )
    made = creating.signed(update, private, text, workflow_id=workflow, base_url=url)
    path = output or manifest.parent / made.name
    creating.one_folder([path], manifest.parent)
    documents = {path if name == made.name else manifest.parent / name: data for name, data in made.documents.items()}
    for file, data in documents.items():
        _refuse_other_update(file, data)
    for file, data in documents.items():
        _write(file, data)
    children = [name for name in made.documents if name != made.name]
    session.output.document({"deployment": str(path), "update": str(update.manifest.updateId), "children": children})
    for private_key in _private_keys(manifest.parent):
        session.output.note(
            f"{private_key} holds a private key, and lies in the folder that goes to the gateways: move it elsewhere"
        )
    session.output.line(f"{path}  {update.manifest.updateId}, signed")
    return None


def _private_keys(folder: Path) -> Iterator[Path]:
    """Files of the folder, and of the folders in it, that hold a private key in PEM (RFC 7468). Follows no link to a folder."""
    from ...updates.manifests import signing

    found = (Path(inner) / name for inner, _, names in os.walk(folder) for name in sorted(names))
    for file in islice(found, MOST_LOOKED_AT):
        with suppress(OSError):
            if file.is_file() and b"PRIVATE KEY-----" in named_files.read(file, signing.LONGEST_KEY_FILE):
                yield file


@command("key")
@click.argument("file", type=PATH)
@click.option("--root", type=PATH, metavar="FILE", help="Make it a signing key, for which this root key vouches.")
@click.option("--kid", default="", help="What it is called; else its thumbprint.")
def key(session: Session, file: Path, root: Path | None, kid: str) -> int | None:
    """Makes a key: a root key, or with --root a signing key. An existing key stays, and is vouched for again.

    FILE gets the private key, which nobody else may have; beside it lies the public one (.jwk), and what vouches for a
    signing key (.sjwk).

    \b
    proxyflash manifest key root.pem --kid acme-root
    proxyflash manifest key release.pem --kid acme-release-2026 --root root.pem
    """
    from ...updates.manifests import signing

    vouching = _with_its_name(root, signing.PrivateKey.read(root)) if root else None
    is_new = not file.exists()
    private = signing.PrivateKey.new(kid) if is_new else signing.PrivateKey.read(file, kid)
    private = private if kid or is_new else _with_its_name(file, private)
    public = file.with_suffix(".jwk")
    sjwk = file.with_suffix(".sjwk") if vouching else None
    _refuse_other_key(public, lambda _: signing.read_public_key(public), private.public)
    if sjwk:
        _refuse_other_key(sjwk, lambda found: signing.signing_key_of(found.decode().strip(), ""), private.public)
    if is_new:
        _write(file, private.pem(), 0o600)
    _write(public, (json.dumps(private.public.jwk(), indent=2) + "\n").encode())
    if vouching and sjwk:
        _write(sjwk, (vouching.sign_key(private.public) + "\n").encode())
    session.output.document(
        {
            "private": str(file),
            "public": str(public),
            "sjwk": str(sjwk) if sjwk else None,
            "kid": private.public.kid,
            "thumbprint": private.public.thumbprint,
            "root": vouching.public.kid if vouching else None,
        }
    )
    session.output.line(f"{file}  private: for its owner alone")
    session.output.line(f"{public}  public: {private.public.kid}")
    if vouching and sjwk:
        session.output.line(f"{sjwk}  vouched for by {vouching.public.kid}")
    else:
        _print_uses(session, file, public)
    return None


def _print_uses(session: Session, private: Path, public: Path) -> None:
    """What a key that no other vouches for is good for, as lines to paste into the bench file."""
    from ...transports.toml_text import toml_text

    session.output.lines(
        (
            "as a root key, in the bench file of each host that trusts it:",
            "  [updates]",
            f"  roots = [{toml_text(_from_bench(session, public))}]",
            f"or as this gateway's report key, whose readers take {public}:",
            "  [updates]",
            f"  report_key = {toml_text(_from_bench(session, private))}",
        )
    )


def _from_bench(session: Session, path: Path) -> str:
    """How the bench file of this call names a file: from its folder on; without a bench file from the current folder on."""
    from ...enumerators.bench import find_file
    from ...enumerators.errors import BenchMissing

    try:
        folder = find_file(session.bench_path).resolve().parent
    except BenchMissing:
        folder = Path.cwd()
    whole = path.resolve()
    return str(whole.relative_to(folder) if whole.is_relative_to(folder) else whole)


def _with_its_name(path: Path, private: PrivateKey) -> PrivateKey:
    """A private key's file does not say what it is called; the public one beside it does."""
    from ...updates.manifests import signing

    public = path.with_suffix(".jwk")
    if public.exists() and (named := signing.read_public_key(public)).modulus == private.public.modulus:
        return signing.PrivateKey.read(path, named.kid)
    return private


for _command in (create, check, sign, key):
    manifest.add_command(_command)
