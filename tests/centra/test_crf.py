"""The CRF of tagging heads: against enumeration, in training, in a module, and in a release."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from centra.data.inputs import Example, Input, read_examples
from centra.data.tags import tagged_spans
from centra.errors import FormatError
from centra.formats.task_module import HeadSpec, TaskModule, TaskSpec, check_fits, check_module
from centra.kinds import kind_named
from centra.kinds.chain import Chain
from centra.kinds.tagging import IGNORED
from centra.modeling.crf import LinearChain
from centra.modeling.words import gather_words
from centra.releases.evaluation import measure
from centra.runtime import Release
from centra.runtime.engines import ENGINES
from centra.tokenization.text_encoder import Row, TextEncoder
from centra.training.metrics import dev_metrics
from centra.training.task_data import Split
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from centra.store import LocalStore

TAGS = ("O", "B-city", "I-city", "B-day", "I-day")
FREE = ("O", "B-a", "B-b", "B-c")
"""Labels of which each may follow each."""
CRF = HeadSpec(crf=True)

sizes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 1000))
"""Words, labels, seed."""


def random_chain(labels: int, seed: int) -> LinearChain:
    generator = torch.Generator().manual_seed(seed)
    chain = LinearChain(labels)
    for parameter in chain.parameters():
        parameter.data = 2 * torch.randn(parameter.shape, generator=generator)
    return chain


def random_emissions(*shape: int, seed: int) -> torch.Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1))


def enumerated(
    chain: LinearChain, emissions: np.ndarray, tags: Sequence[str] | None = None
) -> dict[tuple[int, ...], float]:
    """The probability of every sequence; with tags, of those alone that BIO allows."""
    start, end, transitions = (
        value.detach().numpy().astype(np.float64)
        for value in (chain.start, chain.end, chain.transitions)
    )
    words, labels = emissions.shape
    scores = {}
    for path in itertools.product(range(labels), repeat=words):
        if tags is not None and not is_bio([tags[i] for i in path]):
            continue
        steps = sum(transitions[a, b] for a, b in itertools.pairwise(path))
        own = sum(float(emissions[i, tag]) for i, tag in enumerate(path))
        scores[path] = np.exp(start[path[0]] + end[path[-1]] + steps + own)
    total = sum(scores.values())
    return {path: score / total for path, score in scores.items()}


def is_bio(tags: Sequence[str]) -> bool:
    return all(
        tag[:2] != "I-" or before[1:] == tag[1:] for before, tag in itertools.pairwise(["O", *tags])
    )


def marginals_of(paths: dict[tuple[int, ...], float], words: int, labels: int) -> np.ndarray:
    found = np.zeros((words, labels))
    for path, probability in paths.items():
        found[range(words), path] += probability
    return found


# What is learnt


@given(size=sizes)
def test_likelihood_is_that_of_enumeration(size: tuple[int, int, int]) -> None:
    words, labels, seed = size
    chain, emissions = random_chain(labels, seed), random_emissions(1, words, labels, seed=seed)
    paths = enumerated(chain, emissions[0].numpy())
    tags = torch.tensor([*paths])
    many = emissions.expand(len(paths), -1, -1)

    found = chain.log_likelihood(many, tags, torch.ones_like(tags, dtype=torch.bool))

    assert found.exp().tolist() == pytest.approx([*paths.values()], abs=1e-5)


@given(size=sizes, temperature=st.sampled_from([0.5, 1.0, 3.0]))
def test_marginals_are_those_of_enumeration(size: tuple[int, int, int], temperature: float) -> None:
    words, labels, seed = size
    chain, emissions = random_chain(labels, seed), random_emissions(1, words, labels, seed=seed)
    mask = torch.ones(1, words, dtype=torch.bool)

    found = chain.log_marginals(emissions, mask, temperature)[0].exp().detach().numpy()

    for parameter in chain.parameters():
        parameter.data /= temperature
    paths = enumerated(chain, emissions[0].numpy() / temperature)
    assert np.allclose(found, marginals_of(paths, words, labels), atol=1e-5)


def test_zero_chain_leaves_words_independent() -> None:
    chain, emissions = LinearChain(3), random_emissions(2, 5, 3, seed=0)
    mask = torch.ones(2, 5, dtype=torch.bool)

    found = chain.log_marginals(emissions, mask)

    assert torch.allclose(found, emissions.log_softmax(dim=2), atol=1e-6)


def test_gradient_of_the_likelihood_is_what_was_seen_less_what_is_expected() -> None:
    chain, emissions = random_chain(3, 1), random_emissions(2, 4, 3, seed=1).requires_grad_()
    tags, mask = (
        torch.tensor([[0, 2, 1, 1], [2, 0, 0, 0]]),
        torch.tensor([[True] * 4, [True] + 3 * [False]]),
    )

    chain.log_likelihood(emissions, tags, mask).sum().backward()

    seen = torch.nn.functional.one_hot(tags, 3) * mask[..., None]
    expected = chain.log_marginals(emissions, mask).exp() * mask[..., None]
    assert emissions.grad is not None
    assert torch.allclose(emissions.grad, seen - expected, atol=1e-5)
    assert all(p.grad is not None and p.grad.abs().max() > 0.01 for p in chain.parameters())


def test_marginals_can_be_learnt_from() -> None:
    chain = random_chain(3, 2).double()
    emissions = random_emissions(2, 3, 3, seed=2).double().requires_grad_()
    mask = torch.tensor([[True, True, True], [True, True, False]])

    def marginals(emissions: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return chain.log_marginals(emissions, mask, 2.0)

    assert torch.autograd.gradcheck(marginals, (emissions, *chain.parameters()))


@pytest.mark.parametrize("junk", [0.0, 7.5, -1e30])
def test_padding_changes_nothing(junk: float) -> None:
    chain, emissions = random_chain(4, 3), random_emissions(3, 6, 4, seed=3)
    tags = torch.tensor([[1, 2, 3, 0, 1, 2], [3, 3, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0]])
    lengths = [6, 2, 1]
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    padded = emissions.where(mask[..., None], junk).requires_grad_()

    likelihood = chain.log_likelihood(padded, tags.where(mask, IGNORED), mask)
    marginals = chain.log_marginals(padded, mask)

    for i, length in enumerate(lengths):
        alone, full = emissions[i : i + 1, :length], mask[i : i + 1, :length]
        assert torch.allclose(
            likelihood[i], chain.log_likelihood(alone, tags[i : i + 1, :length], full)[0]
        )
        assert torch.allclose(marginals[i, :length], chain.log_marginals(alone, full)[0], atol=1e-6)
        assert not marginals[i, length:].any()
    (likelihood.sum() + marginals.sum()).backward()
    assert padded.grad is not None
    assert not padded.grad[~mask].any()
    assert padded.grad.isfinite().all()


def test_sentence_without_words_weighs_nothing() -> None:
    chain, emissions = random_chain(3, 4), random_emissions(2, 2, 3, seed=4)
    tags, mask = torch.tensor([[1, 2], [0, 0]]), torch.tensor([[True, True], [False, False]])

    found = chain.log_likelihood(emissions, tags, mask)

    assert found[0] < 0
    assert found[1] == 0
    assert not chain.log_marginals(emissions, mask)[1].any()
    found[1].backward()
    assert not any(p.grad.any() for p in chain.parameters() if p.grad is not None)


def test_float32_is_enough_for_long_sentences_and_large_logits() -> None:
    chain, emissions = random_chain(9, 5), 15 * random_emissions(2, 500, 9, seed=5)
    tags, mask = emissions.argmax(dim=2), torch.ones(2, 500, dtype=torch.bool)

    likelihood, marginals = (
        chain.log_likelihood(emissions, tags, mask),
        chain.log_marginals(emissions, mask).exp(),
    )

    chain = chain.double()
    exact = chain.log_likelihood(emissions.double(), tags, mask)
    assert torch.allclose(likelihood.double(), exact, rtol=1e-5)
    assert torch.allclose(
        marginals.double(), chain.log_marginals(emissions.double(), mask).exp(), atol=1e-5
    )


# Training targets


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    targets = torch.full((3, 6), IGNORED)
    targets[0, [1, 3, 4]] = torch.tensor([1, 2, 0])
    targets[2, 5] = 3
    return random_emissions(3, 6, 5, seed=6), targets


def test_words_are_the_tokens_with_a_target() -> None:
    logits, targets = batch()

    emissions, tags, mask = gather_words(logits, targets, targets != IGNORED)

    assert emissions.shape == (3, 3, 5)
    assert mask.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    assert tags.tolist() == [[1, 2, 0], [0, 0, 0], [3, 0, 0]]
    assert torch.equal(emissions[0], logits[0, [1, 3, 4]])
    assert torch.equal(emissions[2, 0], logits[2, 5])
    assert not emissions[~mask].any()


def test_batch_without_words_has_no_loss() -> None:
    logits, _ = batch()
    targets = torch.full((3, 6), IGNORED)
    spec = support.make_spec("0" * 64, "tagging", labels=TAGS, head=CRF)

    emissions, _, mask = gather_words(logits, targets, targets != IGNORED)

    assert emissions.shape == (3, 1, 5)
    assert not mask.any()
    assert kind_named(spec.kind).loss(logits, targets, LinearChain(5)) == 0


def test_loss_of_a_zero_chain_is_the_cross_entropy() -> None:
    logits, targets = batch()
    spec = support.make_spec("0" * 64, "tagging", labels=TAGS, head=CRF)

    plain, crf = (
        kind_named(spec.kind).loss(logits, targets),
        kind_named(spec.kind).loss(logits.half(), targets, LinearChain(5)),
    )

    assert crf.dtype == torch.float32
    assert crf.item() == pytest.approx(plain.item(), abs=1e-3)


def test_chain_learns_what_single_words_do_not_show() -> None:
    """Every second word is a city, and the logits say nothing at all."""
    spec = support.make_spec("0" * 64, "tagging", labels=TAGS, head=CRF)
    logits, targets = torch.zeros(4, 6, 5), torch.tensor([[0, 1] * 3] * 4)
    chain = LinearChain(5)
    optimizer = torch.optim.SGD(chain.parameters(), lr=1.0)
    before = kind_named(spec.kind).loss(logits, targets, chain).item()

    for _ in range(30):
        optimizer.zero_grad()
        kind_named(spec.kind).loss(logits, targets, chain).backward()
        optimizer.step()

    assert kind_named(spec.kind).loss(logits, targets, chain).item() < before / 4
    words = Input("a b c d e f", None, tuple("abcdef"))
    row = Row([0] * 6, [0] * 6, words.token_spans)
    dev = Split([row], [], [Example(words, ("O", "B-city") * 3, "dev.jsonl:1")])
    assert dev_metrics(spec, logits.numpy()[:1], dev, chain.numpy(TAGS)) == {"entity_f1": 1.0}
    assert dev_metrics(spec, logits.numpy()[:1], dev) == {"entity_f1": 0.0}


def test_data_that_breaks_bio_still_has_a_finite_loss() -> None:
    spec = support.make_spec("0" * 64, "tagging", labels=TAGS, head=CRF)

    found = kind_named(spec.kind).loss(torch.zeros(1, 2, 5), torch.tensor([[2, 4]]), LinearChain(5))

    assert found.item() == pytest.approx(np.log(5))


# Decoding


@given(size=sizes)
def test_best_tags_are_those_of_enumeration(size: tuple[int, int, int]) -> None:
    words, labels, seed = size
    chain, emissions = random_chain(labels, seed), random_emissions(words, labels, seed=seed)
    paths = enumerated(chain, emissions.numpy())

    found = chain.numpy(FREE[:labels]).best(emissions.numpy())

    assert paths[tuple(found)] == pytest.approx(max(paths.values()))


@given(words=st.integers(1, 4), seed=st.integers(0, 1000))
def test_decoding_is_over_the_sequences_that_bio_allows(words: int, seed: int) -> None:
    chain, emissions = random_chain(5, seed), random_emissions(words, 5, seed=seed).numpy()
    paths = enumerated(chain, emissions, TAGS)

    bio = chain.numpy(TAGS)
    best = bio.best(emissions)

    assert is_bio([TAGS[i] for i in best])
    assert paths[tuple(best)] == pytest.approx(max(paths.values()))
    assert np.allclose(bio.marginals(emissions), marginals_of(paths, words, 5), atol=1e-6)


@given(size=sizes)
def test_marginals_in_numpy_are_torch_s(size: tuple[int, int, int]) -> None:
    words, labels, seed = size
    chain, emissions = random_chain(labels, seed), random_emissions(1, words, labels, seed=seed)
    mask = torch.ones(1, words, dtype=torch.bool)

    found = chain.numpy(FREE[:labels]).marginals(emissions[0].numpy())

    theirs = chain.log_marginals(emissions, mask)[0].exp().detach().numpy()
    assert np.allclose(found, theirs, atol=1e-6)
    assert np.allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("size", [1e38, -1e38])
def test_huge_scores_do_not_overflow(size: float) -> None:
    chain = Chain.bio(TAGS, start=np.zeros(5), end=np.zeros(5), transitions=np.full((5, 5), -size))
    emissions = np.full((4, 5), size, dtype=np.float32)

    assert is_bio([TAGS[i] for i in chain.best(emissions)])
    assert np.allclose(chain.marginals(emissions).sum(axis=1), 1)


def test_inside_tag_without_its_begin_tag_may_begin() -> None:
    chain = LinearChain(2).numpy(("O", "I-city"))

    assert chain.best(np.array([[0, 1], [1, 0], [0, 1]])).tolist() == [1, 0, 1]


def test_sentence_without_words_has_no_tags() -> None:
    chain = LinearChain(5).numpy(TAGS)

    assert chain.best(np.zeros((0, 5), dtype=np.float32)).shape == (0,)
    assert chain.marginals(np.zeros((0, 5), dtype=np.float32)).shape == (0, 5)


def test_what_was_learnt_is_left_as_it_is() -> None:
    chain = random_chain(5, 7)
    before = {name: value.clone() for name, value in chain.state_dict().items()}

    chain.numpy(TAGS)

    assert all(torch.equal(value, before[name]) for name, value in chain.state_dict().items())


# Answers


def answer(
    words: Sequence[Sequence[float]], chain: Chain | None, *, cut: int = 0, labels: Any = TAGS
) -> list[dict[str, Any]]:
    """Decode one-letter words with these logits, the last few cut off."""
    item = Input.parse({"tokens": ["x"] * len(words)})
    kept = len(words) - cut
    row = Row(
        [2, *[7] * kept, 3],
        [0] * (kept + 2),
        [(0, 0), *[(2 * i, 2 * i + 1) for i in range(kept)], (0, 0)],
    )
    junk = [9.0 if label == "B-day" else 0.0 for label in labels]
    logits = np.array([[junk, *words[:kept], junk]], dtype=np.float32)
    spec = support.make_spec("0" * 64, "tagging", labels=labels, head=CRF)
    (found,) = kind_named(spec.kind).decode(spec, logits, [item], [row], chain)
    spans: list[dict[str, Any]] = found["spans"]
    return spans


def test_illegal_tag_gives_way_to_the_best_sequence() -> None:
    """By themselves the words say I-city, I-day."""
    words = [[0, 1, 2, 0, 0], [0, 0, 1.5, 0, 2]]
    plain, crf = answer(words, None), answer(words, LinearChain(5).numpy(TAGS))

    assert [(s["label"], s["words"]) for s in plain] == [("city", [0, 1]), ("day", [1, 2])]
    assert [(s["label"], s["words"]) for s in crf] == [("city", [0, 2])]


def test_score_of_a_span_is_the_mean_marginal_of_its_tags() -> None:
    words = random_emissions(4, 5, seed=11).numpy()
    words[1, 1] = words[2, 2] = 8
    chain = random_chain(5, 8)
    paths = marginals_of(enumerated(chain, words, TAGS), 4, 5)

    spans = answer(words.tolist(), chain.numpy(TAGS))

    (span,) = [s for s in spans if s["label"] == "city" and s["words"][0] == 1]
    assert span["words"] == [1, 4]
    expected = (paths[1, 1] + paths[2, 2] + paths[3, 2]) / 3
    assert 0.3 < expected < 0.99
    assert span["score"] == pytest.approx(expected, abs=1e-6)
    assert type(span["score"]) is float


def test_zero_chain_over_free_labels_answers_as_no_chain_does() -> None:
    words = random_emissions(12, 4, seed=9).tolist()

    crf = answer(words, LinearChain(4).numpy(FREE), labels=FREE)
    plain = answer(words, None, labels=FREE)

    assert len(plain) > 3
    assert [s | {"score": 0} for s in crf] == [s | {"score": 0} for s in plain]
    assert [s["score"] for s in crf] == pytest.approx([s["score"] for s in plain], abs=1e-6)


def test_words_cut_off_are_outside_the_chain() -> None:
    """Their ``end`` score is that of the last word that is left."""
    chain = LinearChain(5)
    chain.end.data[1] = 5
    words = [[1.0, 0, 0, 0, 0]] * 4

    whole, cut = answer(words, chain.numpy(TAGS)), answer(words, chain.numpy(TAGS), cut=2)

    assert [s["words"] for s in whole] == [[3, 4]]
    assert [s["words"] for s in cut] == [[1, 2]]
    assert answer(words, chain.numpy(TAGS), cut=4) == []


def test_words_that_share_a_token_are_one_in_the_chain() -> None:
    """Training sees one word there too. Two could not both be the begin of a city here."""
    chain = LinearChain(5)
    chain.transitions.data[1, 1] = -50
    item, row = Input("!!"), Row([2, 7, 3], [0] * 3, [(0, 0), (0, 2), (0, 0)])
    logits = np.zeros((1, 3, 5), dtype=np.float32)
    logits[0, 1, 1] = 4
    spec = support.make_spec("0" * 64, "tagging", labels=TAGS, head=CRF)

    (found,) = kind_named(spec.kind).decode(spec, logits, [item], [row], chain.numpy(TAGS))

    assert [(s["label"], s["words"], s["text"]) for s in found["spans"]] == [("city", [0, 2], "!!")]


# Modules


@pytest.fixture
def module(make_module: Callable[..., TaskModule]) -> TaskModule:
    return make_module("tagging", labels=TAGS, head=CRF)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "task.safetensors"


def test_module_with_a_crf_reads_back(
    module: TaskModule, path: Path, tiny_backbone: support.Backbone
) -> None:
    module.write(path)
    read = TaskModule.read(path)
    check_fits(check_module(path), tiny_backbone.spec, "tiny@1")

    assert read.spec.head == CRF
    assert read.to_bytes() == module.to_bytes()
    shapes = {n: tuple(t.shape) for n, t in read.weights.items() if n.startswith("head.crf.")}
    assert shapes == {
        "head.crf.start": (5,),
        "head.crf.end": (5,),
        "head.crf.transitions": (5, 5),
    }


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression", "tagging"])
def test_module_without_a_crf_is_written_as_before_there_was_one(
    kind: str, make_module: Callable[..., TaskModule], path: Path
) -> None:
    make_module(kind).write(path)

    head = json.loads(check_module(path).spec.to_bytes())["head"]

    activation = None if kind == "tagging" else "tanh"
    assert head == {"activation": activation, "threshold": 0.5}


def test_digest_of_a_spec_without_a_crf_is_that_from_before_there_was_one() -> None:
    spec = support.make_spec("0" * 64, "tagging")

    assert spec.digest == "c95cfa3f6c59e9b8958fec1914cbc3a8fd75154065a8837fc0af31c72209e880"
    assert support.make_spec("0" * 64, "tagging", head=CRF).digest != spec.digest


def test_head_field_that_a_reader_does_not_know_is_refused_by_name() -> None:
    """So a Centra without CRFs refuses ``head.crf``: the format's version stayed the same."""
    fields = json.loads(support.make_spec("0" * 64, "tagging", head=CRF).to_bytes())
    assert fields["format_version"] == "1.0"
    assert fields["head"].pop("crf") is True
    fields["head"]["semi_crf"] = True

    with pytest.raises(FormatError, match=r"head\.semi_crf"):
        TaskSpec.from_bytes(json.dumps(fields).encode(), "spec")


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_crf_is_for_tagging_alone(kind: str) -> None:
    spec = support.make_spec("0" * 64, kind, head=HeadSpec(activation="tanh", crf=True))

    with pytest.raises(FormatError, match=rf"head\.crf is for tagging tasks.* {kind} task"):
        spec.check("spec")


@pytest.mark.parametrize("name", ["start", "end", "transitions"])
@pytest.mark.parametrize("tensor", [None, torch.zeros(4), torch.zeros(5, 4), torch.zeros(())])
def test_missing_or_misshapen_tensor_is_refused_by_name(
    name: str, tensor: torch.Tensor | None, module: TaskModule, path: Path
) -> None:
    tensors = module.tensors | {f"head.crf.{name}": tensor}
    TaskModule(module.spec, {n: t for n, t in tensors.items() if t is not None}).write(path)

    with pytest.raises(FormatError, match=rf"head\.crf\.{name} is (missing|\(.*expected \(5,)"):
        check_module(path)


def test_tensors_of_a_crf_that_the_spec_does_not_name_are_refused(
    module: TaskModule, path: Path
) -> None:
    spec = module.spec.model_copy(update={"head": HeadSpec()})
    TaskModule(spec, module.tensors).write(path)

    with pytest.raises(FormatError, match=r"head\.crf\.\w+ is no part of a task module"):
        check_module(path)


# Releases


TEXTS = [
    "fly from paris to new york on monday",
    "go",
    {"tokens": ["we", "fly", "to", "rome"]},
    "to hong kong " * 40,
]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def release(
    module: TaskModule, tiny_backbone: support.Backbone, backbone_store: LocalStore, engine: str
) -> Release:
    # Loud enough that the chain decides some tags.
    for name in ("start", "end", "transitions"):
        module.tensors[f"head.crf.{name}"].mul_(20)
    plain = TaskModule(
        module.spec.model_copy(update={"head": HeadSpec()}),
        {n: t for n, t in module.tensors.items() if not n.startswith("head.crf.")},
    )
    modules = {"slots": module, "plain": plain}
    manifest = support.put_release(modules, [tiny_backbone.spec], backbone_store)
    return Release.load(manifest, backbone_store, engine=engine, device="cpu")


def test_release_decodes_with_the_module_s_own_chain(
    release: Release, module: TaskModule, tiny_backbone: support.Backbone
) -> None:
    chain = LinearChain(5)
    chain.load_state_dict(
        {name: module.tensors[f"head.crf.{name}"] for name in ("start", "end", "transitions")}
    )
    text = "fly to rome monday"
    item = Input(text)
    (row,) = TextEncoder.of(tiny_backbone.spec, tiny_backbone.store).encode([item])
    (logits,) = release.logits([text])["slots"]
    paths = enumerated(chain, logits[row.first_tokens(item.words())], TAGS)
    best = max(paths, key=lambda path: paths[path])

    spans = release.predict([text])[0]["slots"]["spans"]

    assert spans
    assert [(s["label"], *s["words"]) for s in spans] == tagged_spans([TAGS[i] for i in best])


def test_chain_changes_answers_but_no_logits(release: Release, engine: str) -> None:
    logits, answers = release.logits(TEXTS), release.predict(TEXTS)

    assert all(map(np.array_equal, logits["slots"], logits["plain"]))
    assert [a["slots"] for a in answers] != [a["plain"] for a in answers]
    own, recorded = release.probe_logits("slots")
    assert np.allclose(own, recorded, rtol=0, atol=0 if engine == "torch" else 1e-5)
    assert all(0 <= s["score"] <= 1 for a in answers for s in a["slots"]["spans"])


def test_answer_does_not_depend_on_the_other_inputs(release: Release) -> None:
    together = release.predict(TEXTS, ["slots"])

    for text, answer in zip(TEXTS, together, strict=True):
        (alone,) = release.predict([text], ["slots"])
        for one, other in zip(alone["slots"]["spans"], answer["slots"]["spans"], strict=True):
            assert one == other | {"score": pytest.approx(other["score"], abs=1e-5)}


def test_measuring_a_release_decodes_as_the_dev_metrics_do(
    release: Release,
    module: TaskModule,
    tiny_backbone: support.Backbone,
    tiny_data: Callable[[str], Path],
) -> None:
    examples = read_examples(tiny_data("tagging") / "dev.jsonl")
    encoder = TextEncoder.of(tiny_backbone.spec, tiny_backbone.store)
    rows = encoder.encode(example.input for example in examples)
    logits = np.zeros((len(rows), max(len(row.input_ids) for row in rows), 5))
    for place, own in zip(
        logits, release.logits([e.input for e in examples])["slots"], strict=True
    ):
        place[: len(own)] = own
    chain = LinearChain(5)
    chain.load_state_dict(
        {name: module.tensors[f"head.crf.{name}"] for name in ("start", "end", "transitions")}
    )

    found = measure(release, "slots", examples).metrics

    dev = Split(rows, [], examples)
    assert found == dev_metrics(module.spec, logits, dev, chain.numpy(TAGS))
    assert 0 < found["entity_f1"] < 1
