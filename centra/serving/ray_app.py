"""The server as a Ray Serve application.

In a Serve config file::

    applications:
      - name: centra
        import_path: centra.serving.ray_app:app
        args:
          source: s3://models/centra#production
          autoscaling: {min_replicas: 2, max_replicas: 8, target_ongoing_requests: 16}
          num_cpus: 4

and from Python, ``serve.run(app({"source": …}), name="centra")``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from centra.errors import UsageError
from centra.serving.ray.settings import Settings

if TYPE_CHECKING:
    from ray.serve import Application

__all__ = ["app"]

_TARGET = 16.0
"""Requests that autoscaling gives each replica, where nobody says how many: enough to fill batches."""
_END_SECONDS = 60.0
"""How long a replica may take to end: longer than it waits for the last answers."""
_LOOK_SECONDS = 1.0
"""How often Ray Serve looks whether the last answer of a replica that ends is out."""
_HEALTH_SECONDS = 2.0
"""How often Ray Serve asks whether a replica is well."""
_HEALTH_ANSWER_SECONDS = 10.0
"""How long a replica has to answer that. One that hangs three times in a row is replaced, and until it has
ended it holds up the roll of a release."""


def app(args: dict[str, Any]) -> Application:
    """The application that some arguments describe.

    Args:
        args: see :class:`centra.serving.ray.settings.Settings`.

    Raises:
        UsageError: one of them is unknown, or not as it must be; or Ray is not installed.
    """
    settings = Settings.of(args)
    try:
        from ray import serve
    except ImportError as error:
        raise UsageError(
            "serving on a cluster needs Ray: pip install 'centra[ray]'",
            code="extra-missing",
            extra="ray",
        ) from error
    from centra.serving.ray.deployment import Replica

    scaling: dict[str, Any] = {"num_replicas": settings.replicas or 1}
    if settings.autoscaling is not None:
        scaling = {"autoscaling_config": _autoscaling(settings.autoscaling)}

    deployment = serve.deployment(
        name="centra",
        ray_actor_options={"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
        # Calls wait in a replica's own queue, where they fill batches and are refused by its limits;
        # beyond so many they would wait in the proxy, which refuses none.
        max_ongoing_requests=2 * settings.limits.queue_inputs,
        graceful_shutdown_timeout_s=_END_SECONDS,
        graceful_shutdown_wait_loop_s=_LOOK_SECONDS,
        health_check_period_s=_HEALTH_SECONDS,
        health_check_timeout_s=_HEALTH_ANSWER_SECONDS,
        **scaling,
    )
    bound: Application = deployment(Replica).bind(settings)
    return bound


def _autoscaling(given: dict[str, Any]) -> dict[str, Any]:
    """Ray Serve's autoscaling_config, which passes over what it does not know."""
    from pydantic import ValidationError
    from ray.serve.config import AutoscalingConfig

    for name in given:
        if name not in AutoscalingConfig.model_fields:
            known = ", ".join(sorted(AutoscalingConfig.model_fields))
            raise _refusal(name, f"Ray Serve has no such setting; expected {known}")
    policy = {"policy_function": "centra.serving.ray.scaling:wanted_replicas"}
    config = {"target_ongoing_requests": _TARGET, "policy": policy, **given}
    try:
        AutoscalingConfig.model_validate(config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise _refusal(".".join(map(str, first["loc"])), first["msg"]) from error
    return config


def _refusal(name: str, reason: str) -> UsageError:
    where = f"autoscaling.{name}" if name else "autoscaling"
    return UsageError(
        f"the application's arguments: {where}: {reason}", code="bad-arguments", field=where
    )
