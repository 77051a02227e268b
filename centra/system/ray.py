"""Ray: the cluster of ``RAY_ADDRESS``, or one that is started on this machine."""

from __future__ import annotations

import logging
import os
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from centra.errors import UsageError
from centra.system.processes import PROGRAM, apart, is_program
from centra.system.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["connect_to_ray", "is_own_cluster"]


def connect_to_ray(**options: Any) -> Any:
    """Connect this process to a Ray cluster, once; further calls change nothing.

    Args:
        options: further ones of :func:`ray.init`.

    Returns:
        The module ``ray``.

    Raises:
        UsageError: Ray is not installed, or the cluster of ``RAY_ADDRESS`` is not there.
    """
    # A cluster that is started here tells nobody about it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "the engine 'ray' needs Ray: pip install 'centra[ray]'",
            code="extra-missing",
            extra="ray",
        ) from error
    try:
        with apart(), _unseeded():
            ray.init(
                ignore_reinit_error=True,
                log_to_driver=False,
                logging_level=logging.ERROR,
                # Ray puts this process's folder first where its workers look for modules.
                runtime_env={"worker_process_setup_hook": f"{PROGRAM}.prepare_worker"}
                if is_program()
                else None,
                **options,
            )
    except ConnectionError as error:
        address = os.environ.get("RAY_ADDRESS")
        if "AuthenticationError" in str(error.__cause__):
            raise UsageError(
                redacted(
                    f"the Ray cluster at RAY_ADDRESS={address} asks for its token: RAY_AUTH_MODE=token "
                    "sends the one of RAY_AUTH_TOKEN, or of ~/.ray/auth_token"
                ),
                code="ray-token",
            ) from error
        raise UsageError(
            redacted(f"no Ray cluster answers at RAY_ADDRESS={address}"), code="no-ray-cluster"
        ) from error
    return ray


@contextmanager
def _unseeded() -> Iterator[None]:
    """Draw random numbers that no seed decides, and go on as if none had been drawn.

    Ray draws the name under which a process listens for errors from Python's own generator. Two that were
    seeded alike would have one name, and the cluster would answer each of them at once, without end.
    """
    state = random.getstate()
    random.seed()
    try:
        yield
    finally:
        random.setstate(state)


def is_own_cluster() -> bool:
    """Whether this process has started the cluster that it is connected to, which ends with it."""
    import ray

    node: Any = ray._private.worker._global_node  # noqa: SLF001 - Ray says it nowhere else
    return node is not None and bool(node.is_head())
