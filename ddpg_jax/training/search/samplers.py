"""Who chooses the settings: grids, random numbers, Sobol's sequence, and models of what was seen.

A sampler has no memory: equal arguments give equal settings, in any process. What a model knows is built from what
it is told, each time anew, and its random numbers are keyed by the seed and by how many settings were asked before; so
a driver that was killed asks for the same again, and needs no file of the sampler's.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ddpg_jax.config.mistakes import nearest
from ddpg_jax.errors import ConfigError, printable
from ddpg_jax.training.search.space import Choice, Range, Space, Values, contains, from_unit, grid, settle, to_unit

SAMPLERS = ("grid", "random", "sobol", "tpe", "gp", "cmaes")
"""The kinds there are."""

_SEARCH = 'pip install "ddpg-jax[search]"'

_PACKAGES = {
    "tpe": (("optuna",), _SEARCH),
    "gp": (("optuna", "torch"), f"{_SEARCH} torch, which is no part of the extra: it is large"),
    "cmaes": (("cmaes",), _SEARCH),
}
"""What a kind needs, and how it is installed."""

_STARTUP = 10
"""Settings drawn at random before a model is asked."""

_SIGMA = 0.3
"""First step size of the evolution strategy, in widths of the space."""


class Told(NamedTuple):
    """A setting that ended.

    Attributes:
      values: the setting.
      score: what it reached, higher is better; None, or what is not finite: it failed, and counts as the worst.
    """

    values: Values
    score: float | None


class _Scored(NamedTuple):
    """A setting that ended, and a finite score; of one that failed it is the worst of all scores."""

    values: Values
    score: float
    failed: bool


SamplerFn = Callable[[Sequence[Told], int, int], list[Values]]
"""`(told, number, count) -> settings`: what has ended, in the order of asking; how many settings were asked before; how
many are wanted now. Fewer come only where a grid ends. What is asked together is kept apart; of what still runs from
before a sampler knows nothing, unless it is told of as failed, which keeps a model off its place."""


def make_sampler(kind: str, space: Space, seed: int, trials: int) -> SamplerFn:
    """Makes a sampler.

    Args:
      kind: one of `SAMPLERS`.
      space: what is searched.
      seed: of all its random numbers, at least 0; a grid has none.
      trials: settings in all; a model begins after a quarter of them at the latest.

    Raises:
      ConfigError: there is no such kind, it does not go with the space, or a package is missing.
    """
    if kind not in SAMPLERS:
        raise ConfigError(printable(f"search.sampler = {kind!r}: there is no such sampler{nearest(kind, SAMPLERS)}"))
    _check_installed(kind)
    if kind == "grid":
        settings = grid(space)
        return lambda told, number, count: settings[number : number + count]
    if kind == "random":
        return lambda told, number, count: [from_unit(space, _draw(space, seed, number + i)) for i in range(count)]
    if kind == "sobol":
        return lambda told, number, count: [from_unit(space, point) for point in _sobol(space, seed, number, count)]
    if kind == "cmaes":
        return _evolution(space, seed)
    startup = max(1, min(_STARTUP, trials // 4))
    return _optuna(kind, space, seed, startup)


def _check_installed(kind: str) -> None:
    packages, how = _PACKAGES.get(kind, ((), ""))
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f'search.sampler = "{kind}" needs {", ".join(missing)}, not installed here: {how}')


def _draw(space: Space, seed: int, number: int) -> np.ndarray[Any, Any]:
    """A point of the unit cube, which depends on the seed and its number alone, `[D]`."""
    return np.random.default_rng([seed, number]).random(len(space))


def _sobol(space: Space, seed: int, number: int, count: int) -> np.ndarray[Any, Any]:
    """Points of one scrambled sequence, `[count, D]`."""
    from scipy.stats import qmc

    name = "rng" if "rng" in inspect.signature(qmc.Sobol.__init__).parameters else "seed"  # before scipy 1.15
    rng: Any = {name: np.random.default_rng(seed)}
    engine = qmc.Sobol(len(space), scramble=True, **rng)
    whole = math.ceil(math.log2(max(number + count, 1)))  # a power of two is what it gives without a warning
    return engine.random_base2(whole)[number : number + count]


def _evolution(space: Space, seed: int) -> SamplerFn:
    """CMA-ES over the ranges without conditions; choices, and what depends on them, are drawn at random.

    It stands on the package that Optuna uses, not on Optuna's sampler, which keeps the state of the strategy in the
    trials that it asked itself: in a study that is built anew every trial would be drawn from the first distribution.
    Here each generation is told again.

    References:
      Hansen, "The CMA Evolution Strategy: A Tutorial" (arXiv:1604.00772).
    """
    ranges = {path: each for path, each in space.items() if isinstance(each, Range) and not each.when}
    places = [i for i, path in enumerate(space) if path in ranges]
    if not ranges:
        raise ConfigError('search.sampler = "cmaes" needs a range without conditions; with choices alone take "tpe"')

    def sample(told: Sequence[Told], number: int, count: int) -> list[Values]:
        import cmaes  # pyright: ignore[reportMissingImports]

        size = max(4 + int(3 * math.log(len(ranges))), count)  # a batch from one distribution is one generation
        strategy = cmaes.CMA(
            mean=np.full(len(ranges), 0.5),
            sigma=_SIGMA,
            bounds=np.tile([0.0, 1.0], (len(ranges), 1)),
            seed=_word(seed, number),
            population_size=size,
        )
        known = _score(told, space)
        points = [np.array([to_unit(each, one.values[path]) for path, each in ranges.items()]) for one in known]
        for start in range(0, len(known) - size + 1, size):
            strategy.tell([(points[i], -known[i].score) for i in range(start, start + size)])
        units = [_draw(space, seed, number + i) for i in range(count)]
        for unit in units:
            unit[places] = strategy.ask()
        return [from_unit(space, unit) for unit in units]

    return sample


def _optuna(kind: str, space: Space, seed: int, startup: int) -> SamplerFn:
    """TPE, or Gaussian processes, of Optuna."""

    def sample(told: Sequence[Told], number: int, count: int) -> list[Values]:
        import optuna  # pyright: ignore[reportMissingImports]

        make = optuna.samplers.TPESampler if kind == "tpe" else optuna.samplers.GPSampler
        with _silence(optuna):
            sampler = make(seed=_word(seed, number), n_startup_trials=startup)
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.add_trials(_finished(optuna, kind, space, told))
            # None of them is told before all are asked: as running trials they keep the sampler off their places.
            return [_ask(study.ask(), space) for _ in range(count)]

    return sample


def _ask(trial: Any, space: Space) -> Values:
    """The setting of a trial; a path is asked for only where its conditions hold."""

    def suggest(path: str) -> Any:
        each = space[path]
        if isinstance(each, Choice):
            return each.choice[trial.suggest_categorical(path, tuple(range(len(each.choice))))]
        if each.integer:
            return trial.suggest_int(path, int(each.low), int(each.high), log=each.log)
        return trial.suggest_float(path, each.low, each.high, log=each.log)

    return settle(space, suggest)


def _finished(optuna: Any, kind: str, space: Space, told: Sequence[Told]) -> list[Any]:
    """What ended, as trials of Optuna's.

    TPE asks only which trials were better than others, and puts one that was pruned without any report behind all that
    have a score: so it needs no number for what failed. Gaussian processes leave out what was pruned, and would go
    back to where everything fails: they are told the worst score there is.
    """
    distribution, state = optuna.distributions, optuna.trial.TrialState
    spread = {path: _distribution(distribution, each) for path, each in space.items()}
    trials: list[Any] = []
    for values, score, failed in _score(told, space):
        pruned = failed and kind == "tpe"
        trials.append(
            optuna.trial.create_trial(
                state=state.PRUNED if pruned else state.COMPLETE,
                value=None if pruned else score,
                params={path: _number(space[path], value) for path, value in values.items()},
                distributions={path: spread[path] for path in values},
            )
        )
    return trials


def _number(each: Range | Choice, value: Any) -> Any:
    """What Optuna knows a value as: of a choice its position, since it takes no lists and tables."""
    return value if isinstance(each, Range) else each.choice.index(value)


def _distribution(kinds: Any, each: Range | Choice) -> Any:
    if isinstance(each, Choice):
        return kinds.CategoricalDistribution(tuple(range(len(each.choice))))
    if each.integer:
        return kinds.IntDistribution(int(each.low), int(each.high), log=each.log)
    return kinds.FloatDistribution(each.low, each.high, log=each.log)


def _score(told: Sequence[Told], space: Space) -> list[_Scored]:
    """What ended, without settings that are none of the space, which was changed since: they teach nothing."""
    known = [(values, score) for values, score in told if contains(space, values)]
    scores = [score for _, score in known if score is not None and math.isfinite(score)]
    worst = min(scores, default=0.0)
    return [
        _Scored(values, worst, failed=True)
        if score is None or not math.isfinite(score)
        else _Scored(values, score, failed=False)
        for values, score in known
    ]


def _word(seed: int, number: int) -> int:
    """A seed of 32 bits, as the packages take, for what is asked after `number` others."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


@contextmanager
def _silence(optuna: Any) -> Generator[None]:
    """Optuna says nothing below an error meanwhile."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
