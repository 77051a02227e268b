"""Signing and requiring signatures, as a user and a pipeline do."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.helpers import centra, read, read_repeated, refused, state
from tests.support import make_key, public

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("keys") / "release.pem")


def test_a_release_is_signed_verified_and_pulled(home: Path, key: Path) -> None:
    trusted = public(key)
    message = refused("release", "verify", "1", "--key", trusted, code=6, says="it is not signed")
    assert str(trusted) in message

    first, again = read_repeated("release", "sign", "latest", "--key", key)
    assert set(first) == {"release", "digest", "key", "signature", "changed"}
    assert (first["release"], first["changed"]) == (1, True)
    assert again == {**first, "changed": False}
    event = read("audit")[-1]
    assert (event["action"], event["details"]["key"]) == ("release:sign", first["key"])

    centra("release", "pull", "1", "--output", "pulled")
    for reference in ("1", "./pulled", ".centra/store#latest"):
        found = read("release", "verify", reference, "--key", trusted)
        assert (found["signed_by"], found["digest"]) == (first["key"], first["digest"])
    assert read("release", "verify", "1")["signed_by"] is None
    text = centra("release", "verify", "1", "--key", trusted).stdout
    assert text.startswith(f"signed with key sha256:{first['key']}\n")

    command = [sys.executable, "-m", "model_signing", "verify", "key", "pulled"]
    options = ["--signature", "pulled/model.sig", "--public_key", str(trusted)]
    subprocess.run([*command, *options], check=True, capture_output=True)


def test_what_people_read(home: Path, key: Path) -> None:
    done = centra("release", "sign", "1", "--key", key)
    assert done.stdout.startswith("release 1  key sha256:")
    assert done.stderr == "signed\n"
    again = centra("release", "sign", "1", "--key", key)
    assert again.stderr == "nothing to do: signed with this key already\n"
    assert again.stdout == done.stdout


def test_one_of_several_keys_is_enough(home: Path, key: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other.pem")
    centra("release", "sign", "1", "--key", other)
    trusted = ("--key", public(key), "--key", public(other))
    assert read("release", "verify", "1", *trusted)["signed_by"]
    refused("release", "verify", "1", "--key", public(key), code=6, says="signed by another key")


def test_composing_into_a_folder_takes_signatures_along(home: Path, key: Path) -> None:
    centra("release", "sign", "1", "--key", key)
    centra("compose", "--output", "out")
    assert read("release", "verify", "./out", "--key", public(key))["signed_by"]


def test_a_tampered_folder_is_refused(home: Path, key: Path) -> None:
    centra("release", "sign", "1", "--key", key)
    centra("release", "pull", "1", "--output", "pulled")
    module = home / "pulled" / "tasks" / "intent.safetensors"
    data = module.read_bytes()
    module.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refused("release", "verify", "./pulled", "--key", public(key), code=6, says="is corrupt")
    module.write_bytes(data)

    manifest = home / "pulled" / "release.json"
    fields = json.loads(manifest.read_bytes())
    del fields["tasks"]["same"]
    manifest.write_text(json.dumps(fields))
    refused("release", "verify", "./pulled", "--key", public(key), code=6, says="is corrupt")


def test_an_encrypted_key_takes_its_passphrase_from_the_environment(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(tmp_path / "encrypted.pem", passphrase=b"geheim")
    sign = ("release", "sign", "1", "--key", key)
    before = state(home)
    refused(*sign, code=2, says="--passphrase-env")
    refused(*sign, "--passphrase-env", "KEY_PASS", code=2, says="KEY_PASS is not set")
    monkeypatch.setenv("KEY_PASS", "wrong")
    refused(*sign, "--passphrase-env", "KEY_PASS", code=2, says="password")
    assert state(home) == before
    monkeypatch.setenv("KEY_PASS", "geheim")
    assert read(*sign, "--passphrase-env", "KEY_PASS")["changed"]
    assert "geheim" not in json.dumps(read("audit"))


def test_mistakes_have_their_exit_codes(home: Path, key: Path) -> None:
    before = state(home)
    refused("release", "sign", "7", "--key", key, code=3, says="no release '7'")
    refused("release", "sign", "1", "--key", "missing.pem", code=3, says="no such key file")
    refused("release", "sign", "1", code=2, says="--key")
    refused("release", "sign", "1", "--key", public(key), code=2, says="private key")
    refused("release", "verify", "1", "--key", "missing.pem", code=3, says="no such key file")
    refused("release", "verify", "1", "--key", key, code=2, says="public key")
    assert state(home) == before
