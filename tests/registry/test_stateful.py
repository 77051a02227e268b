"""The registry against a simple model of it, through random sequences of what teams do.

After each step the promises are checked: the tables say what the model says, the same modules are the
same release, a change leaves all other tasks' bytes alone, pointers agree with the database, the log
is whole, and every byte that anything reaches is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from centra.errors import CentraError, ConflictError, NotFoundError, UsageError
from centra.formats.manifest import ChannelPointer
from centra.system.files import file_digest
from registry import Registry, audit, channels, releases, tasks
from registry.errors import ContractChangedError, TaskExistsError, TaskNotFoundError
from registry.promotion import StaleReleaseError, promote
from registry.storage import gc
from tests.registry.helpers import nothing_changes

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.registry.helpers import Registries

NAMES = st.sampled_from(["intent", "slots", "mood"])
CHANNELS = st.sampled_from(["staging", "production"])
MODULES = st.integers(0, 5)
NOW = timedelta(0)


@dataclass
class ModelTask:
    """A task as the model sees it: per version the module's index, and which is in force."""

    versions: dict[tuple[int, int], int]
    current: tuple[int, int]
    active: bool = True


@dataclass
class Model:
    """The whole registry in plain values."""

    tasks: dict[str, ModelTask] = field(default_factory=dict)
    releases: list[dict[str, tuple[int, int]]] = field(default_factory=list)
    latest: int | None = None
    served: dict[str, list[int]] = field(default_factory=dict)
    """Per channel every release it served, in order."""
    orphans: set[str] = field(default_factory=set)


def text(number: tuple[int, int]) -> str:
    return f"{number[0]}.{number[1]}"


class Machine(RuleBasedStateMachine):
    """Does the same to a registry and to the model."""

    registry: Registry
    files: list[Path]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.digests = [file_digest(file) for file in self.files]

    @staticmethod
    def contract(module: int) -> bool:
        """Modules 0 to 3 share a contract, 4 and 5 another."""
        return module < 4

    @staticmethod
    def answers_with(task: ModelTask, module: int) -> bool:
        """Whether repeating a module asks for nothing new."""
        return task.active and task.versions[task.current] == module

    def refused(self, error: type[CentraError], use: Callable[[], object]) -> None:
        """A use that must be refused and change nothing."""
        with nothing_changes(self.registry):
            try:
                use()
            except error:
                return
        raise AssertionError(f"expected {error.__name__}")

    # Tasks

    @initialize(updated=st.booleans())
    def begin(self, *, updated: bool) -> None:
        """With two tasks in production, perhaps updated since."""
        self.register("intent", 0)
        self.register("slots", 1)
        self.compose()
        self.promote(1, "production", rebase=False, onto=None)
        if updated:
            self.change("intent", 2, redefine=False)
            self.change("slots", 3, redefine=False)

    @rule(name=NAMES, module=MODULES)
    def register(self, name: str, module: int) -> None:
        task = self.model.tasks.get(name)
        use = lambda: tasks.register(self.registry, name, self.files[module])  # noqa: E731
        if task is not None and module not in task.versions.values():
            self.refused(TaskExistsError, use)
            return
        if task is not None and not self.answers_with(task, module):
            self.refused(ConflictError, use)
            return
        outcome = use()
        assert outcome.changed is (task is None)
        if task is None:
            self.model.tasks[name] = ModelTask({(1, 0): module}, (1, 0))

    @rule(name=NAMES, module=MODULES, redefine=st.booleans())
    def change(self, name: str, module: int, *, redefine: bool) -> None:
        verb = tasks.redefine if redefine else tasks.update
        use = lambda: verb(self.registry, name, self.files[module])  # noqa: E731
        task = self.model.tasks.get(name)
        if task is None:
            self.refused(TaskNotFoundError, use)
            return
        if module in task.versions.values():
            if self.answers_with(task, module):
                assert not use().changed
            else:
                self.refused(ConflictError, use)
            return
        same = self.contract(task.versions[task.current]) == self.contract(module)
        if not task.active or (redefine and same):
            self.refused(ConflictError, use)
        elif not redefine and not same:
            self.refused(ContractChangedError, use)
        else:
            major, _ = task.current
            if redefine:
                number = (max(major for major, _ in task.versions) + 1, 0)
            else:
                number = (major, max(minor for m, minor in task.versions if m == major) + 1)
            assert str(use().version) == text(number)
            task.versions[number] = module
            task.current = number

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.tasks)))
        task = self.model.tasks[name]
        number = data.draw(st.sampled_from(sorted(task.versions)))
        outcome = tasks.pin(self.registry, f"{name}@{text(number)}")
        assert outcome.changed is (number != task.current)
        task.current = number

    @rule(name=NAMES, active=st.booleans())
    def set_state(self, name: str, *, active: bool) -> None:
        verb = tasks.restore if active else tasks.retire
        task = self.model.tasks.get(name)
        if task is None:
            self.refused(TaskNotFoundError, lambda: verb(self.registry, name))
            return
        assert verb(self.registry, name).changed is (task.active is not active)
        task.active = active

    # Releases

    def released(
        self,
        composed: releases.Composition,
        content: dict[str, tuple[int, int]],
        *,
        live: bool = False,
    ) -> None:
        """The same modules must be the release they were before, and otherwise the next.

        That of the live set becomes ``latest``.
        """
        modules = self.modules(content)
        known = [
            i for i, held in enumerate(self.model.releases, 1) if self.modules(held) == modules
        ]
        assert composed.published is (not known)
        if not known:
            self.model.releases.append(content)
        number = known[0] if known else len(self.model.releases)
        assert composed.release == number
        assert composed.live is live
        if live:
            self.model.latest = number

    def modules(self, content: dict[str, tuple[int, int]]) -> dict[str, int]:
        return {name: self.model.tasks[name].versions[number] for name, number in content.items()}

    @rule()
    def compose(self) -> None:
        live = {name: task.current for name, task in self.model.tasks.items() if task.active}
        use = lambda: releases.compose(self.registry, publish=True)  # noqa: E731
        if live:
            self.released(use(), live, live=True)
        else:
            self.refused(UsageError, use)

    @precondition(lambda self: self.model.releases)
    @rule(data=st.data(), channel=CHANNELS, rebase=st.booleans())
    def ship_one_change(self, data: st.DataObject, channel: str, *, rebase: bool) -> None:
        """Compose one change onto what a channel serves, or onto any release, and promote it."""
        served = self.model.served.get(channel)
        base = data.draw(st.integers(1, len(self.model.releases)))
        if served and data.draw(st.booleans()):
            base = served[-1]
        name = data.draw(st.sampled_from(sorted(self.model.tasks)))
        number = data.draw(st.sampled_from(sorted(self.model.tasks[name].versions)))
        content = {**self.model.releases[base - 1], name: number}
        composed = releases.compose(
            self.registry, base=str(base), replace=[f"{name}@{text(number)}"], publish=True
        )
        changed = {change.task for change in composed.changes}
        assert changed <= {name}
        self.released(composed, content)
        self.promote(composed.release or 0, channel, rebase=rebase, onto=base)

    @precondition(lambda self: any(self.model.served.values()))
    @rule(data=st.data())
    def two_teams_ship_at_the_same_moment(self, data: st.DataObject) -> None:
        channel = data.draw(st.sampled_from([c for c, s in self.model.served.items() if s]))
        self.race(channel, data.draw(st.randoms()).choice)

    def race(
        self, channel: str, choose: Callable[[list[tuple[str, tuple[int, int]]]], Any]
    ) -> None:
        """Both compose onto what is served; the second is told, rebases, and neither is lost."""
        base = self.model.served[channel][-1]
        content = self.model.releases[base - 1]
        choices = [(name, other) for name in content for other in self.others(name, content[name])]
        if len({name for name, _ in choices}) < 2:
            return
        first = choose(choices)
        second = choose([choice for choice in choices if choice[0] != first[0]])
        numbers = []
        for name, number in (first, second):
            composed = releases.compose(
                self.registry, base=str(base), replace=[f"{name}@{text(number)}"], publish=True
            )
            self.released(composed, {**content, name: number})
            numbers.append(composed)
        self.promote(numbers[0].release or 0, channel, rebase=False, onto=base)
        if numbers[1].published:
            # Nobody has made this set before, so nobody can have made it of the first one.
            use = lambda: promote(self.registry, str(numbers[1].release), channel)  # noqa: E731
            self.refused(StaleReleaseError, use)
        self.promote(numbers[1].release or 0, channel, rebase=True, onto=None)
        if numbers[1].published:
            served = self.model.releases[self.model.served[channel][-1] - 1]
            expected = {**content, first[0]: first[1], second[0]: second[1]}
            assert self.modules(served) == self.modules(expected)

    def others(self, name: str, number: tuple[int, int]) -> list[tuple[int, int]]:
        return [other for other in sorted(self.model.tasks[name].versions) if other != number]

    @precondition(lambda self: self.model.releases)
    @rule(data=st.data(), channel=CHANNELS, rebase=st.booleans())
    def promote_any(self, data: st.DataObject, channel: str, *, rebase: bool) -> None:
        number = data.draw(st.integers(1, len(self.model.releases)))
        self.promote(number, channel, rebase=rebase, onto=None)

    def promote(self, number: int, channel: str, *, rebase: bool, onto: int | None) -> None:
        served = self.model.served.setdefault(channel, [])
        before = self.model.releases[served[-1] - 1] if served else {}
        use = lambda: promote(self.registry, str(number), channel, rebase=rebase)  # noqa: E731
        try:
            result = use()
        except ConflictError as error:
            # Whatever was composed onto what is served, or is served already, must go through.
            assert served
            assert onto != served[-1]
            assert served[-1] != number
            assert isinstance(error, StaleReleaseError) is not rebase
            self.unchanged(channel)
            return
        if result.rebased_from is not None:
            assert rebase
            wanted = self.model.releases[number - 1]
            after = {
                name: tuple(map(int, version.split(".")))
                for name, version in releases.show(self.registry, str(result.release)).tasks.items()
            }
            if result.release > len(self.model.releases):
                self.model.releases.append(after)  # type: ignore[arg-type]
            # Nothing but what was served, and what the release changes.
            for name in {*before, *after, *wanted}:
                assert after.get(name) in (before.get(name), wanted.get(name))
        else:
            assert result.release == number
        assert result.promoted is (not served or served[-1] != result.release)
        if result.promoted:
            served.append(result.release)

    @rule(channel=CHANNELS, data=st.data())
    def rollback(self, channel: str, data: st.DataObject) -> None:
        served = self.model.served.get(channel, [])
        to = data.draw(st.sampled_from([None, *sorted({*served})]))
        target = None if to is None else str(to)
        try:
            done = channels.rollback(self.registry, channel, to=target)
        except NotFoundError:
            assert to is None
            self.unchanged(channel)
            return
        assert done.before == served[-1]
        assert done.channel.release in served
        assert to in (None, done.channel.release)
        assert done.moved is (done.channel.release != served[-1])
        if done.moved:
            served.append(done.channel.release)

    def unchanged(self, channel: str) -> None:
        served = self.model.served.get(channel)
        if served:
            assert channels.show(self.registry, channel).release == served[-1]

    # Garbage

    @rule(orphans=st.lists(st.binary(min_size=1, max_size=8), max_size=3))
    def collect(self, orphans: list[bytes]) -> None:
        for content in orphans:
            self.model.orphans.add(self.registry.store.put(b"orphan" + content))
        plan = gc.collect(self.registry, grace=NOW)
        assert {one.name for one in plan.garbage} == self.model.orphans
        done = gc.collect(self.registry, grace=NOW, delete=True)
        assert [one.name for one in done.garbage] == [one.name for one in plan.garbage]
        self.model.orphans.clear()

    # Promises

    @invariant()
    def the_tables_say_what_the_model_says(self) -> None:
        rows = {row.name: row for row in tasks.list(self.registry)}
        assert rows.keys() == self.model.tasks.keys()
        for name, task in self.model.tasks.items():
            detail = tasks.show(self.registry, name)
            assert detail.current == rows[name].version
            assert str(detail.current) == text(task.current)
            assert (detail.state == "active") is task.active
            assert {str(version.version): version.digest for version in detail.versions} == {
                text(number): self.digests[module] for number, module in task.versions.items()
            }
        listed = releases.list(self.registry)
        assert [row.number for row in listed] == [*range(len(self.model.releases), 0, -1)]

    @invariant()
    def releases_hold_what_they_held_byte_for_byte(self) -> None:
        for number, content in enumerate(self.model.releases, 1):
            detail = releases.show(self.registry, str(number))
            held = {name: entry.digest for name, entry in detail.manifest.tasks.items()}
            modules = self.modules(content)
            assert held == {name: self.digests[module] for name, module in modules.items()}

    @invariant()
    def channels_and_their_pointers_agree(self) -> None:
        expected = {channel: served[-1] for channel, served in self.model.served.items() if served}
        if self.model.latest is not None:
            expected["latest"] = self.model.latest
        rows = {row.name: row for row in channels.list(self.registry)}
        assert {name: row.release for name, row in rows.items()} == expected
        assert self.registry.store.pointers() == sorted(expected)
        for name, row in rows.items():
            data = self.registry.store.read_pointer(name) or b""
            pointer = ChannelPointer.from_bytes(data, name)
            assert (pointer.revision, pointer.manifest) == (row.revision, row.digest)
        for channel, served in self.model.served.items():
            if served:
                history = channels.history(self.registry, channel)
                assert [row.release for row in history][::-1] == served

    @invariant()
    def nothing_that_is_reached_is_lost(self) -> None:
        for task in self.model.tasks.values():
            for module in task.versions.values():
                self.registry.store.fetch(self.digests[module])
        for row in releases.list(self.registry):
            self.registry.store.fetch(row.digest)

    @invariant()
    def the_log_is_whole(self) -> None:
        audit.verify(self.registry)

    def teardown(self) -> None:
        # However the sequence went, it ends in a race.
        for channel in sorted(channel for channel, served in self.model.served.items() if served):
            self.race(channel, lambda choices: choices[-1])
        self.channels_and_their_pointers_agree()
        for number in range(1, len(self.model.releases) + 1):
            releases.verify(self.registry, str(number))


@pytest.mark.timeout(900)  # A failure takes long to be made small.
def test_any_sequence_of_changes_keeps_the_promises(
    registries: Registries, module: Callable[..., Path], tmp_path: Path
) -> None:
    more = ("alarm", "music", "weather", "news")
    options: list[dict[str, Any]] = [
        *({"seed": seed} for seed in range(4)),
        *({"seed": seed, "labels": more} for seed in range(2)),
    ]
    made = [module(**option) for option in options]

    class OnThisDatabase(Machine):
        files = made

        def __init__(self) -> None:
            self._lent = registries.lend(tmp_path)
            self.registry = self._lent.__enter__()
            super().__init__()

        def teardown(self) -> None:
            try:
                super().teardown()
            finally:
                self._lent.__exit__(None, None, None)

    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        OnThisDatabase, settings=settings(max_examples=12, stateful_step_count=15)
    )
