"""What the rows of a run say about its health: a table of metrics, how far each is healthy, and what to do.

The limits were set by runs that learn, on Pendulum, HalfCheetah and five more tasks, of which none is warned, and by
runs made ill on purpose, of which each is; the figures stand in docs/health.md. A metric that a row lacks says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ddpg_jax.types import Row


class Limit(NamedTuple):
    """How far a metric is healthy.

    Attributes:
      most: its largest healthy size.
      meaning: what it means to be above.
      advice: what to do.
      relative: whether `most` is in units of the largest return, in size, of any episode of the run so far.
      lasting: updates that it must have been above without a break.
    """

    most: float
    meaning: str
    advice: str
    relative: bool = False
    lasting: int = 0


LIMITS = {
    "saturated": Limit(
        0.98,
        "the actor sits at the bounds, where tanh is flat",
        "lower algorithm.actor_learning_rate, or set algorithm.action_penalty or algorithm.final_scale",
        lasting=2000,
    ),
    "actor_dead": Limit(
        0.75,
        "most of the actor's hidden units never fire",
        "lower algorithm.actor_learning_rate, or change algorithm.activation",
    ),
    "critic_dead": Limit(
        0.75,
        "most of the critics' hidden units never fire",
        "lower algorithm.critic_learning_rate, or change algorithm.activation",
    ),
    "target_distance": Limit(
        0.5,
        "the targets do not follow the critics",
        "raise algorithm.tau, or lower algorithm.critic_learning_rate",
    ),
    "critic_grad_norm": Limit(
        10.0,
        "the critics' errors grow beyond the returns",
        "lower algorithm.tau or algorithm.critic_learning_rate, or set algorithm.max_grad_norm",
        relative=True,
    ),
    "q_bias": Limit(
        2.0,
        "critics that always say 0 would be nearer to what the policy gets",
        'lower algorithm.tau or algorithm.critic_learning_rate, or take algorithm.name = "td3"',
        relative=True,
    ),
}


class Seen(NamedTuple):
    """What is remembered of a run.

    Attributes:
      largest_return: of all episodes so far, in size.
      since: updates made when a metric of a seed passed its limit, by both; there as long as it is above.
      told: metrics that were warned of.
    """

    largest_return: float = 0.0
    since: Mapping[tuple[str, int], int] = MappingProxyType({})
    told: frozenset[str] = frozenset()


def advise(rows: Iterable[Row], seen: Seen) -> tuple[list[str], Seen]:
    """Warnings about what passes its limit, each metric once in a run.

    Args:
      rows: of a report.
      seen: what was remembered of the reports before; `Seen()` at the start.

    Returns:
      A line for each metric that passes its limit for the first time, with the seeds and their values; and what to
      remember. Relative limits wait for the first return that is not 0.
    """
    rows = list(rows)
    largest = max([seen.largest_return, *(abs(value) for row in rows for value in _returns(row))])
    since, lines = dict(seen.since), dict[str, str]()
    for name, limit in LIMITS.items():
        most = limit.most * (largest if limit.relative else 1.0)
        lasting: dict[int, float] = {}
        for row in (row for row in rows if name in row):
            place, updates = (name, row["seed"]), row.get("updates", 0)
            if not abs(row[name]) > most > 0:
                since.pop(place, None)
            elif updates - since.setdefault(place, updates) >= limit.lasting:
                lasting[row["seed"]] = row[name]
        if lasting and name not in seen.told:
            lines[name] = _line(name, limit, most, lasting)
    return list(lines.values()), Seen(largest, since, seen.told | lines.keys())


def _returns(row: Row) -> list[float]:
    """The returns that a row tells of; for several episodes, what is known is their mean."""
    return [*row.get("returns", ()), *([row["episode_return"]] if "episode_return" in row else ())]


def _line(name: str, limit: Limit, most: float, above: dict[int, float]) -> str:
    seeds = sorted(above, key=lambda seed: -abs(above[seed]))
    values = ", ".join(f"{above[seed]:.3g} (seed {seed})" for seed in seeds[:4])
    more = f" and {len(seeds) - 4} seeds more" if len(seeds) > 4 else ""
    unit = f", {limit.most:g} times the largest return so far" if limit.relative else ""
    lasting = f" for {limit.lasting} updates" if limit.lasting else ""
    return f"warning: {name} = {values}{more}, above {most:.3g}{unit}{lasting}: {limit.meaning}; {limit.advice}"
