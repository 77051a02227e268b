"""What is ALBERT's own: layers that are one set of weights, and modules that have copies of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers

from centra.checkpoints.backbone import import_backbone
from centra.data.inputs import Input
from centra.errors import FormatError, IncompatibleError
from centra.families.albert import ALBERT
from centra.modeling.branch import Branch
from centra.modeling.trunk import Trunk
from centra.releases.transformers_files import transformers_files
from centra.runtime.onnx.engine import OnnxEngine
from centra.runtime.torch.batched_engine import BatchedEngine
from centra.runtime.torch.engine import TorchEngine
from centra.store import LocalStore
from centra.tokenization.text_encoder import TextEncoder
from centra.training.recipe import Recipe
from centra.training.train import train_module
from tests import support
from tests.centra.checkpoints import (
    SENTENCE,
    TOKEN,
    configure,
    converted,
    copied,
    fine_tune,
    rewrite,
)
from tests.centra.states import PAIRS, assert_same_states, batch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LAYERS = 4


@pytest.fixture(scope="module")
def one(
    make_encoder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> support.Backbone:
    """As the published ones: one set of weights for all layers, and a tokenizer without token types."""
    folder, store = tmp_path_factory.mktemp("albert"), LocalStore(tmp_path_factory.mktemp("store"))
    config = transformers.AutoConfig.from_pretrained(make_encoder("albert"))
    config.num_hidden_layers, config.num_hidden_groups = LAYERS, 1
    torch.manual_seed(0)
    model = transformers.AutoModelForPreTraining.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    support.TOKENIZERS["albert"][0]().save_pretrained(folder)
    return support.Backbone(import_backbone(str(folder), store), store, folder)


def test_the_layers_are_one_blob(one: support.Backbone) -> None:
    assert len(one.spec.layers) == LAYERS
    assert len({*one.spec.layers}) == 1
    assert one.spec.weights().keys() == {one.spec.embeddings, one.spec.layers[0]}
    assert_same_states(one, batch(one, PAIRS))


def test_its_tokenizer_gives_no_token_types_unless_its_config_says_so(
    one: support.Backbone, imported: Callable[[str], support.Backbone]
) -> None:
    """As transformers' class, from its version 5 on."""
    pair = Input("go", "no never")

    (row,) = TextEncoder.of(one.spec, one.store).encode([pair])
    told = imported("albert")
    (typed,) = TextEncoder.of(told.spec, told.store).encode([pair])

    assert (one.spec.token_types, told.spec.token_types) == (False, True)
    assert not any(row.token_type_ids)
    assert any(typed.token_type_ids)
    assert row.input_ids == typed.input_ids


@pytest.mark.parametrize(("layers", "groups"), [(12, 1), (12, 2), (12, 5), (7, 3), (5, 5)])
def test_layers_fall_into_groups_as_in_transformers(layers: int, groups: int) -> None:
    settings = {"num_hidden_layers": layers, "num_hidden_groups": groups}
    config = transformers.AlbertConfig(
        **settings,
        hidden_size=2,
        embedding_size=2,
        intermediate_size=2,
        num_attention_heads=1,
    )
    encoder = transformers.models.albert.modeling_albert.AlbertTransformer(config)
    called: list[int] = []
    for number, group in enumerate(encoder.albert_layer_groups):
        group.register_forward_hook(lambda *_, number=number: called.append(number))

    encoder(torch.zeros(1, 1, 2))

    assert [ALBERT.stored_layer(settings, n) for n in range(1, layers + 1)] == called


@pytest.mark.parametrize("kind", ["reference", "onnx", "torch", "batched"])
def test_layers_that_are_one_blob_are_one_in_memory(kind: str, one: support.Backbone) -> None:
    engines: dict[str, Callable[[], Any]] = {
        "onnx": lambda: OnnxEngine(1),
        "torch": TorchEngine,
        "batched": lambda: BatchedEngine(torch.device("cpu"), "fp32"),
    }
    if kind == "reference":
        layers = [*Trunk(one.spec, one.store, depth=LAYERS).layers]
    else:
        layers = engines[kind]().load_trunk(one.spec, one.store, depth=LAYERS)._layers

    assert len(layers) == LAYERS
    assert len({*map(id, layers)}) == 1


def test_a_module_s_layers_are_weights_of_their_own(
    one: support.Backbone, tiny_data: Callable[[str], Path], tmp_path: Path, store: LocalStore
) -> None:
    support.copy_backbone(one, store)
    branch = Branch(one.spec, support.make_spec(one.spec.digest, tap=1, depth=2))
    branch.start_from(one.spec, one.store)
    begun = [layer.state_dict() for layer in branch.layers]
    assert all(torch.equal(tensor, begun[1][name]) for name, tensor in begun[0].items())

    module = train_module(
        one.spec,
        one.store,
        tiny_data("single"),
        Recipe(tap=1, depth=2, epochs=2, learning_rate=5e-3, batch_size=8),
        work=tmp_path / "work",
    )

    first, second = (
        {
            name.removeprefix(prefix): t
            for name, t in module.tensors.items()
            if name.startswith(prefix)
        }
        for prefix in ("layers.1.", "layers.2.")
    )
    assert first.keys() == second.keys() == one.spec.layer_tensors.keys()
    assert not any(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert support.parity(module, one, store, tmp_path) <= 1e-5


# Fine-tuned checkpoints


@pytest.mark.usefixtures("few_samples")
@pytest.mark.parametrize("auto_class", [SENTENCE, TOKEN])
def test_a_fine_tuned_checkpoint_shares_the_embeddings_alone_and_says_why(
    auto_class: str, one: support.Backbone, tmp_path: Path
) -> None:
    folder = fine_tune(one.folder, tmp_path / "checkpoint", auto_class)

    module, remarks = converted(folder, one)

    assert (module.spec.tap_layer, module.spec.depth) == (0, LAYERS)
    (said,) = [text for text in remarks if "one set" in text]
    assert said == (
        "its layers 1 to 4 are one set of weights, which training changed: none of them is tiny@1's "
        "any more. It shares the embeddings alone, and a module of it has each of the 4 layers above "
        "as its own. A task that Centra trains itself has copies of the layers above its tap, and "
        "shares those below it"
    )
    with pytest.raises(
        IncompatibleError,
        match=r"No layer is frozen; declare tap 0 .* For its layers 1 to 4 are one",
    ):
        converted(folder, one, tap=2)


@pytest.mark.usefixtures("few_samples")
def test_a_checkpoint_whose_layers_were_frozen_shares_them_all_up_to_any_tap(
    one: support.Backbone, tmp_path: Path
) -> None:
    folder = fine_tune(one.folder, tmp_path / "checkpoint")
    frozen = transformers.AutoModel.from_pretrained(one.folder).encoder.state_dict()
    rewrite(folder, lambda state: state | {f"albert.encoder.{n}": t for n, t in frozen.items()})

    (module, remarks), (lower, _) = converted(folder, one), converted(folder, one, tap=1)

    assert (module.spec.tap_layer, module.spec.depth) == (LAYERS, 0)
    assert not any("one set" in text for text in remarks)
    assert (lower.spec.tap_layer, lower.spec.depth) == (1, LAYERS - 1)


# What a release folder gives transformers


def test_a_trunk_that_ends_within_a_group_may_be_no_model_of_transformers(
    imported: Callable[[str], support.Backbone], store: LocalStore
) -> None:
    """Whose groups would then be cut elsewhere."""
    spec = support.copy_backbone(imported("albert"), store)
    first, _, last = spec.layers
    longer = spec.model_copy(
        update={
            "num_layers": 5,
            "config": spec.config | {"num_hidden_layers": 5},
            "layers": (first, first, first, last, last),
        }
    )
    store.put(longer.to_bytes())

    def files(tap: int) -> set[str]:
        module = support.make_module("classification", longer, store, tap=tap, depth=0)
        return {*transformers_files(support.put_release({"task": module}, [longer], store), store)}

    assert files(3) == files(5) == {"config.json", "model.safetensors.index.json"}
    assert files(4) == set()


# What is refused


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"inner_group_num": 2}, "inner_group_num 2; expected 1: Centra knows no groups in which"),
        (
            {"num_hidden_groups": 3},
            "3 groups of layers .num_hidden_groups., but the weights have 2",
        ),
        ({"num_hidden_layers": 1}, "num_hidden_groups 2 and num_hidden_layers 1"),
        (
            {"num_hidden_layers": 10**9},
            "num_hidden_layers 1000000000; expected a whole number from 1",
        ),
    ],
)
def test_settings_that_no_tensor_bears_out_are_refused(
    settings: dict[str, int],
    says: str,
    make_encoder: Callable[[str], Path],
    tmp_path: Path,
    store: LocalStore,
) -> None:
    folder = copied(make_encoder("albert"), tmp_path / "albert")
    configure(folder, **settings)

    with pytest.raises(FormatError, match=says):
        import_backbone(str(folder), store)
