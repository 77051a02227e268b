"""The coordinator as a replica reaches it, however often it dies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from centra.serving.ray.coordinator import open_coordinator

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["CoordinatorClient"]


class CoordinatorClient:
    """Calls the coordinator of an application."""

    def __init__(self, application: str) -> None:
        """Find it, or make it.

        Args:
            application: its name.
        """
        self._application = application
        self._actor = open_coordinator(application)

    def call(self, method: str, *arguments: object) -> Future[Any]:
        """Call a method of :class:`centra.serving.ray.coordinator.Coordinator`.

        Returns:
            Its result, later: RayActorError where the coordinator dies meanwhile, RayTaskError with
            what it raised as ``cause``.
        """
        reference = getattr(self._actor, method).remote(*arguments)
        return cast("Future[Any]", reference.future())

    def reopen(self) -> None:
        """Find it again, or make another where there is none any more."""
        self._actor = open_coordinator(self._application)
