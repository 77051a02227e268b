"""MLflow's side of ``registry.py``: run by an interpreter that has MLflow, and no Centra.

It reads one JSON request a line and answers each with one line: the seconds that MLflow took, and
the names that it found. A time begins after the request was read and ends before the answer is
written, so that neither counts.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import sqlalchemy
from mlflow import MlflowClient
from mlflow.store.model_registry.dbmodels import models


class Worker:
    """One MLflow client on one database."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.client = MlflowClient(tracking_uri=url, registry_uri=url)
        self.client.search_registered_models(max_results=1)  # The first use makes the tables.
        self.experiment = self.client.create_experiment(
            "benchmark", artifact_location=(folder / "artifacts").as_uri()
        )

    def fill(self, tasks: list[list[str]], versions: int) -> None:
        """Write models with their versions as ``register`` below would have, in bulk.

        Args:
            tasks: name, team and kind of each.
            versions: of each model.
        """
        at = int(time.time() * 1000)
        numbers = range(1, versions + 1)
        rows: list[tuple[Any, list[dict[str, Any]]]] = [
            (
                models.SqlRegisteredModel,
                [
                    {"name": name, "creation_time": at, "last_updated_time": at}
                    for name, _, _ in tasks
                ],
            ),
            (
                models.SqlRegisteredModelTag,
                [
                    {"name": name, "key": key, "value": value}
                    for name, team, kind in tasks
                    for key, value in (("team", team), ("kind", kind))
                ],
            ),
            (
                models.SqlModelVersion,
                [
                    {
                        "name": name,
                        "version": number,
                        "creation_time": at,
                        "last_updated_time": at,
                        "source": f"/models/{name}/{number}",
                        "storage_location": f"/models/{name}/{number}",
                    }
                    for name, _, _ in tasks
                    for number in numbers
                ],
            ),
            (
                models.SqlModelVersionTag,
                [
                    {"name": name, "version": number, "key": "accuracy", "value": "0.9"}
                    for name, _, _ in tasks
                    for number in numbers
                ],
            ),
        ]
        engine = sqlalchemy.create_engine(self.url)
        with engine.begin() as connection:
            for table, values in rows:
                connection.execute(sqlalchemy.insert(table), values)
        engine.dispose()

    def register(self, name: str, team: str, kind: str, source: str) -> None:
        """A registered model and its first version, which points at a path."""
        self.client.create_registered_model(name, tags={"team": team, "kind": kind})
        self.client.create_model_version(name, source, tags={"accuracy": "0.9"})

    def register_file(self, name: str, team: str, kind: str, source: str) -> None:
        """The same, with the file itself stored: as the artifact of a run."""
        run = self.client.create_run(self.experiment)
        self.client.log_artifact(run.info.run_id, source)
        self.client.create_registered_model(name, tags={"team": team, "kind": kind})
        stored = f"{run.info.artifact_uri}/{Path(source).name}"
        self.client.create_model_version(name, stored, run.info.run_id, tags={"accuracy": "0.9"})
        self.client.set_terminated(run.info.run_id)

    def list_first(self, limit: int) -> list[str]:
        """The first models by name."""
        return [model.name for model in self.client.search_registered_models(max_results=limit)]

    def search(self, team: str, kind: str, limit: int) -> list[str]:
        """The models of a team and a kind, which are tags here, by name."""
        wanted = f"tags.team = '{team}' AND tags.kind = '{kind}'"
        found = self.client.search_registered_models(wanted, max_results=limit)
        return [model.name for model in found]


def main() -> None:
    """Answer requests until there are no more."""
    worker = Worker(sys.argv[1], Path(sys.argv[2]))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        method = getattr(worker, request.pop("do"))
        start = time.perf_counter()
        found = method(**request)
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "found": found or []}), flush=True)


if __name__ == "__main__":
    main()
