from __future__ import annotations

import base64
import os
import threading
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from molecule_ai.kernel import crypto
from molecule_ai.kernel.crypto import Keyring, KeyUnusable, SealBroken, Sealed

# Fixed, because test names hold them and every worker has to collect the same names.
OLD, NEW = bytes(range(32)), bytes(range(100, 132))
ROW = crypto.row_of("workspace_secrets", uuid4(), "API_KEY")


@given(st.binary(max_size=2_000), st.binary(max_size=200))
def test_what_is_sealed_for_a_row_opens_for_that_row(plaintext: bytes, row: bytes) -> None:
    keyring = Keyring({1: NEW})
    sealed = keyring.seal(plaintext, row)
    assert sealed.version == 2
    assert keyring.open(sealed, row) == plaintext


def test_a_value_copied_into_another_row_does_not_open() -> None:
    keyring = Keyring({1: NEW})
    with pytest.raises(SealBroken):
        keyring.open(keyring.seal(b"secret", ROW), crypto.row_of("workspace_secrets", uuid4(), "API_KEY"))


@given(st.data())
def test_an_altered_byte_breaks_the_seal(data: st.DataObject) -> None:
    keyring = Keyring({1: NEW, 2: OLD})
    blob = bytearray(keyring.seal(b"secret", ROW).blob)
    position = data.draw(st.integers(0, len(blob) - 1))
    blob[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealBroken):
        keyring.open(Sealed(2, bytes(blob)), ROW)


@pytest.mark.parametrize("blob", [b"", b"\x01", b"\x01" + bytes(11), bytes(13)])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_mutilated_value_is_refused(version: int, blob: bytes) -> None:
    with pytest.raises(SealBroken):
        Keyring({1: NEW}).open(Sealed(version, blob), ROW)


def test_the_same_value_is_never_sealed_to_the_same_bytes() -> None:
    keyring = Keyring({1: NEW})
    assert keyring.seal(b"secret", ROW) != keyring.seal(b"secret", ROW)


def test_after_a_rotation_old_values_open_and_are_known_as_old() -> None:
    sealed = Keyring({1: OLD}).seal(b"secret", ROW)
    rotated = Keyring({2: NEW, 1: OLD})
    assert rotated.open(sealed, ROW) == b"secret"
    assert not rotated.is_current(sealed)
    assert rotated.is_current(rotated.seal(b"secret", ROW))


def test_a_value_of_a_retired_key_does_not_open() -> None:
    with pytest.raises(SealBroken, match="not in force"):
        Keyring({2: NEW}).open(Keyring({1: OLD}).seal(b"secret", ROW), ROW)


def test_values_of_the_older_schemes_open() -> None:
    nonce = os.urandom(12)
    keyring = Keyring({2: NEW, 1: OLD})
    unbound = Sealed(1, nonce + AESGCM(OLD).encrypt(nonce, b"secret", None))
    assert keyring.open(unbound, ROW) == b"secret"
    assert keyring.open(Sealed(0, b"plain"), ROW) == b"plain"
    assert not keyring.is_current(unbound)
    assert not keyring.is_current(Sealed(0, b"plain"))


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(NEW).decode(),
        base64.urlsafe_b64encode(NEW).decode().rstrip("="),
        NEW.hex(),
        f"3:{base64.b64encode(NEW).decode()}, 1:{OLD.hex()}",
        f"3:{base64.b64encode(NEW).decode()}\n1:{OLD.hex()}\n",
    ],
)
def test_keys_are_read_in_every_published_form(text: str) -> None:
    keyring = Keyring.parse(text)
    assert Keyring({keyring.sealing_id: NEW}).open(keyring.seal(b"secret", ROW), ROW) == b"secret"


def test_a_raw_key_may_hold_any_character() -> None:
    assert Keyring.parse("1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").sealing_id == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "short",
        "x:" + NEW.hex(),
        f"256:{NEW.hex()}",
        f"1:{NEW.hex()},1:{OLD.hex()}",
        "1:short",
        "-1:" + NEW.hex(),
    ],
)
def test_an_unusable_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(KeyUnusable) as refusal:
        Keyring.parse(text)
    assert NEW.hex() not in str(refusal.value)


def test_a_keyring_never_prints_its_keys() -> None:
    assert NEW.hex() not in repr(Keyring({1: NEW}))
    assert "***" in repr(Keyring({1: NEW}))


def test_of_many_processes_that_make_the_key_file_all_use_one_key(tmp_path: Path) -> None:
    path = tmp_path / "home" / "secrets.key"
    keyrings: list[Keyring] = []
    starters = [
        threading.Thread(target=lambda: keyrings.append(crypto.create_key_file(path))) for _ in range(8)
    ]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    sealed = keyrings[0].seal(b"secret", ROW)
    assert [keyring.open(sealed, ROW) for keyring in keyrings] == [b"secret"] * 8
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["secrets.key"]


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    crypto.create_key_file(path)
    path.chmod(0o640)
    with pytest.raises(KeyUnusable, match="0600"):
        crypto.load_key_file(path)


def test_a_missing_or_damaged_key_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    with pytest.raises(KeyUnusable, match="cannot be read"):
        crypto.load_key_file(path)
    path.touch(0o600)
    with pytest.raises(KeyUnusable):
        crypto.load_key_file(path)


def test_a_token_has_256_bits_in_43_characters() -> None:
    token = crypto.mint_token()
    assert len(token) == 43
    assert len(base64.urlsafe_b64decode(token + "=")) == 32
    assert token != crypto.mint_token()


def test_secrets_are_compared_whole() -> None:
    assert crypto.same("token", b"token")
    assert not crypto.same("token", "token ")
