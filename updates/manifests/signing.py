"""Signatures of update manifests: a JWS whose key is itself signed by a root key that the device trusts.

    root key -> signing key (the `sjwk`) -> signature -> SHA-256 of the manifest -> SHA-256 of each file

JSON Web Signature is RFC 7515, RS256 section 3.3 of RFC 7518, the keys' form RFC 7517, their thumbprints RFC 7638. Both
signatures are compact JWS:

    manifest's  header {"alg": "RS256", "sjwk": JWS}   payload {"sha256": base64 of the manifest's digest}
    sjwk        header {"alg": "RS256", "kid": ROOT}   payload the signing key: {"kty", "n", "e", "alg", "kid"}

Nothing in them chooses how they are verified: one algorithm, keys of one kind, and roots from the bench file alone.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...transports import named_files
from ...transports.plain import quoted
from ..errors import (
    DigestWrong,
    KeyFile,
    KeyWeak,
    RootRevoked,
    RootUnknown,
    SignatureAlgorithm,
    SignatureForm,
    SignatureWrong,
    SigningKeyForged,
    SigningKeyRevoked,
)
from .manifest import json_object

if TYPE_CHECKING:
    # It takes its time to import, and most calls need no signature.
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

ALGORITHM = "RS256"
EXPONENT = 65537
LEAST_BITS, MOST_BITS = 2048, 8192
NEW_BITS = 3072
LONGEST = 64 << 10
"""Characters of a signature; one of two 8,192-bit keys has about 8,000."""
LONGEST_KEY_FILE = 64 << 10
LONGEST_KID = 256
URL_ALPHABET = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
PLAIN_ALPHABET = re.compile(r"[A-Za-z0-9+/]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An RSA key, by which a signature is verified. `kid`: what it is called."""

    kid: str
    modulus: int

    @property
    def bits(self) -> int:
        return self.modulus.bit_length()

    @property
    def thumbprint(self) -> str:
        """Its SHA-256 after RFC 7638: what it is, whatever it is called."""
        members = {"e": encoded(_bytes(EXPONENT)), "kty": "RSA", "n": encoded(_bytes(self.modulus))}
        return encoded(hashlib.sha256(_json(members)).digest())

    def jwk(self) -> dict[str, str]:
        n, e = encoded(_bytes(self.modulus)), encoded(_bytes(EXPONENT))
        return {"kty": "RSA", "n": n, "e": e, "alg": ALGORITHM, "kid": self.kid}

    def verifies(self, signature: bytes, signed: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
        from cryptography.hazmat.primitives.hashes import SHA256

        try:
            RSAPublicNumbers(EXPONENT, self.modulus).public_key().verify(signature, signed, PKCS1v15(), SHA256())
        except (InvalidSignature, ValueError):
            # ValueError: a modulus that no RSA key has.
            return False
        return True


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count. `revoked`: names or thumbprints of keys that count no more."""

    roots: Mapping[str, PublicKey] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()

    @classmethod
    def of(cls, roots: Iterable[str | Path], revoked: Iterable[str] = ()) -> Trust:
        """With the root keys in these files. Raises KeyFile."""
        keys: dict[str, PublicKey] = {}
        for path in map(Path, roots):
            key = read_public_key(path)
            if keys.setdefault(key.kid, key) != key:
                raise KeyFile(
                    f"{path}: another root key is called {quoted(key.kid)} too", remedy="Give each its own kid."
                )
        return cls(keys, frozenset(revoked))

    def revokes(self, key: PublicKey) -> bool:
        return self._lists(key.kid, key.thumbprint, decoded(key.thumbprint).hex())

    def revokes_name(self, kid: str) -> bool:
        return self._lists(kid)

    def _lists(self, *names: str) -> bool:
        """Rather one key too many than one too few: case doesn't count, nor padding, nor which base64 a thumbprint is in."""
        wanted = {name.casefold() for name in names}
        return any(not wanted.isdisjoint(_meanings(entry)) for entry in self.revoked)


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose signature an update bears: the names of the keys."""

    root: str
    key: str


def verify(manifest: str, signature: str, trust: Trust, source: str) -> Signer:
    """Verifies the whole chain down to the manifest's digest. `source`: what errors call it. Raises TrustError."""
    outer = _Jws.parse(signature, f"{source}: updateManifestSignature", ("sjwk",))
    inner = _Jws.parse(outer.text_of("sjwk"), f"{source}: updateManifestSignature: sjwk", ("kid",))
    root = _root(inner, trust)
    if not root.verifies(inner.signature, inner.signed):
        raise SigningKeyForged(f"{inner.place}: the signing key is not signed by the root key {quoted(root.kid)}")
    key = public_key(inner.payload, inner.place, KeyWeak, SignatureForm)
    if trust.revokes(key):
        raise SigningKeyRevoked(f"{source}: the signing key {quoted(key.kid)} is revoked")
    if not key.verifies(outer.signature, outer.signed):
        raise SignatureWrong(f"{outer.place} is not made by the signing key {quoted(key.kid)}")
    if _digest(outer) != hashlib.sha256(manifest.encode("utf-8", "surrogatepass")).digest():
        raise DigestWrong(f"{source}: the signature is for another manifest than this one")
    return Signer(root.kid, key.kid)


def _root(inner: _Jws, trust: Trust) -> PublicKey:
    kid = inner.text_of("kid")
    root = trust.roots.get(kid)
    if trust.revokes_name(kid) or (root is not None and trust.revokes(root)):
        raise RootRevoked(f"{inner.place}: the root key {quoted(kid)} is revoked")
    if root is None:
        known = ", ".join(trust.roots) or "none"
        raise RootUnknown(f"{inner.place}: the root key {quoted(kid)} is not trusted here; these are: {known}")
    return root


def _meanings(entry: str) -> set[str]:
    """What an entry of `revoked` may be: a name, a thumbprint in base64, or one in hex, with colons or without."""
    url = entry.rstrip("=").replace("+", "-").replace("/", "_")
    return {text.casefold() for text in (entry, url, entry.replace(":", ""))}


def named_well(kid: str) -> bool:
    """Whether a key may be called so: it can be shown, and a reader can tell it from others."""
    return len(kid) <= LONGEST_KID and kid.isprintable() and kid == kid.strip()


def _digest(outer: _Jws) -> bytes:
    said = outer.payload.get("sha256")
    if not isinstance(said, str) or set(outer.payload) != {"sha256"}:
        raise SignatureForm(f"{outer.place}: its payload is not just a sha256")
    try:
        return base64.b64decode(said, validate=True)
    except (binascii.Error, ValueError):
        raise SignatureForm(f"{outer.place}: sha256 is not base64") from None


@dataclass(frozen=True, slots=True)
class _Jws:
    """One compact JWS, taken apart; not verified."""

    place: str
    header: Mapping[str, Any]
    payload: Mapping[str, Any]
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, text: str, place: str, needed: tuple[str, ...]) -> _Jws:
        if len(text) > LONGEST:
            raise SignatureForm(f"{place}: more than {LONGEST:,} characters, which is not a signature")
        parts = text.split(".")
        if len(parts) != 3:
            raise SignatureForm(f"{place}: {len(parts)} parts with dots between, not three")
        header = _object(parts[0], f"{place}: header")
        if header.get("alg") != ALGORITHM:
            raise SignatureAlgorithm(f"{place}: made with {quoted(header.get('alg'))}; {ALGORITHM} alone is taken")
        for name in header:
            # A key or its address brought along (jwk, jku, x5c), or a rule that must be understood (crit).
            if name not in ("alg", "typ", "kid", *needed):
                raise SignatureForm(f"{place}: header: unknown field {quoted(name)}")
        payload = _object(parts[1], f"{place}: payload")
        return cls(place, header, payload, f"{parts[0]}.{parts[1]}".encode(), _part(parts[2], place))

    def text_of(self, name: str) -> str:
        value = self.header.get(name)
        if not isinstance(value, str) or not value:
            raise SignatureForm(f"{self.place}: header: {name} is missing")
        return value


def _object(part: str, place: str) -> dict[str, Any]:
    data = _part(part, place)
    try:
        return json_object(data.decode(), place, SignatureForm)
    except UnicodeDecodeError:
        raise SignatureForm(f"{place}: not UTF-8") from None


def _part(text: str, place: str) -> bytes:
    try:
        return decoded(text)
    except ValueError as error:
        raise SignatureForm(f"{place}: {error}") from None


def encoded(data: bytes) -> str:
    """Base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """The one way to write each value is taken: no padding, no other alphabet, no bits left over. Raises ValueError."""
    if not URL_ALPHABET.fullmatch(text) or len(text) % 4 == 1:
        raise ValueError("no base64url")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encoded(data) != text:
        raise ValueError("base64url with bits left over")
    return data


def public_key(
    jwk: Mapping[str, Any], place: str, weak: type[KeyWeak | KeyFile], form: type[SignatureForm | KeyFile]
) -> PublicKey:
    """An RSA key from its JWK. Azure's service writes `n` in plain base64, its agent's root keys have a zero in front."""
    if jwk.get("kty") != "RSA":
        raise weak(f"{place}: a key of kind {quoted(jwk.get('kty'))}, not RSA")
    if jwk.get("alg", ALGORITHM) != ALGORITHM or jwk.get("use", "sig") != "sig":
        raise weak(f"{place}: the key is not for {ALGORITHM} signatures")
    if "d" in jwk:
        raise form(f"{place}: this is a private key, which belongs with its owner alone")
    numbers = {}
    for name in ("n", "e"):
        text = jwk.get(name)
        if not isinstance(text, str):
            raise form(f"{place}: {name} is missing")
        if PLAIN_ALPHABET.fullmatch(text):
            text = text.replace("+", "-").replace("/", "_")
        try:
            numbers[name] = int.from_bytes(decoded(text), "big")
        except ValueError as error:
            raise form(f"{place}: {name}: {error}") from None
    kid = jwk.get("kid", "")
    if not isinstance(kid, str):
        raise form(f"{place}: kid is not a text")
    _check_name(kid, place, form)
    return _checked(numbers["n"], numbers["e"], kid, place, weak)


def _check_name(kid: str, place: str, form: type[SignatureForm | KeyFile]) -> None:
    if not named_well(kid):
        raise form(
            f"{place}: kid {quoted(kid)}: a control character, a blank at its start or end, or more than "
            f"{LONGEST_KID} characters"
        )


def _checked(modulus: int, exponent: int, kid: str, place: str, weak: type[KeyWeak | KeyFile]) -> PublicKey:
    if not LEAST_BITS <= modulus.bit_length() <= MOST_BITS or modulus % 2 == 0:
        raise weak(f"{place}: a key of {modulus.bit_length():,} bits, not {LEAST_BITS:,} to {MOST_BITS:,}")
    if exponent != EXPONENT:
        raise weak(f"{place}: the public exponent is {exponent}, not {EXPONENT}")
    key = PublicKey(kid, modulus)
    return key if kid else PublicKey(key.thumbprint, modulus)


def read_public_key(path: Path) -> PublicKey:
    """A public key from a PEM or JWK file; one without a kid is called by its thumbprint. Raises KeyFile."""
    data = _read(path)
    if data.lstrip().startswith(b"{"):
        try:
            return public_key(json_object(data.decode(), str(path), KeyFile), str(path), KeyFile, KeyFile)
        except UnicodeDecodeError:
            raise KeyFile(f"{path}: not UTF-8") from None
    if b"PRIVATE KEY-----" in data:
        raise KeyFile(f"{path} is a private key", remedy="Name the public one, and keep the private one off this host.")
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        loaded = load_pem_public_key(data)
    except Exception as error:
        raise KeyFile(f"{path} holds no public key: neither PEM nor JWK") from error
    if not isinstance(loaded, RSAPublicKey):
        raise KeyFile(f"{path}: the key is not an RSA key")
    numbers = loaded.public_numbers()
    return _checked(numbers.n, numbers.e, "", str(path), KeyFile)


def _read(path: Path) -> bytes:
    try:
        data = named_files.read(path, LONGEST_KEY_FILE)
    except OSError as error:
        raise KeyFile(f"{path}: {error.strerror}") from error
    if len(data) > LONGEST_KEY_FILE:
        raise KeyFile(f"{path}: more than {LONGEST_KEY_FILE:,} bytes, which is not a key")
    # Some editors put a byte order mark before UTF-8.
    return data.removeprefix(codecs.BOM_UTF8)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key that signs."""

    public: PublicKey
    _key: RSAPrivateKey = field(repr=False)

    @classmethod
    def new(cls, kid: str = "", bits: int = NEW_BITS) -> PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

        return cls._of(generate_private_key(EXPONENT, bits), kid, "a new key")

    @classmethod
    def read(cls, path: Path, kid: str = "") -> PrivateKey:
        """From a PEM file without a password. Raises KeyFile."""
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            loaded = load_pem_private_key(_read(path), None)
        except KeyFile:
            raise
        except TypeError as error:
            raise KeyFile(f"{path} is protected by a password, which is not supported") from error
        except Exception as error:
            raise KeyFile(f"{path} holds no private key in PEM") from error
        if not isinstance(loaded, RSAPrivateKey):
            raise KeyFile(f"{path}: the key is not an RSA key")
        return cls._of(loaded, kid, str(path))

    @classmethod
    def _of(cls, key: RSAPrivateKey, kid: str, place: str) -> PrivateKey:
        _check_name(kid, place, KeyFile)
        numbers = key.public_key().public_numbers()
        return cls(_checked(numbers.n, numbers.e, kid, place, KeyFile), key)

    def pem(self) -> bytes:
        """PKCS #8, without a password."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def jws(self, header: Mapping[str, str], payload: Mapping[str, str]) -> str:
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        signed = f"{encoded(_json({'alg': ALGORITHM, **header}))}.{encoded(_json(payload))}"
        return f"{signed}.{encoded(self._key.sign(signed.encode(), PKCS1v15(), SHA256()))}"

    def seal(self, data: bytes, kind: str) -> str:
        """A signature over a document of this host's own. `kind`: the `typ` of the signature, which others don't have."""
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        return self.jws({"typ": kind, "kid": self.public.thumbprint}, {"sha256": digest})

    def sign_key(self, key: PublicKey) -> str:
        """As a root key: vouches for a signing key; the sjwk."""
        return self.jws({"kid": self.public.kid}, key.jwk())

    def sign(self, manifest: str, sjwk: str) -> str:
        """As a signing key: the manifest's signature."""
        digest = base64.b64encode(hashlib.sha256(manifest.encode()).digest()).decode()
        return self.jws({"sjwk": sjwk}, {"sha256": digest})


def check_seal(text: str, data: bytes, kind: str, key: PublicKey | None, place: str) -> str:
    """Verifies a signature that `PrivateKey.seal` has made; the thumbprint of the key that it names.

    `key` None: only the digest is compared. Raises SignatureForm, SignatureAlgorithm, SignatureWrong, DigestWrong.
    """
    jws = _Jws.parse(text, place, ("kid",))
    signer = jws.text_of("kid")
    if jws.text_of("typ") != kind:
        raise SignatureForm(f"{place}: a signature for something else: {quoted(jws.header['typ'])}")
    if key is not None and not key.verifies(jws.signature, jws.signed):
        raise SignatureWrong(
            f"{place} names the key {quoted(signer)}, and is not made by the key {key.thumbprint}",
            remedy="Is it the public key of the gateway that wrote the file? If it is, the file proves nothing.",
        )
    if _digest(jws) != hashlib.sha256(data).digest():
        raise DigestWrong(f"{place}: the signature is for another document")
    return signer


def signing_key_of(sjwk: str, place: str) -> PublicKey:
    """The signing key that an sjwk vouches for; nothing is verified. Raises SignatureForm, KeyWeak."""
    jws = _Jws.parse(sjwk, place, ("kid",))
    return public_key(jws.payload, place, KeyWeak, SignatureForm)


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _json(value: Mapping[str, str]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
