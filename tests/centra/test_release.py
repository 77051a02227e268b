"""The manifest: canonical, pure, and honest about layers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from centra.errors import FormatError, UnsupportedFormatError
from centra.formats.backbone import BackboneSpec
from centra.formats.documents import canonical_json
from centra.formats.identities import VersionNumber
from centra.formats.manifest import ChannelPointer, ReleaseManifest, changes
from tests import support

LAYERS = 12
DIGEST = "4b1f36ea59e022ecb768c8429f6f871d4e355d0966c99391b5f518361ba7f026"


def digest(text: str) -> str:
    return text.encode().hex().ljust(64, "0")


def backbone(name: str, layers: int = LAYERS) -> BackboneSpec:
    return BackboneSpec(
        family="bert",
        config={"vocab_size": 100},
        num_layers=layers,
        hidden_size=8,
        max_length=64,
        pad_token_id=0,
        token_types=True,
        embeddings=digest(f"{name}-e"),
        layers=tuple(digest(f"{name}-{i}") for i in range(layers)),
        layer_tensors={"w": (8, 8)},
        tokenizer={"tokenizer.json": digest(f"{name}-t")},
    )


OLD, NEW = backbone("old"), backbone("new", 6)
BACKBONES = {spec.digest: spec for spec in (OLD, NEW)}


def release(tasks: dict[str, tuple[int, int]], on: BackboneSpec = OLD) -> ReleaseManifest:
    """A manifest of tasks given by tap and depth."""
    return ReleaseManifest.build(
        {
            name: (digest(name), support.make_spec(on.digest, tap=tap, depth=depth))
            for name, (tap, depth) in tasks.items()
        },
        BACKBONES,
    )


def test_manifest_reads_back_to_the_same_digest() -> None:
    manifest = release({"b": (2, 1), "a": (0, 0)})

    read = ReleaseManifest.from_bytes(manifest.to_bytes(), "release.json")

    assert read.digest == manifest.digest
    assert read.model_dump() == manifest.model_dump()


def test_manifest_is_canonical_json() -> None:
    data = release({"b": (2, 1), "a": (0, 0)}).to_bytes()

    assert data == canonical_json(json.loads(data))
    assert data.startswith(b'{"format":"centra/release","format_version":"1.0",')


def test_precision_is_written_where_it_is_not_fp32() -> None:
    manifest = release({"b": (2, 1), "a": (0, 0)})
    # That of the same release before there were precisions.
    assert manifest.digest == DIGEST

    mixed = manifest.with_precisions({"b": "int8"})

    assert [entry.get("precision") for entry in json.loads(mixed.to_bytes())["tasks"].values()] == [
        None,
        "int8",
    ]
    read = ReleaseManifest.from_bytes(mixed.to_bytes(), "release.json")
    assert {name: entry.precision for name, entry in read.tasks.items()} == {
        "a": "fp32",
        "b": "int8",
    }
    assert read.with_precisions({"b": "fp32"}).digest == DIGEST


def test_unknown_precision_is_refused() -> None:
    data = release({"a": (0, 0)}).with_precisions({"a": "int8"}).to_bytes()

    with pytest.raises(FormatError, match=r"tasks\.a\.precision"):
        ReleaseManifest.from_bytes(data.replace(b"int8", b"int4"), "release.json")


@given(order=st.permutations(["a", "b", "c", "d"]))
def test_digest_does_not_depend_on_the_order_of_tasks(order: list[str]) -> None:
    taps = {"a": (1, 2), "b": (0, 0), "c": (12, 0), "d": (3, 3)}

    assert release({name: taps[name] for name in order}).digest == release(taps).digest


def test_trunk_reaches_the_deepest_tap_and_no_further() -> None:
    (trunk,) = release({"a": (2, 4), "b": (5, 1)}).trunks

    assert trunk.layers == OLD.layers[:5]
    assert trunk.num_layers == LAYERS


def test_account_of_the_paper_s_layers() -> None:
    account = release({"a": (2, 4), "b": (5, 1), "c": (0, 0)}).account

    assert (account.shared, account.task, account.total) == (5, 5, 10)
    assert account.single_task == 36
    assert account.overhead == round(10 / 36, 4)


def test_account_of_two_backbones_counts_both_trunks() -> None:
    manifest = ReleaseManifest.build(
        {
            "a": (digest("a"), support.make_spec(OLD.digest, tap=8, depth=2)),
            "b": (digest("b"), support.make_spec(NEW.digest, tap=4, depth=1)),
        },
        BACKBONES,
    )

    account = manifest.account
    assert (account.shared, account.task, account.single_task) == (12, 3, 18)
    assert [trunk.spec for trunk in manifest.trunks] == sorted(BACKBONES)


def test_account_counts_shared_layers_once_for_each_precision() -> None:
    manifest = release({"a": (2, 4), "b": (5, 1), "c": (3, 1)})

    mixed = manifest.with_precisions({"a": "int8", "c": "int8"})

    assert (mixed.account.shared, mixed.account.task) == (5 + 3, 6)
    assert mixed.trunks == manifest.trunks
    assert manifest.with_precisions(dict.fromkeys("abc", "int8")).account == manifest.account


def test_files_name_every_blob_once() -> None:
    files = release({"intent": (2, 1)}).files()

    folder = OLD.digest[:12]
    assert files == {
        f"backbone/{folder}/backbone.json": OLD.digest,
        f"backbone/{folder}/embeddings.safetensors": OLD.embeddings,
        f"backbone/{folder}/layer-01.safetensors": OLD.layers[0],
        f"backbone/{folder}/layer-02.safetensors": OLD.layers[1],
        f"tokenizer/{folder}/tokenizer.json": OLD.tokenizer["tokenizer.json"],
        "tasks/intent.safetensors": digest("intent"),
    }


@pytest.mark.parametrize("version", ["2.0", "0.1"])
def test_other_major_version_is_refused_with_both_versions_named(version: str) -> None:
    fields = json.loads(release({"a": (0, 0)}).to_bytes()) | {"format_version": version}

    with pytest.raises(UnsupportedFormatError, match=rf"centra/release {version}.*release 1\.x"):
        ReleaseManifest.from_bytes(canonical_json(fields), "release.json")


def test_newer_minor_version_keeps_its_digest() -> None:
    fields = json.loads(release({"a": (0, 0)}).to_bytes())
    data = canonical_json(fields | {"format_version": "1.3", "mood": "sunny"})

    read = ReleaseManifest.from_bytes(data, "release.json")

    assert read.to_bytes() == data


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"7", b'"x"', b"\xff\xfe\xfd", b"[" * 100_000, b'{"format": "other"}'],
    ids=["empty", "cut", "list", "number", "string", "bytes", "deep", "other"],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"release\.json"):
        ReleaseManifest.from_bytes(data, "release.json")


@pytest.mark.parametrize("name", ["../evil", "a/b", "/etc/passwd", "..", "", "UPPER", "a b"])
def test_task_name_that_could_leave_its_folder_is_refused(name: str) -> None:
    """A manifest may come from a store that others write to."""
    fields = json.loads(release({"a": (0, 0)}).to_bytes())
    fields["tasks"] = {name: fields["tasks"]["a"]}

    with pytest.raises(FormatError, match="task"):
        ReleaseManifest.from_bytes(canonical_json(fields), "release.json")


@pytest.mark.parametrize("name", ["../evil", "a/b.json", "/etc/passwd", ".."])
def test_tokenizer_file_that_could_leave_its_folder_is_refused(name: str) -> None:
    fields = json.loads(release({"a": (0, 0)}).to_bytes())
    fields["trunks"][0]["tokenizer"][name] = digest("x")

    with pytest.raises(FormatError, match="tokenizer"):
        ReleaseManifest.from_bytes(canonical_json(fields), "release.json")


def test_changes_from_one_release_to_the_next() -> None:
    spec = support.make_spec(OLD.digest)

    def built(**tasks: tuple[str, object]) -> ReleaseManifest:
        modules = {name: (digest(file), other) for name, (file, other) in tasks.items()}
        return ReleaseManifest.build(modules, BACKBONES)

    base = built(same=("s", spec), better=("b1", spec), other=("o1", spec), gone=("g", spec))
    relabelled = support.make_spec(OLD.digest, labels=["yes", "no"])
    new = built(same=("s", spec), better=("b2", spec), other=("o2", relabelled), fresh=("f", spec))

    assert [(c.task, c.change) for c in changes(base.tasks, new.tasks)] == [
        ("better", "updated"),
        ("fresh", "added"),
        ("gone", "removed"),
        ("other", "redefined"),
    ]
    assert changes(base.tasks, base.tasks) == []
    faster = base.with_precisions({"better": "int8"})
    assert [(c.task, c.change) for c in changes(base.tasks, faster.tasks)] == [
        ("better", "updated")
    ]
    assert {c.change for c in changes({}, new.tasks)} == {"added"}


def test_channel_pointer_reads_back() -> None:
    pointer = ChannelPointer(
        name="production",
        revision=3,
        release=7,
        manifest=digest("m"),
        versions={"intent": VersionNumber(2, 1)},
    )

    assert ChannelPointer.from_bytes(pointer.to_bytes(), "x").model_dump() == pointer.model_dump()
