"""A release as MLflow's generic model: what its own server and ``mlflow.pyfunc.load_model`` load.

MLflow finds it by its name in the ``MLmodel`` file, so module and function keep theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.runtime.loading import load_release

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["COLUMNS", "PARAMETERS", "ReleaseModel"]

COLUMNS = ("text", "text_pair")
"""The columns that are read."""
PARAMETERS = ("tasks", "top_k")
"""What can be said beside the rows; see :meth:`centra.runtime.Release.predict`."""


class ReleaseModel:
    """A release that answers MLflow's rows."""

    def __init__(self, folder: str) -> None:
        """Load it with the onnx engine.

        Raises:
            CentraError: as :func:`centra.load_release`.
        """
        self.release = load_release(folder, engine="onnx")

    def predict(
        self, model_input: Any, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Answer rows.

        Args:
            model_input: a pandas DataFrame with the column ``text`` and, for tasks that take pairs,
                ``text_pair``; or texts, or objects with these keys.
            params: ``tasks``, by default or empty every task that takes such a row, and ``top_k``.

        Returns:
            Per row an object from task name to answer.

        Raises:
            DataError, NotFoundError, UsageError: as :meth:`centra.runtime.Release.predict`.
        """
        params = params or {}
        tasks = [str(task) for task in params.get("tasks") or ()]
        top_k = params.get("top_k") or None
        rows = [*_rows(model_input)]
        return self.release.predict(rows, tasks or None, top_k=top_k and int(top_k))


def _rows(model_input: Any) -> Iterable[object]:
    if isinstance(model_input, str):
        return [model_input]
    if not hasattr(model_input, "to_dict"):
        return list(model_input)
    table = model_input[[name for name in COLUMNS if name in model_input]]
    # A missing text is None or NaN, which is not itself.
    return [
        {name: value for name, value in row.items() if value is not None and value == value}  # noqa: PLR0124
        for row in table.to_dict(orient="records")
    ]


def _load_pyfunc(path: str) -> ReleaseModel:
    return ReleaseModel(path)
