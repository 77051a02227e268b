"""What Ray Serve's autoscaler goes by: all requests of a replica, by whichever door they came.

Serve itself counts those that its proxy has sent. What reaches a replica past the proxy would be no
load to it, and the busiest replicas would be taken away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

__all__ = ["OPEN_REQUESTS", "wanted_replicas"]

OPEN_REQUESTS = "centra_open_requests"
"""The name under which a replica tells how many requests it has taken in and not answered."""


def wanted_replicas(context: AutoscalingContext) -> tuple[float, dict[str, object]]:
    """How many replicas make each have as many requests as it is to have.

    Serve applies its bounds, factors and delays to the number.

    Args:
        context: what Serve knows of the deployment.

    Returns:
        The number, and no state to keep.
    """
    reported = (context.aggregated_metrics or {}).get(OPEN_REQUESTS, {})
    taken_in = sum(reported.values()) + (context.total_queued_requests or 0.0)
    # Serve's own count knows of requests that a replica has not taken in yet.
    requests = max(taken_in, context.total_num_requests)
    assert context.config is not None
    return requests / context.config.get_target_ongoing_requests(), {}
