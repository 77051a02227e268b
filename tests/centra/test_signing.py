"""Signatures: accepted by the format's own program, refused when anything else was signed."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

import centra
from centra.errors import CentraError, NotFoundError, StoreNotWritableError, UsageError
from centra.releases.folder import ReleaseFolder
from centra.releases.folder_writing import write_folder
from centra.releases.signing import SignatureError, check_subject, sign, verify_release
from centra.store import LocalStore, open_store
from tests import support
from tests.memory_store import MemoryStore
from tests.support import make_key, public

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from centra.formats.manifest import ReleaseManifest
    from centra.formats.task_module import TaskModule
    from centra.store import BlobReader, BlobStore

MANIFEST, OTHER = "ab" * 32, "cd" * 32


@pytest.fixture(params=["memory", "local", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    """An empty store of each kind, under one contract."""
    if request.param == "memory":
        return MemoryStore(tmp_path / "fetched")
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    return open_store(request.getfixturevalue("s3_url"))


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A private key's file by name, with ``NAME.pub`` beside it; made once."""
    folder = tmp_path_factory.mktemp("keys")

    def key(name: str = "release", curve: ec.EllipticCurve | None = None) -> Path:
        if not (folder / name).exists():
            make_key(folder / name, ec.generate_private_key(curve or ec.SECP256R1()))
        return folder / name

    return key


@pytest.fixture(scope="module")
def modules(make_module: Callable[..., TaskModule]) -> dict[str, TaskModule]:
    return {
        "intent": make_module("classification", tap=1, depth=1, seed=1),
        "slots": make_module("tagging", tap=2, depth=0, seed=2),
    }


@pytest.fixture
def manifest(
    backbone_store: LocalStore, modules: dict[str, TaskModule], tiny_backbone: support.Backbone
) -> ReleaseManifest:
    return support.put_release(modules, [tiny_backbone.spec], backbone_store)


@pytest.fixture
def later(
    backbone_store: LocalStore, modules: dict[str, TaskModule], tiny_backbone: support.Backbone
) -> ReleaseManifest:
    """Another release in the same store, with one task less."""
    fewer = {"intent": modules["intent"]}
    return support.put_release(fewer, [tiny_backbone.spec], backbone_store)


@pytest.fixture
def signed(
    manifest: ReleaseManifest, backbone_store: LocalStore, key: Callable[..., Path]
) -> LocalStore:
    """The store with the release, signed with the key ``release``."""
    add_signature(manifest, backbone_store, key())
    return backbone_store


def add_signature(manifest: ReleaseManifest, store: BlobStore, key: Path) -> bytes:
    found = sign(manifest, store, key)
    assert found.made
    store.write_signature(manifest.digest, found.data)
    return found.data


@pytest.fixture
def folder(manifest: ReleaseManifest, signed: LocalStore, tmp_path: Path) -> Path:
    """The signed release as it is pulled."""
    write_folder(manifest, signed, tmp_path / "release")
    return tmp_path / "release"


def replace_signature(store: LocalStore, manifest: ReleaseManifest, data: bytes) -> None:
    shutil.rmtree(store.root / "signatures", ignore_errors=True)
    store.write_signature(manifest.digest, data)


def refused(manifest: ReleaseManifest, reader: BlobReader, *keys: Path) -> str:
    with pytest.raises(SignatureError) as caught:
        verify_release(manifest, reader, keys)
    assert manifest.digest in str(caught.value)
    return str(caught.value)


def model_signing(folder: Path, signature: str, key: Path) -> subprocess.CompletedProcess[str]:
    """The package's own program, as its documentation says."""
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    return subprocess.run(
        [*command, "--signature", str(folder / signature), "--public_key", str(public(key))],
        check=False,
        capture_output=True,
        text=True,
    )


def sums_are_right(folder: Path) -> bool:
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    return subprocess.run(command, cwd=folder, check=False).returncode == 0


# What every store promises


def test_a_release_without_signatures_has_none(any_store: BlobStore) -> None:
    assert any_store.signatures(MANIFEST) == []


def test_signatures_are_kept_oldest_first_and_each_once(any_store: BlobStore) -> None:
    any_store.write_signature(MANIFEST, b'{"by": "one"}')
    any_store.write_signature(MANIFEST, b'{"by": "one"}')

    assert any_store.signatures(MANIFEST) == [b'{"by": "one"}']
    # A store may count whole seconds: what was written within one comes in no particular order.
    any_store.write_signature(MANIFEST, b'{"by": "two"}')
    assert sorted(any_store.signatures(MANIFEST)) == [b'{"by": "one"}', b'{"by": "two"}']


def test_the_first_signature_stays_the_first(store: LocalStore) -> None:
    written = [f"{number}".encode() for number in range(8)]
    for data in [*written, written[0]]:
        store.write_signature(MANIFEST, data)

    assert store.signatures(MANIFEST) == written


def test_signatures_belong_to_one_release(any_store: BlobStore) -> None:
    any_store.write_signature(MANIFEST, b"{}")

    assert any_store.signatures(OTHER) == []
    assert list(any_store.blobs()) == any_store.pointers() == []


def test_writing_a_damaged_signature_again_mends_it(store: LocalStore) -> None:
    store.write_signature(MANIFEST, b"{}")
    (path,) = (store.root / "signatures" / MANIFEST).iterdir()
    assert path.name == f"{hashlib.sha256(b'{}').hexdigest()}.json"
    path.write_bytes(b"noise")
    (path.parent / "note.txt").write_text("no signature")

    store.write_signature(MANIFEST, b"{}")

    assert store.signatures(MANIFEST) == [b"{}"]


def test_a_read_only_store_takes_no_signature(
    s3_url: str, become_s3_reader: Callable[[], None]
) -> None:
    open_store(s3_url).write_signature(MANIFEST, b"{}")
    become_s3_reader()
    store = open_store(s3_url)

    assert store.signatures(MANIFEST) == [b"{}"]
    with pytest.raises(StoreNotWritableError):
        store.write_signature(MANIFEST, b"more")


# Signing, and what accepts it


def test_a_signed_release_is_accepted_from_a_store_and_from_a_folder(
    manifest: ReleaseManifest, signed: LocalStore, folder: Path, key: Callable[..., Path]
) -> None:
    trusted = [public(key("stranger")), public(key())]
    der = ["openssl", "pkey", "-pubin", "-in", str(trusted[1]), "-outform", "DER"]
    done = subprocess.run(der, check=True, capture_output=True)
    fingerprint = hashlib.sha256(done.stdout).hexdigest()

    assert verify_release(manifest, signed, trusted) == fingerprint
    assert verify_release(manifest, ReleaseFolder.open(folder), trusted) == fingerprint


def test_a_signed_release_is_accepted_from_s3(
    manifest: ReleaseManifest, signed: LocalStore, s3_url: str, key: Callable[..., Path]
) -> None:
    remote = open_store(s3_url)
    for blob in signed.blobs():
        remote.put(signed.fetch(blob.digest))
    refused(manifest, remote, public(key()))

    add_signature(manifest, remote, key())

    source = f"{s3_url}#{manifest.digest}"
    assert centra.load_release(source, keys=[public(key())]).tasks == ["intent", "slots"]
    with pytest.raises(SignatureError, match="signed by another key"):
        centra.load_release(source, keys=[public(key("stranger"))])


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_the_format_s_own_program_accepts_a_pulled_folder(
    manifest: ReleaseManifest,
    backbone_store: LocalStore,
    tmp_path: Path,
    key: Callable[..., Path],
    curve: ec.EllipticCurve,
) -> None:
    private = key(curve.name, curve)
    add_signature(manifest, backbone_store, private)
    write_folder(manifest, backbone_store, tmp_path / "release")

    done = model_signing(tmp_path / "release", "model.sig", private)
    assert (done.returncode, done.stdout) == (0, "Verification succeeded\n"), done.stderr
    assert sums_are_right(tmp_path / "release")


def test_the_format_s_own_program_accepts_each_of_several_signatures(
    manifest: ReleaseManifest, signed: LocalStore, tmp_path: Path, key: Callable[..., Path]
) -> None:
    add_signature(manifest, signed, key("second"))
    write_folder(manifest, signed, tmp_path / "release")

    assert model_signing(tmp_path / "release", "model.sig", key()).returncode == 0
    assert model_signing(tmp_path / "release", "signatures/2.sig", key("second")).returncode == 0
    assert model_signing(tmp_path / "release", "signatures/2.sig", key()).returncode == 1


def test_every_file_of_a_folder_is_covered(folder: Path, key: Callable[..., Path]) -> None:
    names = [*ReleaseFolder.open(folder).listing]
    for name in names:
        support.flip(folder / name, 3)
    (folder / "tokenizer" / "stray.py").write_text("print('hello')")

    done = model_signing(folder, "model.sig", key())
    assert done.returncode == 1
    assert {"release.json", "config.json", "tasks/intent.safetensors"} < {*names}
    assert [name for name in (*names, "stray.py") if name not in done.stderr] == []


def test_what_the_format_s_own_program_signed_is_accepted_and_kept(
    manifest: ReleaseManifest, backbone_store: LocalStore, tmp_path: Path, key: Callable[..., Path]
) -> None:
    root = tmp_path / "release"
    write_folder(manifest, backbone_store, root)
    command = [sys.executable, "-m", "model_signing", "sign", "key", str(root)]
    options = ["--signature", str(root / "model.sig"), "--private_key", str(key())]
    subprocess.run([*command, *options], check=True, capture_output=True)

    write_folder(manifest, backbone_store, root)

    assert verify_release(manifest, ReleaseFolder.open(root), [public(key())])


def test_signing_again_with_the_same_key_makes_no_signature(
    manifest: ReleaseManifest, signed: LocalStore, key: Callable[..., Path]
) -> None:
    (first,) = signed.signatures(manifest.digest)

    again = sign(manifest, signed, key())
    assert (again.made, again.data) == (False, first)
    assert sign(manifest, signed, key("second")).made


def test_a_damaged_signature_is_made_anew(
    manifest: ReleaseManifest, signed: LocalStore, key: Callable[..., Path]
) -> None:
    (path,) = (signed.root / "signatures" / manifest.digest).iterdir()
    path.write_bytes(b"noise")

    add_signature(manifest, signed, key())

    assert verify_release(manifest, signed, [public(key())])


def test_neither_signing_nor_verifying_reads_the_modules(
    manifest: ReleaseManifest, backbone_store: LocalStore, key: Callable[..., Path]
) -> None:
    for entry in manifest.tasks.values():
        backbone_store.remove(entry.digest)

    add_signature(manifest, backbone_store, key())

    assert verify_release(manifest, backbone_store, [public(key())])


# Loading


def test_loading_requires_a_signature_where_keys_are_given(
    manifest: ReleaseManifest, signed: LocalStore, folder: Path, key: Callable[..., Path]
) -> None:
    for source in (str(folder), f"{signed.root}#{manifest.digest}"):
        release = centra.load_release(source, keys=[str(public(key()))])
        assert release.predict(["play some jazz"])
        with pytest.raises(SignatureError, match="signed by another key"):
            centra.load_release(source, keys=[public(key("stranger"))])
        assert centra.load_release(source).tasks == ["intent", "slots"]


def test_loading_a_part_needs_no_other_task_s_module(
    manifest: ReleaseManifest, signed: LocalStore, key: Callable[..., Path]
) -> None:
    signed.remove(manifest.tasks["slots"].digest)
    source = f"{signed.root}#{manifest.digest}"

    release = centra.load_release(source, tasks=["intent"], keys=[public(key())])
    assert release.tasks == ["intent"]


def test_an_unsigned_release_is_not_loaded(
    manifest: ReleaseManifest, backbone_store: LocalStore, key: Callable[..., Path]
) -> None:
    with pytest.raises(SignatureError, match="it is not signed"):
        centra.load_release(f"{backbone_store.root}#{manifest.digest}", keys=[public(key())])


# What is refused


def test_an_unsigned_release_is_refused(
    manifest: ReleaseManifest, backbone_store: LocalStore, key: Callable[..., Path]
) -> None:
    message = refused(manifest, backbone_store, public(key()))
    assert message.endswith("it is not signed")
    assert str(public(key())) in message


def test_another_key_is_refused(
    manifest: ReleaseManifest, signed: LocalStore, folder: Path, key: Callable[..., Path]
) -> None:
    for reader in (signed, ReleaseFolder.open(folder)):
        assert "signed by another key" in refused(manifest, reader, public(key("stranger")))


def test_another_release_s_signature_is_refused(
    manifest: ReleaseManifest,
    later: ReleaseManifest,
    signed: LocalStore,
    folder: Path,
    key: Callable[..., Path],
) -> None:
    other = add_signature(later, signed, key())
    replace_signature(signed, manifest, other)
    (folder / "model.sig").write_bytes(other)

    for reader in (signed, ReleaseFolder.open(folder)):
        assert "a signature is over other content" in refused(manifest, reader, public(key()))
    with pytest.raises(SignatureError, match="over other content"):
        check_subject(manifest, other)
    check_subject(later, other)


def test_a_good_signature_counts_beside_bad_ones(
    manifest: ReleaseManifest, later: ReleaseManifest, signed: LocalStore, key: Callable[..., Path]
) -> None:
    for data in (b"noise", sign(later, signed, key()).data):
        signed.write_signature(manifest.digest, data)
    add_signature(manifest, signed, key("second"))

    assert verify_release(manifest, signed, [public(key("second"))])
    message = refused(manifest, signed, public(key("stranger")))
    assert "signed by another key; a signature is damaged" in message


def test_a_folder_s_other_files_must_be_as_signed_too(
    manifest: ReleaseManifest, folder: Path, key: Callable[..., Path]
) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": "evil.py"}))
    sums = (folder / "SHA256SUMS").read_text().splitlines()
    digest = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()
    sums = [f"{digest}  config.json" if line.endswith("  config.json") else line for line in sums]
    (folder / "SHA256SUMS").write_text("".join(f"{line}\n" for line in sums))

    reader = ReleaseFolder.open(folder)  # Consistent in itself.
    assert "SHA256SUMS, config.json differ" in refused(manifest, reader, public(key()))


def damaged(data: bytes, what: str) -> bytes:
    bundle = json.loads(data)
    envelope = bundle["dsseEnvelope"]
    match what:
        case "empty":
            return b""
        case "cut off":
            return data[: len(data) // 2]
        case "no object":
            return b"[]"
        case "nested":
            return b"[" * 100_000
        case "signature":
            raw = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
            raw[20] ^= 1
            envelope["signatures"][0]["sig"] = base64.b64encode(raw).decode()
        case "no signature":
            envelope["signatures"] = []
        case "payload":
            statement = json.loads(base64.b64decode(envelope["payload"]))
            statement["subject"][0]["name"] = "another"
            envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
        case "payload type":
            envelope["payloadType"] = "text/plain"
        case "media type":
            bundle["mediaType"] = "application/json"
        case "digest":
            statement = json.loads(base64.b64decode(envelope["payload"]))
            statement["predicate"]["resources"][0]["digest"] = "no digest"
            envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    return json.dumps(bundle).encode()


@pytest.mark.parametrize(
    "what",
    [
        *("empty", "cut off", "no object", "nested", "signature", "no signature", "payload"),
        *("payload type", "media type", "digest"),
    ],
)
def test_a_damaged_signature_is_refused(
    manifest: ReleaseManifest,
    signed: LocalStore,
    key: Callable[..., Path],
    what: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (data,) = signed.signatures(manifest.digest)
    replace_signature(signed, manifest, damaged(data, what))

    assert "a signature is damaged" in refused(manifest, signed, public(key()))
    assert capsys.readouterr().out == ""


def test_a_forged_list_of_files_is_refused(
    manifest: ReleaseManifest, later: ReleaseManifest, signed: LocalStore, key: Callable[..., Path]
) -> None:
    """Someone without the key puts this release's files into another release's signature."""
    theirs = json.loads(sign(manifest, signed, key("stranger")).data)
    forged = json.loads(sign(later, signed, key()).data)
    forged["dsseEnvelope"]["payload"] = theirs["dsseEnvelope"]["payload"]
    replace_signature(signed, manifest, json.dumps(forged).encode())

    assert "a signature is damaged" in refused(manifest, signed, public(key()))


def test_naming_the_trusted_key_in_another_s_signature_does_not_help(
    manifest: ReleaseManifest, signed: LocalStore, key: Callable[..., Path]
) -> None:
    (good,) = signed.signatures(manifest.digest)
    forged = json.loads(sign(manifest, signed, key("stranger")).data)
    forged["verificationMaterial"] = json.loads(good)["verificationMaterial"]
    replace_signature(signed, manifest, json.dumps(forged).encode())

    assert "a signature is damaged" in refused(manifest, signed, public(key()))


# Folders


def test_a_folder_takes_all_signatures_along(
    manifest: ReleaseManifest, signed: LocalStore, folder: Path, key: Callable[..., Path]
) -> None:
    add_signature(manifest, signed, key("second"))
    add_signature(manifest, signed, key("third"))
    written = write_folder(manifest, signed, folder)

    names = ("model.sig", "signatures/2.sig", "signatures/3.sig")
    found = [(folder / name).read_bytes() for name in names]
    assert found == signed.signatures(manifest.digest)
    assert written == len(found[1]) + len(found[2])
    opened = ReleaseFolder.open(folder)
    assert opened.signatures(manifest.digest) == found
    assert opened.signatures(OTHER) == []
    write_folder(manifest, opened, folder.parent / "copy")
    assert ReleaseFolder.open(folder.parent / "copy").signatures(manifest.digest) == found


def test_the_next_release_in_a_folder_does_not_inherit_signatures(
    later: ReleaseManifest, manifest: ReleaseManifest, signed: LocalStore, folder: Path, key: Any
) -> None:
    add_signature(manifest, signed, key("second"))
    write_folder(manifest, signed, folder)
    (folder / "signatures" / "note.txt").write_text("mine")

    write_folder(later, signed, folder)

    assert ReleaseFolder.open(folder).signatures(later.digest) == []
    assert not (folder / "model.sig").exists()
    assert [path.name for path in (folder / "signatures").iterdir()] == ["note.txt"]


# Keys


@pytest.mark.parametrize(
    ("private", "says"),
    [
        (lambda: rsa.generate_private_key(65537, 2048), "elliptic-curve key on P-256"),
        (ed25519.Ed25519PrivateKey.generate, "elliptic-curve key on P-256"),
        (lambda: ec.generate_private_key(ec.SECP256K1()), "elliptic-curve key on P-256"),
    ],
    ids=["RSA", "Ed25519", "secp256k1"],
)
def test_other_kinds_of_keys_are_refused(
    manifest: ReleaseManifest,
    signed: LocalStore,
    tmp_path: Path,
    private: Callable[[], Any],
    says: str,
) -> None:
    key = make_key(tmp_path / "key", private())
    with pytest.raises(UsageError, match=says):
        sign(manifest, signed, key)
    with pytest.raises(UsageError, match=says):
        verify_release(manifest, signed, [public(key)])


def test_files_that_are_no_keys_are_refused(
    manifest: ReleaseManifest, signed: LocalStore, tmp_path: Path, key: Callable[..., Path]
) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"\xff\x00")
    for path in (junk, tmp_path, public(key())):
        with pytest.raises(UsageError, match=str(path)):
            sign(manifest, signed, path)
    for path in (junk, tmp_path, key()):
        with pytest.raises(UsageError, match=str(path)):
            verify_release(manifest, signed, [public(key()), path])
    with pytest.raises(NotFoundError, match="no such key file"):
        sign(manifest, signed, tmp_path / "missing")
    with pytest.raises(NotFoundError, match="no such key file"):
        verify_release(manifest, signed, [tmp_path / "missing"])


def test_an_encrypted_key_needs_its_passphrase(
    manifest: ReleaseManifest, signed: LocalStore, tmp_path: Path, key: Callable[..., Path]
) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    path = make_key(tmp_path / "encrypted", private, passphrase="geheim, ü".encode())

    with pytest.raises(UsageError, match="is encrypted"):
        sign(manifest, signed, path)
    with pytest.raises(UsageError, match="password"):
        sign(manifest, signed, path, passphrase="guess")
    with pytest.raises(UsageError, match="is not encrypted"):
        sign(manifest, signed, key("second"), passphrase="geheim, ü")
    found = sign(manifest, signed, path, passphrase="geheim, ü")
    signed.write_signature(manifest.digest, found.data)
    assert verify_release(manifest, signed, [public(path)]) == found.key


def test_without_the_extra_the_error_says_what_to_install(
    manifest: ReleaseManifest,
    signed: LocalStore,
    key: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing.signing", None)

    with pytest.raises(CentraError, match=r"pip install 'centra\[sign\]'"):
        sign(manifest, signed, key())
    with pytest.raises(CentraError, match=r"pip install 'centra\[sign\]'"):
        verify_release(manifest, signed, [public(key())])


def test_importing_the_module_does_not_import_the_library() -> None:
    assert not support.imported_by("import centra.releases.signing") & {
        "model_signing",
        "cryptography",
    }
