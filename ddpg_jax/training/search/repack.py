"""Packs anew: settings that go on from a rung as lanes of fewer, full programs, and those of a pack in two halves.

What comes of it is a function of what is in the record, so a search that is started again comes to the same packs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ddpg_jax.config.sweep_file import StartConfig, StartSource, Values
from ddpg_jax.training.search.file import Search
from ddpg_jax.training.search.packs import Pack, pack_lanes
from ddpg_jax.training.search.trials import last_step


def repack(
    search: Search, packs: Sequence[Pack], settings: Mapping[int, Values], steps: Sequence[int | None]
) -> list[Pack]:
    """The packs of those settings that go on.

    A pack all of whose settings go on does so as it is. From the others those that go on are put together by structure,
    on each task, and begin where their lanes are.

    Args:
      search: whose settings they are.
      packs: that hold them now.
      settings: those that go on, by number.
      steps: to which the packs of each task were trained.
    """
    found: list[Pack] = []
    for place, (task, until) in enumerate(zip(search.tasks, steps, strict=True)):
        whole = [pack for pack in packs if pack.task == place and settings.keys() >= set(pack.trials)]
        sources = {
            number: StartSource(run=pack.name, combination=at)
            for pack in packs
            if pack.task == place and pack not in whole
            for at, number in enumerate(pack.trials)
            if number in settings
        }
        apart = {number: settings[number] for number in sorted(sources)}
        found += whole
        if until is not None and apart:
            found += [pack._replace(task=place) for pack in _put_together(search.on(task), apart, sources, until)]
    return found


def _put_together(
    search: Search, settings: Mapping[int, Values], sources: Mapping[int, StartSource], until: int
) -> list[Pack]:
    """Settings on one task as a pack for each structure, from where those are that were trained to a step."""
    numbers, sweep = tuple(settings), search.check(tuple(settings.values()))
    packs: list[Pack] = []
    for group in sweep.groups:
        taken = tuple(sources[numbers[place]] for place in group.numbers)
        start = StartConfig(step=last_step(group.config, until), sources=taken)
        packs.append(pack_lanes(search, sweep, numbers, group.numbers, start))
    return packs


def halve(search: Search, pack: Pack, settings: Mapping[int, Values]) -> list[Pack]:
    """The lanes of a pack in two packs, as memory does not hold all of them.

    Args:
      search: whose settings they are.
      pack: of several settings.
      settings: of the pack, by number.
    """
    search, middle = search.on(search.tasks[pack.task]), -(-len(pack.trials) // 2)
    sweep, halves = search.check(tuple(settings[number] for number in pack.trials)), list[Pack]()
    for places in (range(middle), range(middle, len(pack.trials))):
        start = pack.start
        if start is not None:
            start = start.model_copy(update={"sources": tuple(start.sources[place] for place in places)})
        halves.append(pack_lanes(search, sweep, pack.trials, places, start)._replace(task=pack.task))
    return halves
