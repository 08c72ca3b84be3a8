"""Secrets at rest, and the tokens that callers present.

Values are sealed with AES-256-GCM and bound to the row that they belong to: a ciphertext copied into
another row does not open. The scheme numbers are those of the `encryption_version` column (contract 05
§4): 0 is plaintext and 1 the unbound form, both only read; 2 is what is written.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

KEY_BYTES = 32
NONCE_BYTES = 12
TOKEN_BYTES = 32
PREFIX_CHARS = 8  # of a token, kept in the clear so that its owner can tell tokens apart

PLAIN = 0
UNBOUND = 1
BOUND = 2


class KeyUnusable(ValueError):
    """A key, or the file that holds keys, that cannot be used. Never contains key material."""


class SealBroken(ValueError):
    """A sealed value that does not open: wrong key, wrong row, or altered bytes."""


class Sealed(Struct, frozen=True):
    """A value as the database keeps it."""

    version: int
    blob: bytes


class Keyring:
    """The keys in force: the first one seals, all of them open."""

    def __init__(self, keys_by_id: Mapping[int, bytes]) -> None:
        if not keys_by_id:
            raise KeyUnusable("no key given")
        for key_id, key in keys_by_id.items():
            if not 0 <= key_id <= 255:
                raise KeyUnusable(f"key id {key_id} is not between 0 and 255")
            if len(key) != KEY_BYTES:
                raise KeyUnusable(f"key {key_id} is not {KEY_BYTES} bytes long")
        self._ciphers_by_id = MappingProxyType({key_id: AESGCM(key) for key_id, key in keys_by_id.items()})
        self._sealing_id = next(iter(keys_by_id))

    def __repr__(self) -> str:
        return f"Keyring(ids={list(self._ciphers_by_id)}, keys=***)"

    @classmethod
    def parse(cls, text: str) -> Keyring:
        """Read `id:key` pairs divided by commas or lines, the sealing one first; or one key alone.

        A key is base64 or hex of 32 bytes, or exactly 32 raw characters (contract 05 §4, 07 §24).
        """
        stripped = text.strip()
        if len(stripped.encode()) == KEY_BYTES or ":" not in stripped:
            return cls({0: parse_key(stripped)})
        keys_by_id: dict[int, bytes] = {}
        for key_id, key in _pairs(stripped):
            if key_id in keys_by_id:
                raise KeyUnusable(f"key id {key_id} is given twice")
            keys_by_id[key_id] = key
        return cls(keys_by_id)

    @property
    def sealing_id(self) -> int:
        return self._sealing_id

    def seal(self, plaintext: bytes, row: bytes) -> Sealed:
        """Encrypt a value for one row: key id, nonce, ciphertext and tag, in this order."""
        key_id = bytes([self._sealing_id])
        nonce = os.urandom(NONCE_BYTES)
        ciphertext = self._ciphers_by_id[self._sealing_id].encrypt(nonce, plaintext, key_id + row)
        return Sealed(BOUND, key_id + nonce + ciphertext)

    def open(self, sealed: Sealed, row: bytes) -> bytes:
        """Decrypt a value, or raise `SealBroken`."""
        if sealed.version == PLAIN:
            return sealed.blob
        if sealed.version == UNBOUND:
            return self._open_unbound(sealed.blob)
        if sealed.version == BOUND:
            return self._open_bound(sealed.blob, row)
        raise SealBroken(f"unknown encryption version {sealed.version}")

    def is_current(self, sealed: Sealed) -> bool:
        """Whether sealing the value anew would change the scheme or the key."""
        return sealed.version == BOUND and sealed.blob[:1] == bytes([self._sealing_id])

    def _open_bound(self, blob: bytes, row: bytes) -> bytes:
        cipher = self._ciphers_by_id.get(blob[0]) if blob else None
        if cipher is None:
            raise SealBroken("the value is sealed with a key that is not in force")
        try:
            return cipher.decrypt(blob[1 : 1 + NONCE_BYTES], blob[1 + NONCE_BYTES :], blob[:1] + row)
        except (InvalidTag, ValueError) as error:
            raise SealBroken("the value does not open") from error

    def _open_unbound(self, blob: bytes) -> bytes:
        for cipher in self._ciphers_by_id.values():
            try:
                return cipher.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], None)
            except (InvalidTag, ValueError):
                continue
        raise SealBroken("no key in force opens the value")


def row_of(store: str, workspace_id: object, key: str) -> bytes:
    """Name the row that a value belongs to: `store|workspace or nothing|key` (contract 05 §4).

    No two rows share a name: neither a store nor an id can contain the divider, and the key is last.
    """
    return f"{store}|{workspace_id or ''}|{key}".encode()


def parse_key(text: str) -> bytes:
    """Read one key: hex or base64 of 32 bytes, or exactly 32 raw characters."""
    raw = text.strip().encode()
    if len(raw) == KEY_BYTES:
        return raw
    for decode in (binascii.unhexlify, _from_base64):
        try:
            key = decode(raw)
        except (binascii.Error, ValueError):
            continue
        if len(key) == KEY_BYTES:
            return key
    raise KeyUnusable(f"a key is {KEY_BYTES} bytes, as base64, as hex or raw")


def _from_base64(raw: bytes) -> bytes:
    padded = raw.rstrip(b"=")
    padded += b"=" * (-len(padded) % 4)
    return base64.b64decode(padded.replace(b"-", b"+").replace(b"_", b"/"), validate=True)


def _pairs(text: str) -> Iterator[tuple[int, bytes]]:
    for item in text.replace("\n", ",").split(","):
        if not (stripped := item.strip()):
            continue
        key_id, _, key = stripped.partition(":")
        if not (key_id.isascii() and key_id.isdecimal()):
            raise KeyUnusable("a key list reads id:key,id:key with numbers as ids")
        yield int(key_id), parse_key(key)


def create_key_file(path: Path) -> Keyring:
    """Make the key file of an installation unless it exists, and read it.

    Of several processes that do this at once, one makes the file and all read the same key.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        create_whole(path, f"1:{base64.b64encode(os.urandom(KEY_BYTES)).decode()}\n".encode())
    return load_key_file(path)


def load_key_file(path: Path) -> Keyring:
    """Read a key file; one that others may read is refused."""
    try:
        mode = path.stat().st_mode
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyUnusable(f"the key file {path} cannot be read") from error
    if mode & 0o077:
        raise KeyUnusable(f"the key file {path} can be read by others; its mode must be 0600")
    return Keyring.parse(text)


def create_whole(path: Path, content: bytes) -> None:
    """Make a file of mode 0600 with this content; one that exists stays as it is."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A link appears complete or not at all, and unlike a rename never replaces another's key.
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        temporary.unlink()


def mint_token() -> str:
    """Make a token: 32 random bytes as 43 characters of base64url (contract 01 §5)."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def sha256(text: str | bytes) -> bytes:
    """Digest a token for storage and lookup; a random 256-bit value needs no salt and no stretching."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).digest()


def same(one: str | bytes, other: str | bytes) -> bool:
    """Compare two secrets in a time that does not tell where, or in which length, they differ."""
    return hmac.compare_digest(sha256(one), sha256(other))
