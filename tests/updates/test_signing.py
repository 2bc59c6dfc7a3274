"""Signatures: the whole chain, against a deployment that Azure's service signed and against other implementations."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.tests.peers import environment
from proxyflash.tests.updates.authoring import MICROSOFT, private_key
from proxyflash.transports.errors import ExitStatus
from proxyflash.updates import errors
from proxyflash.updates.manifests import signing

MANIFEST = '{"manifestVersion":"5"}'
ROOT, RELEASE = private_key("root"), private_key("release")
TRUST = signing.Trust({"root": ROOT.public})
SJWK = ROOT.sign_key(RELEASE.public)
SIGNATURE = RELEASE.sign(MANIFEST, SJWK)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def part(jws: str, index: int) -> Any:
    return json.loads(unb64(jws.split(".")[index]))


def microsoft() -> tuple[str, str]:
    deployment = json.loads((MICROSOFT / "deployment.json").read_text())
    return deployment["updateManifest"], deployment["updateManifestSignature"]


# What others have made.


def test_a_deployment_that_azure_signed_is_verified_from_its_root_key_down() -> None:
    trust = signing.Trust.of([MICROSOFT / "ADU.200702.R.jwk"])
    assert signing.verify(*microsoft(), trust, "deployment") == signing.Signer("ADU.200702.R", "ADU.210609.R.S")


def test_one_character_of_it_changed_is_enough() -> None:
    manifest, signature = microsoft()
    trust = signing.Trust.of([MICROSOFT / "ADU.200702.R.jwk"])
    with pytest.raises(errors.DigestWrong):
        signing.verify(manifest.replace('"20.0"', '"20.1"'), signature, trust, "deployment")


def test_the_thumbprint_of_rfc_7638_section_3_1() -> None:
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhM"
        "stn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5ha"
        "jrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    key = signing.PublicKey("2011-04-29", int.from_bytes(unb64(modulus), "big"))
    assert key.thumbprint == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


JWCRYPTO = "jwcrypto==1.5.6"
PEER = """
import base64, hashlib, json, sys
from jwcrypto import jwk, jws

def check(token, key):
    found = jws.JWS()
    found.allowed_algs = ["RS256"]
    found.deserialize(token, key)
    return json.loads(found.payload)

def make(header, payload, key):
    made = jws.JWS(json.dumps(payload))
    made.add_signature(key, None, json.dumps({"alg": "RS256", **header}))
    return made.serialize(compact=True)

asked = json.load(sys.stdin)
if "signature" in asked:
    root = jwk.JWK(**asked["root"])
    sjwk = json.loads(base64.urlsafe_b64decode(asked["signature"].split(".")[0] + "=="))["sjwk"]
    key = jwk.JWK(**check(sjwk, root))
    print(json.dumps({"payload": check(asked["signature"], key), "kid": key.export_public(as_dict=True)["kid"],
                      "thumbprint": root.thumbprint()}))
else:
    root, key = (jwk.JWK.generate(kty="RSA", size=2048, kid=name, alg="RS256") for name in ("their-root", "their-key"))
    sjwk = make({"kid": "their-root"}, key.export_public(as_dict=True), root)
    digest = base64.b64encode(hashlib.sha256(asked["manifest"].encode()).digest()).decode()
    print(json.dumps({"root": root.export_public(as_dict=True), "pem": root.export_to_pem().decode(),
                      "signature": make({"sjwk": sjwk}, {"sha256": digest}, key), "thumbprint": root.thumbprint()}))
"""


def peer(asked: dict[str, Any]) -> Any:
    done = subprocess.run(
        [environment(JWCRYPTO), "-c", PEER], input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.real_time("a peer program")
def test_another_implementation_verifies_what_we_signed() -> None:
    found = peer({"signature": SIGNATURE, "root": ROOT.public.jwk()})
    assert base64.b64decode(found["payload"]["sha256"]) == hashlib.sha256(MANIFEST.encode()).digest()
    assert (found["kid"], found["thumbprint"]) == ("release", ROOT.public.thumbprint)


@pytest.mark.real_time("a peer program")
def test_we_verify_what_another_implementation_signed(tmp_path: Path) -> None:
    made = peer({"manifest": MANIFEST})
    (tmp_path / "root.jwk").write_text(json.dumps(made["root"]))
    (tmp_path / "root.pem").write_text(made["pem"])
    trust = signing.Trust.of([tmp_path / "root.jwk"])
    assert signing.verify(MANIFEST, made["signature"], trust, "theirs") == signing.Signer("their-root", "their-key")
    by_pem = signing.read_public_key(tmp_path / "root.pem")
    assert by_pem == signing.PublicKey(made["thumbprint"], trust.roots["their-root"].modulus)


def test_openssl_verifies_both_signatures(tmp_path: Path) -> None:
    for key, jws in ((RELEASE, SIGNATURE), (ROOT, SJWK)):
        (tmp_path / "private.pem").write_bytes(key.pem())
        subprocess.run(
            ["openssl", "pkey", "-in", "private.pem", "-pubout", "-out", "public.pem"], cwd=tmp_path, check=True
        )
        signed, _, signature = jws.rpartition(".")
        (tmp_path / "signed").write_text(signed)
        (tmp_path / "signature").write_bytes(unb64(signature))
        command = ["openssl", "dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "signed"]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout == "Verified OK\n"


# What is refused, each by its own error.


def resigned(
    *,
    header: dict[str, Any] | None = None,
    payload: dict[str, Any] | None = None,
    key_header: dict[str, Any] | None = None,
    key_payload: dict[str, Any] | None = None,
) -> str:
    """The signature with other headers and payloads, and right signatures all the same."""
    sjwk = ROOT.jws(
        {"kid": "root"} if key_header is None else key_header,
        RELEASE.public.jwk() if key_payload is None else key_payload,
    )
    digest = base64.b64encode(hashlib.sha256(MANIFEST.encode()).digest()).decode()
    return RELEASE.jws(
        {"sjwk": sjwk} if header is None else {"sjwk": sjwk, **header},
        {"sha256": digest} if payload is None else payload,
    )


def tampered(jws: str, index: int, data: bytes) -> str:
    """With one part replaced, and the signature left as it was."""
    parts = jws.split(".")
    parts[index] = b64(data)
    return ".".join(parts)


def outside(sjwk: str, index: int = 0) -> str:
    """Signed by the signing key, with another sjwk in the header."""
    digest = base64.b64encode(hashlib.sha256(MANIFEST.encode()).digest()).decode()
    return RELEASE.jws({"sjwk": sjwk}, {"sha256": digest})


SIGNED_WORD = tampered(SIGNATURE, 1, b'{"sha256":"' + base64.b64encode(bytes(32)) + b'"}')

REFUSED: dict[str, tuple[Callable[[], str], type[errors.TrustError]]] = {
    "nothing": (lambda: "", errors.SignatureForm),
    "two parts": (lambda: SIGNATURE.rpartition(".")[0], errors.SignatureForm),
    "four parts": (lambda: SIGNATURE + ".e30", errors.SignatureForm),
    "a part that is empty": (lambda: SIGNATURE.rpartition(".")[0] + ".", errors.SignatureForm),
    "padding": (lambda: SIGNATURE + "==", errors.SignatureForm),
    "the other alphabet": (lambda: SIGNATURE.rpartition(".")[0] + "." + "+/" * 171, errors.SignatureForm),
    "a line break": (lambda: SIGNATURE + "\n", errors.SignatureForm),
    "bits left over": (lambda: SIGNATURE.rpartition(".")[0] + ".QR", errors.SignatureForm),
    "too long": (lambda: SIGNATURE + "A" * signing.LONGEST, errors.SignatureForm),
    "no json": (lambda: tampered(SIGNATURE, 0, b"alg"), errors.SignatureForm),
    "no utf-8": (lambda: tampered(SIGNATURE, 0, b"\xff\xfe"), errors.SignatureForm),
    "no object": (lambda: tampered(SIGNATURE, 0, b'["alg"]'), errors.SignatureForm),
    "a header field twice": (lambda: tampered(SIGNATURE, 0, b'{"alg":"none","alg":"RS256"}'), errors.SignatureForm),
    "no sjwk": (lambda: RELEASE.jws({}, {"sha256": ""}), errors.SignatureForm),
    "an sjwk that isn't text": (lambda: RELEASE.jws({"sjwk": 1}, {}), errors.SignatureForm),  # type: ignore[dict-item]
    "a key brought along": (lambda: resigned(header={"jwk": RELEASE.public.jwk()}), errors.SignatureForm),
    "a key's address": (lambda: resigned(header={"jku": "https://example.org/keys"}), errors.SignatureForm),
    "a critical extension": (lambda: resigned(header={"crit": ["exp"], "exp": 1}), errors.SignatureForm),
    "an unencoded payload": (lambda: resigned(header={"b64": False, "crit": ["b64"]}), errors.SignatureForm),
    "another payload": (lambda: resigned(payload={"sha256": "AA==", "more": "1"}), errors.SignatureForm),
    "no digest": (lambda: resigned(payload={"sha512": "AA=="}), errors.SignatureForm),
    "a digest that is not base64": (lambda: resigned(payload={"sha256": "?"}), errors.SignatureForm),
    "a root without a name": (lambda: resigned(key_header={}), errors.SignatureForm),
    "a root with an empty name": (lambda: resigned(key_header={"kid": ""}), errors.SignatureForm),
    "a key without a modulus": (lambda: resigned(key_payload={"kty": "RSA", "e": "AQAB"}), errors.SignatureForm),
    "none": (lambda: tampered(SIGNATURE, 0, b'{"alg":"none"}'), errors.SignatureAlgorithm),
    "none, and no signature": (
        lambda: f"{b64(json.dumps({'alg': 'none', 'sjwk': SJWK}).encode())}.{SIGNATURE.split('.')[1]}.",
        errors.SignatureAlgorithm,
    ),
    "None": (lambda: tampered(SIGNATURE, 0, b'{"alg":"nOnE"}'), errors.SignatureAlgorithm),
    "no algorithm": (lambda: tampered(SIGNATURE, 0, b"{}"), errors.SignatureAlgorithm),
    "HS256": (lambda: tampered(SIGNATURE, 0, b'{"alg":"HS256"}'), errors.SignatureAlgorithm),
    "PS256": (lambda: tampered(SIGNATURE, 0, b'{"alg":"PS256"}'), errors.SignatureAlgorithm),
    "RS512": (lambda: tampered(SIGNATURE, 0, b'{"alg":"RS512"}'), errors.SignatureAlgorithm),
    "rs256": (lambda: tampered(SIGNATURE, 0, b'{"alg":"rs256"}'), errors.SignatureAlgorithm),
    "a list of algorithms": (lambda: tampered(SIGNATURE, 0, b'{"alg":["RS256"]}'), errors.SignatureAlgorithm),
    "HS256 of the sjwk": (
        lambda: outside(tampered(SJWK, 0, b'{"alg":"HS256","kid":"root"}')),
        errors.SignatureAlgorithm,
    ),
    "an EC key": (lambda: resigned(key_payload={**RELEASE.public.jwk(), "kty": "EC"}), errors.KeyWeak),
    "a secret": (lambda: resigned(key_payload={"kty": "oct", "k": "AA"}), errors.KeyWeak),
    "a key for another use": (lambda: resigned(key_payload={**RELEASE.public.jwk(), "use": "enc"}), errors.KeyWeak),
    "a short key": (lambda: resigned(key_payload=jwk((1 << 1023) + 1)), errors.KeyWeak),
    "a key just too short": (lambda: resigned(key_payload=jwk((1 << 2046) + 1)), errors.KeyWeak),
    "an endless key": (lambda: resigned(key_payload=jwk((1 << 8192) + 1)), errors.KeyWeak),
    "an even modulus": (lambda: resigned(key_payload=jwk(1 << 2047)), errors.KeyWeak),
    "an exponent of 1": (lambda: resigned(key_payload={**RELEASE.public.jwk(), "e": "AQ"}), errors.KeyWeak),
    "an exponent of 3": (lambda: resigned(key_payload={**RELEASE.public.jwk(), "e": "Aw"}), errors.KeyWeak),
    "an unknown root": (lambda: resigned(key_header={"kid": "elsewhere"}), errors.RootUnknown),
    "an sjwk by another root": (
        lambda: outside(private_key("forger").jws({"kid": "root"}, RELEASE.public.jwk())),
        errors.SigningKeyForged,
    ),
    "another key in the sjwk": (
        lambda: outside(tampered(SJWK, 1, json.dumps(private_key("forger").public.jwk()).encode())),
        errors.SigningKeyForged,
    ),
    "an sjwk signed with its own key": (
        lambda: outside(RELEASE.jws({"kid": "root"}, RELEASE.public.jwk())),
        errors.SigningKeyForged,
    ),
    "another's signature": (lambda: private_key("forger").sign(MANIFEST, SJWK), errors.SignatureWrong),
    "another digest in it": (lambda: SIGNED_WORD, errors.SignatureWrong),
    "a signature of zeros": (lambda: SIGNATURE.rpartition(".")[0] + "." + b64(bytes(256)), errors.SignatureWrong),
    "a short signature": (lambda: SIGNATURE.rpartition(".")[0] + ".AAAA", errors.SignatureWrong),
    "the root's own signature": (lambda: ROOT.sign(MANIFEST, SJWK), errors.SignatureWrong),
    "for another manifest": (lambda: RELEASE.sign(MANIFEST + " ", SJWK), errors.DigestWrong),
    "for a part of its digest": (lambda: resigned(payload={"sha256": "AAAA"}), errors.DigestWrong),
}


def jwk(modulus: int) -> dict[str, Any]:
    return signing.PublicKey("odd", modulus).jwk()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_has_an_error_of_its_own(name: str) -> None:
    make, kind = REFUSED[name]
    with pytest.raises(errors.TrustError) as caught:
        signing.verify(MANIFEST, make(), TRUST, "update.json")
    assert type(caught.value) is kind
    assert caught.value.exit_status == ExitStatus.POLICY
    assert caught.value.cause.startswith("update.json: ")


def test_the_same_signature_unchanged_is_taken() -> None:
    """Or else nothing of the above would show anything."""
    assert signing.verify(MANIFEST, SIGNATURE, TRUST, "m") == signing.Signer("root", "release")
    assert signing.verify(MANIFEST, resigned(header={"typ": "JWT"}), TRUST, "m") == signing.Signer("root", "release")


@pytest.mark.parametrize("revoked", ["root", ROOT.public.thumbprint], ids=["name", "thumbprint"])
def test_a_revoked_root_key(revoked: str) -> None:
    trust = signing.Trust({"root": ROOT.public}, frozenset({revoked}))
    with pytest.raises(errors.RootRevoked):
        signing.verify(MANIFEST, SIGNATURE, trust, "m")


def test_a_root_that_is_revoked_and_not_even_there() -> None:
    with pytest.raises(errors.RootRevoked):
        signing.verify(MANIFEST, SIGNATURE, signing.Trust({}, frozenset({"root"})), "m")


@pytest.mark.parametrize("revoked", ["release", RELEASE.public.thumbprint], ids=["name", "thumbprint"])
def test_a_revoked_signing_key(revoked: str) -> None:
    trust = signing.Trust({"root": ROOT.public}, frozenset({revoked}))
    with pytest.raises(errors.SigningKeyRevoked):
        signing.verify(MANIFEST, SIGNATURE, trust, "m")
    renamed = ROOT.sign_key(signing.PublicKey("renamed", RELEASE.public.modulus))
    if revoked != "release":
        with pytest.raises(errors.SigningKeyRevoked):
            signing.verify(MANIFEST, RELEASE.sign(MANIFEST, renamed), trust, "m")


DIGEST = unb64(RELEASE.public.thumbprint)


@pytest.mark.parametrize(
    "entry",
    [
        "RELEASE",
        RELEASE.public.thumbprint + "=",
        base64.b64encode(DIGEST).decode(),
        RELEASE.public.thumbprint.lower(),
        DIGEST.hex(),
        DIGEST.hex().upper(),
        DIGEST.hex(":"),
    ],
    ids=["case", "padding", "base64", "case of a thumbprint", "hex", "HEX", "hex with colons"],
)
def test_a_key_is_revoked_however_its_entry_is_written(entry: str) -> None:
    trust = signing.Trust({"root": ROOT.public}, frozenset({entry}))
    with pytest.raises(errors.SigningKeyRevoked):
        signing.verify(MANIFEST, SIGNATURE, trust, "m")
    root = entry.replace(RELEASE.public.thumbprint, ROOT.public.thumbprint).replace("RELEASE", "ROOT")
    if root != entry:
        with pytest.raises(errors.RootRevoked):
            signing.verify(MANIFEST, SIGNATURE, signing.Trust({"root": ROOT.public}, frozenset({root})), "m")


@pytest.mark.parametrize("entry", ["releas", "release2", "", DIGEST.hex()[:-1], "*"], ids=range(5))
def test_another_entry_revokes_nothing(entry: str) -> None:
    trust = signing.Trust({"root": ROOT.public}, frozenset({entry}))
    assert signing.verify(MANIFEST, SIGNATURE, trust, "m") == signing.Signer("root", "release")


KIDS = ["release\x1b[2J", "release\n", "rele\u202ease", " release", "release ", "re\0lease", "r" * 257]


@pytest.mark.parametrize("kid", KIDS)
def test_a_name_that_can_t_be_shown_or_told_from_another_is_no_key_s_name(tmp_path: Path, kid: str) -> None:
    with pytest.raises(errors.SignatureForm, match="kid"):
        signing.verify(MANIFEST, resigned(key_payload={**RELEASE.public.jwk(), "kid": kid}), TRUST, "m")
    (tmp_path / "root.jwk").write_text(json.dumps(ROOT.public.jwk() | {"kid": kid}))
    (tmp_path / "key.pem").write_bytes(RELEASE.pem())
    for read in (
        lambda: signing.Trust.of([tmp_path / "root.jwk"]),
        lambda: signing.PrivateKey.read(tmp_path / "key.pem", kid),
        lambda: signing.PrivateKey.new(kid, 2048),
    ):
        with pytest.raises(errors.KeyFile, match="kid"):
            read()


@pytest.mark.parametrize("name", ["root.jwk", "root.pem"])
def test_a_byte_order_mark_before_a_key(tmp_path: Path, name: str) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = ROOT._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    data = json.dumps(ROOT.public.jwk()).encode() if name == "root.jwk" else pem
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + data)
    assert signing.read_public_key(tmp_path / name).modulus == ROOT.public.modulus
    (tmp_path / "private.pem").write_bytes(b"\xef\xbb\xbf" + ROOT.pem())
    assert signing.PrivateKey.read(tmp_path / "private.pem").public.modulus == ROOT.public.modulus


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(SIGNATURE) - 1), st.sampled_from("AZaz09-_.=+ \n\0\u00e9"))
def test_no_character_of_it_can_be_another(place: int, character: str) -> None:
    changed = SIGNATURE[:place] + character + SIGNATURE[place + 1 :]
    if changed != SIGNATURE:
        with pytest.raises(errors.TrustError):
            signing.verify(MANIFEST, changed, TRUST, "m")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80) | st.lists(st.binary(max_size=60).map(b64), min_size=3, max_size=3).map(".".join))
def test_any_text_is_refused_by_name(text: str) -> None:
    with pytest.raises(errors.TrustError):
        signing.verify(MANIFEST, text, TRUST, "m")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_base64url_is_the_one_of_rfc_7515(data: bytes) -> None:
    assert signing.encoded(data) == b64(data)
    if data:
        assert signing.decoded(b64(data)) == data


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="AQgw-_+/=", max_size=9))
def test_two_texts_are_never_one_value(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert b64(signing.decoded(text)) == text


# The keys' files.


def test_a_key_s_files(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(RELEASE.pem())
    assert signing.PrivateKey.read(tmp_path / "key.pem", "release").public == RELEASE.public
    assert signing.PrivateKey.read(tmp_path / "key.pem").public.kid == RELEASE.public.thumbprint


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "No such file"),
        (b"", "neither PEM nor JWK"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "neither PEM nor JWK"),
        (b"{", "Expecting"),
        (b"{}", "not RSA"),
        (b'{"\xff": 1}', "UTF-8"),
        (b" " * (signing.LONGEST_KEY_FILE + 1), "not a key"),
        (json.dumps({**ROOT.public.jwk(), "d": "AQAB"}).encode(), "private key"),
        (json.dumps(ROOT.public.jwk() | {"kid": 7}).encode(), "kid"),
        (json.dumps(jwk((1 << 1023) + 1)).encode(), "1,024 bits"),
        (ROOT.pem(), "is a private key"),
    ],
)
def test_what_is_no_root_key(tmp_path: Path, data: bytes | None, words: str) -> None:
    path = tmp_path / "root"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(errors.KeyFile, match=words) as caught:
        signing.Trust.of([path])
    assert caught.value.exit_status == ExitStatus.BAD_FILE


def test_openssl_s_other_keys_are_no_root_keys(tmp_path: Path) -> None:
    for options in (
        ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        ["ED25519"],
        ["RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
    ):
        make = ["openssl", "genpkey", "-algorithm", *options, "-out", "private.pem"]
        subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
        publish = ["openssl", "pkey", "-in", "private.pem", "-pubout", "-out", "public.pem"]
        subprocess.run(publish, cwd=tmp_path, check=True)
        with pytest.raises(errors.KeyFile, match=r"RSA|1,024"):
            signing.read_public_key(tmp_path / "public.pem")
        with pytest.raises(errors.KeyFile, match=r"RSA|1,024"):
            signing.PrivateKey.read(tmp_path / "private.pem")


def test_a_private_key_with_a_password(tmp_path: Path) -> None:
    (tmp_path / "plain.pem").write_bytes(ROOT.pem())
    lock = ["openssl", "pkey", "-in", "plain.pem", "-aes256", "-passout", "pass:word", "-out", "locked.pem"]
    subprocess.run(lock, cwd=tmp_path, check=True)
    with pytest.raises(errors.KeyFile, match="password"):
        signing.PrivateKey.read(tmp_path / "locked.pem")


def test_two_roots_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(json.dumps(ROOT.public.jwk()))
    (tmp_path / "b").write_text(json.dumps(RELEASE.public.jwk() | {"kid": "root"}))
    signing.Trust.of([tmp_path / "a", tmp_path / "a"])
    with pytest.raises(errors.KeyFile, match="another root key"):
        signing.Trust.of([tmp_path / "a", tmp_path / "b"])
