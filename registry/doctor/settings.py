"""Looking at the settings: where the registry is, and who acts."""

from __future__ import annotations

from centra.errors import NotFoundError
from registry.connection import Registry
from registry.doctor.findings import Finding, Setup, well

__all__ = ["check_actor", "check_settings"]


def check_settings(setup: Setup) -> list[Finding]:
    """Whether the settings say where the registry is; it is opened."""
    try:
        setup.registry = Registry.open(**setup.given, folder=setup.folder)
    except NotFoundError as error:
        return [Finding(code=error.code, text=str(error), data=error.data)]
    origins = setup.registry.origins
    return well(", ".join(f"{key} from {origin}" for key, origin in origins.items()))


def check_actor(setup: Setup) -> list[Finding]:
    """Whether the actor is of a team."""
    actor = setup.registry.actor
    if actor.team is None:
        text = f"acts as {actor}, for no team"
        return [Finding(state="warning", code="actor-without-team", text=text)]
    return well(f"acts as {actor}")
