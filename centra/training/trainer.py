"""The loop itself: Hugging Face's ``Trainer``, with what Centra adds to it.

Mixed precision and reports to TensorBoard, MLflow or Weights & Biases come from it. A run has one GPU.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from centra.training.metrics import dev_metrics
from centra.training.network import collator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from centra.modeling.branch import Branch
    from centra.progress import Progress
    from centra.training.history import History
    from centra.training.network import Network, TrainingSet
    from centra.training.recipe import Recipe
    from centra.training.work_folder import WorkFolder

__all__ = ["make_trainer", "transformers_silenced"]

_CHAIN_RATE = 50


def make_trainer(
    network: Network,
    training: TrainingSet,
    dev: TrainingSet,
    recipe: Recipe,
    *,
    metric: str,
    pad_token_id: int,
    folder: WorkFolder,
    read_log: Callable[[Sequence[dict[str, Any]]], History],
    until: int,
    reporters: Sequence[str],
    progress: Progress,
    saved: Callable[[], None] | None = None,
) -> Trainer:
    """A trainer that keeps each epoch's checkpoint and can pause after any.

    Args:
        network: what learns.
        training: the examples that it learns from.
        dev: those that each epoch is measured on.
        recipe: the settings.
        metric: the dev metric to select by.
        pad_token_id: the backbone's.
        folder: gets the checkpoints.
        read_log: makes of Trainer's log what is known of the run.
        until: the epoch to pause after.
        reporters: of :data:`centra.training.recipe.REPORTERS`. TensorBoard's files go to ``runs``
            beside the folder.
        progress: told of each step, and of the dev metric after each epoch.
        saved: called when a checkpoint is written.
    """
    spec, branch = network.spec, network.branch
    cuda = torch.cuda.is_available()
    bf16 = cuda and torch.cuda.is_bf16_supported()
    steps = -(-len(training) // recipe.batch_size) * recipe.epochs
    arguments = TrainingArguments(
        output_dir=str(folder.path),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=2 * recipe.batch_size,
        learning_rate=recipe.learning_rate,
        warmup_steps=round(recipe.warmup * steps),
        weight_decay=recipe.weight_decay,
        seed=recipe.seed,
        bf16=bf16,
        fp16=cuda and not bf16,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        greater_is_better=True,
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        # Examples of similar length come together, so their order is another than the set's.
        label_names=["labels", "index"],
        dataloader_pin_memory=cuda,
        disable_tqdm=True,
        report_to=[name for name in reporters if name != "tensorboard"],
        run_name=folder.run_name,
    )
    # All that are visible would each take a batch: the result would be another on each machine.
    arguments._n_gpu = min(arguments.n_gpu, 1)  # noqa: SLF001 - there is no other way to say it
    trainer = Trainer(
        model=network,
        args=arguments,
        train_dataset=training,
        eval_dataset=dev,
        data_collator=collator(spec, pad_token_id),
        compute_metrics=lambda output: dev_metrics(
            spec,
            output.predictions[output.label_ids[1].argsort()],
            dev.split,
            None if branch.chain is None else branch.chain.numpy(spec.labels),
        ),
        optimizers=(_optimizer(branch, recipe), None),
        callbacks=[
            _Stop(read_log, until),
            _Report(progress, metric),
            *([_Saved(saved)] if saved else []),
            *(_tensorboard(folder) if "tensorboard" in reporters else []),
        ],
    )
    # It would print to standard output, which belongs to results.
    trainer.remove_callback(PrinterCallback)
    return trainer


@contextmanager
def transformers_silenced() -> Iterator[None]:
    """Keep transformers' own log lines out; its errors come as exceptions."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _tensorboard(folder: WorkFolder) -> list[TrainerCallback]:
    """Trainer's own callback, writing beside the work folder, which goes when all is done."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return [TensorBoardCallback(SummaryWriter(str(folder.path.parent / "runs" / folder.run_name)))]


def _optimizer(branch: Branch, recipe: Recipe) -> torch.optim.AdamW | None:
    """For a head with a CRF; None leaves the choice to Trainer.

    A chain begins at zero and its scores must come to the size of logits, which AdamW, whose steps
    are of the size of the learning rate, would not reach with the layers' rate.
    """
    if branch.chain is None:
        return None
    chain = [*branch.chain.parameters()]
    own = {id(parameter) for parameter in chain}
    others = [parameter for parameter in branch.parameters() if id(parameter) not in own]
    return torch.optim.AdamW(
        [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
            {"params": chain, "weight_decay": 0.0, "lr": _CHAIN_RATE * recipe.learning_rate},
        ],
        lr=recipe.learning_rate,
    )


class _Stop(TrainerCallback):  # type: ignore[misc]
    """Stops where the run is to pause or is finished; the epoch's checkpoint comes first.

    Trainer's own early stopping forgets over a pause how long there was no better epoch.
    """

    def __init__(self, history: Callable[[Sequence[dict[str, Any]]], History], until: int) -> None:
        self._history = history
        self._until = until

    def on_evaluate(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        history = self._history(state.log_history)
        if history.finished or len(history.epochs) >= self._until:
            control.should_training_stop = True


class _Saved(TrainerCallback):  # type: ignore[misc]
    """Calls a function when a checkpoint is written."""

    def __init__(self, saved: Callable[[], None]) -> None:
        self._saved = saved

    def on_save(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        self._saved()


class _Report(TrainerCallback):  # type: ignore[misc]
    """Trainer's events as calls of a :data:`centra.progress.Progress`."""

    def __init__(self, progress: Progress, metric: str) -> None:
        self._progress = progress
        self._metric = metric
        self._best = ""

    def on_step_end(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        epoch = -(-state.global_step * args.num_train_epochs // state.max_steps)
        what = f"epoch {epoch:.0f}/{args.num_train_epochs:.0f}{self._best}"
        self._progress(what, state.global_step, state.max_steps)

    def on_evaluate(self, _args: Any, _state: Any, _control: Any, metrics: Any, **_: Any) -> None:
        self._best = f" · dev {self._metric} {metrics[f'eval_{self._metric}']:.4f}"

    def on_train_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        best = state.best_metric or 0.0
        self._progress(
            f"trained, best dev {self._metric} {best:.4f}", state.max_steps, state.max_steps
        )
