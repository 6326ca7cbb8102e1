"""The sections of a configuration: frozen records that know their ranges, one for each kind of exploration and replay.

Those of the algorithms are in `algorithms`.
"""

from __future__ import annotations

import difflib
from math import isfinite
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from ddpg_jax.config.marks import HARMLESS, LEARNING, STRUCTURAL, TRACED
from ddpg_jax.config.pixels import PixelsConfig
from ddpg_jax.config.plugins import find
from ddpg_jax.config.section import Count, CountOrZero, Fraction, Scale, Section
from ddpg_jax.config.values import as_names, as_pairs, as_tables, check_pairs


def _check_argument(value: object) -> object:
    """An argument of a constructor that a file can hold: tuples become lists, and "None" becomes None."""
    if isinstance(value, (list, tuple)):
        return [_check_argument(each) for each in cast("list[object]", value)]
    if isinstance(value, dict):
        return {str(name): _check_argument(each) for name, each in cast("dict[object, object]", value).items()}
    if value == "None":
        return None
    fits = value is None or isinstance(value, (bool, str))
    fits = fits or (isinstance(value, int) and value.bit_length() < 64)
    if not fits and not (isinstance(value, float) and isfinite(value)):
        raise ValueError('must be a finite number, a text, true or false, "None", or a list or table of such')
    return value


SINKS = ("wandb", "mlflow", "trackio")
"""Where a record can be sent, by name."""

WRAPPERS = (
    "HideObservations",
    "HideVelocities",
    "HidePositions",
    "NoisyObservations",
    "DroppedObservations",
    "MemoryTraces",
)
"""Wrappers of our own, for gymnasium's environments and for those written in JAX."""

Bound: TypeAlias = Annotated[float, Field(ge=-1e30, le=1e30)]
Ranges: TypeAlias = Annotated[
    tuple[tuple[Bound, Bound], ...], Field(min_length=1, max_length=10_000), AfterValidator(check_pairs)
]
Argument: TypeAlias = Annotated[Any, AfterValidator(_check_argument)]
Return: TypeAlias = Annotated[float, Field(ge=-1e6, le=1e6)]
InfoKey: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,58}$")]
Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]


class WrapperConfig(Section):
    """`[[env.wrappers]]`: a wrapper around the environment."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    """a class of gymnasium.wrappers, or HideObservations, HideVelocities, HidePositions, NoisyObservations,
    DroppedObservations, MemoryTraces, which are for environments written in JAX too; or module:Class of your own, there
    module:function"""
    kwargs: dict[str, Argument] = Field(default_factory=dict[str, Any])
    """arguments of its constructor beside the environment"""


class EnvConfig(Section):
    """`[env]`: where the agent lives."""

    id: Annotated[str, STRUCTURAL] = "Pendulum-v1"
    """a gymnasium id, or jax:, phys2d:, gymnax:, brax:, playground: and a name; module:id, module:Class or
    jax:module:function for one of your own, on the command line, or with --allow-imports"""
    num_envs: Annotated[int, Field(ge=1, le=65536), STRUCTURAL] = 1
    """environments of each seed, E"""
    workers: Annotated[int, Field(ge=0, le=1024), HARMLESS] = 0
    """processes that run the environments, and as many for evaluation; 0: in this process"""
    timeout: Annotated[float, Field(gt=0, le=86400), HARMLESS] = 60.0
    """seconds an environment, or a worker process with all of its own, may take for one step"""
    max_episode_steps: Annotated[Count | None, STRUCTURAL] = None
    """time limit of an episode; left out: the environment's own"""
    value_range: Annotated[tuple[Return, Return] | None, HARMLESS] = None
    """lowest and highest discounted return of the task, which categorical critics take for v_min and v_max"""
    kwargs: Annotated[dict[str, Argument], STRUCTURAL] = Field(default_factory=dict[str, Any])
    """arguments of the environment's constructor: numbers, texts, lists, tables; "None" is None, for which TOML has no
    word"""
    wrappers: Annotated[tuple[WrapperConfig, ...], Field(max_length=32), BeforeValidator(as_tables), STRUCTURAL] = ()
    """wrappers around it, the innermost first, as in [{name = "ClipReward", kwargs = {min_reward = -1}}]; of gymnasium,
    or of this package, as HideVelocities, which environments written in JAX take too"""
    action_range: Annotated[Ranges | None, BeforeValidator(as_pairs), STRUCTURAL] = None
    """lowest and highest action where its space has no bounds, as in [-2, 2], or a pair for each component"""
    max_instances: Annotated[Count | None, HARMLESS] = None
    """how many of it may exist at once; evaluation uses those that train where there are no others; left out: any
    number to train in, and 16 in each process to evaluate in"""
    info_keys: Annotated[tuple[InfoKey, ...], Field(max_length=32), BeforeValidator(as_names), HARMLESS] = ()
    """numbers of the info at an episode's end to record, as is_success, on the host loop"""
    pixels: Annotated[PixelsConfig | None, STRUCTURAL] = None
    """what is seen in the place of the environment's own observations: pictures that it draws; left out: nothing"""

    @field_validator("value_range", mode="before")
    @classmethod
    def _two(cls, ends: object) -> object:
        if isinstance(ends, (list, tuple)) and len(ends) != 2:
            raise ValueError("must be two numbers, the lowest and the highest, as in [-100, 1500]")
        return ends

    @field_validator("value_range")
    @classmethod
    def _check_order(cls, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        if ends is not None and not ends[0] < ends[1]:
            raise ValueError(f"{ends[0]} is not below {ends[1]}")
        return ends


class AnyExplorationConfig(Section):
    """`[exploration]`: what all kinds share."""

    epsilon: Annotated[Fraction | None, TRACED, STRUCTURAL] = None
    """with this probability the action is uniform on [-1, 1] instead; left out: never"""


class NoNoiseConfig(AnyExplorationConfig):
    """`[exploration]` with `kind = "none"`: the greedy policy acts."""

    kind: Annotated[Literal["none"], STRUCTURAL]
    """none"""


class ScheduledConfig(AnyExplorationConfig):
    """What noise shares whose scale may change in the course of a run."""

    sigma: Annotated[Scale, TRACED, LEARNING]
    """scale at the start, in units of half the action range"""
    schedule: Annotated[Literal["constant", "linear", "exponential", "inverse_episode"], STRUCTURAL] = "constant"
    """how sigma changes: not at all, to sigma_end by equal differences or ratios, or as sigma/(1 + episode)"""
    sigma_end: Annotated[Scale, TRACED, LEARNING] = 0.0
    """scale at the end of the schedule"""
    schedule_steps: Annotated[Count | None, LEARNING] = None
    """environment steps of each seed after the warm-up until it is reached; left out: the rest of the run"""

    @property
    def ends(self) -> bool:
        """Whether sigma goes to sigma_end."""
        return self.schedule in ("linear", "exponential")

    @model_validator(mode="after")
    def _reachable(self) -> ScheduledConfig:
        if self.schedule == "exponential" and not (self.sigma > 0 and self.sigma_end > 0):
            raise ValueError(
                f'sigma={self.sigma}, sigma_end={self.sigma_end}: schedule="exponential" goes between numbers above 0'
            )
        given = {"sigma_end": self.sigma_end or None, "schedule_steps": self.schedule_steps}
        for name, value in given.items():
            if value is not None and not self.ends:
                raise ValueError(
                    f'{name}={value} has no effect with schedule="{self.schedule}"; '
                    'set schedule to "linear" or "exponential"'
                )
        return self


class GaussianConfig(ScheduledConfig):
    """`[exploration]` with `kind = "gaussian"`."""

    kind: Annotated[Literal["gaussian"], STRUCTURAL] = "gaussian"
    """independent normal noise"""
    sigma: Annotated[Scale, TRACED, LEARNING] = 0.1
    """standard deviation, in units of half the action range"""
    hold: Annotated[Annotated[int, Field(ge=1, le=1000)] | None, STRUCTURAL] = None
    """each draw is held for some steps, at most so many, k of them with probability in proportion to 1/k²; left out:
    for one"""


class OUConfig(ScheduledConfig):
    """`[exploration]` with `kind = "ou"`."""

    kind: Annotated[Literal["ou"], STRUCTURAL]
    """an Ornstein-Uhlenbeck process"""
    theta: Annotated[float, Field(ge=0, le=1000), TRACED, LEARNING] = 0.15
    """rate of return to 0"""
    sigma: Annotated[Scale, TRACED, LEARNING] = 0.2
    """diffusion, in units of half the action range"""
    dt: Annotated[float, Field(gt=0, le=1), TRACED, LEARNING] = 1.0
    """time between two steps; theta times dt must be below 2"""

    @model_validator(mode="after")
    def _stable(self) -> OUConfig:
        if self.theta * self.dt >= 2:
            raise ValueError(
                f"theta={self.theta} with dt={self.dt} makes noise that grows without bound: theta·dt must be below 2"
            )
        return self


class GaussianPerEnvConfig(AnyExplorationConfig):
    """`[exploration]` with `kind = "gaussian_per_env"`."""

    kind: Annotated[Literal["gaussian_per_env"], STRUCTURAL]
    """normal noise whose deviation is drawn for each environment, anew with each episode"""
    sigma_min: Annotated[Scale, TRACED, LEARNING] = 0.001
    """smallest deviation, in units of half the action range"""
    sigma_max: Annotated[Scale, TRACED, LEARNING] = 0.4
    """largest deviation"""

    @model_validator(mode="after")
    def _check_order(self) -> GaussianPerEnvConfig:
        if self.sigma_min > self.sigma_max:
            raise ValueError(f"sigma_min={self.sigma_min} is above sigma_max={self.sigma_max}")
        return self


class ParameterConfig(AnyExplorationConfig):
    """`[exploration]` with `kind = "parameter"`."""

    kind: Annotated[Literal["parameter"], STRUCTURAL]
    """normal noise on the actor's parameters, one draw for an episode"""
    sigma: Annotated[Scale, TRACED, LEARNING] = 0.1
    """its standard deviation at the start"""
    target_distance: Annotated[float, Field(gt=0, le=1), TRACED, LEARNING] = 0.2
    """root mean square of what it does to actions, in units of half the action range, that sigma is adapted to"""
    adapt_every: Annotated[int, Field(ge=1, le=10**6), LEARNING] = 50
    """steps of an environment between two adaptations"""
    adapt_factor: Annotated[float, Field(ge=1, le=10), TRACED, LEARNING] = 1.01
    """sigma is multiplied or divided by it; 1: sigma stays"""


ExplorationConfig: TypeAlias = NoNoiseConfig | GaussianConfig | OUConfig | GaussianPerEnvConfig | ParameterConfig
"""The union of the kinds of exploration, told apart by `kind`."""


class UniformReplayConfig(Section):
    """`[replay]` with `kind = "uniform"`."""

    kind: Annotated[Literal["uniform"], STRUCTURAL] = "uniform"
    """transitions are drawn alike"""
    capacity: Annotated[Count, STRUCTURAL] = 100_000
    """transitions of each seed"""


class PrioritizedReplayConfig(Section):
    """`[replay]` with `kind = "prioritized"`.

    Transitions are drawn in proportion to (|TD error| + epsilon)^alpha. The error is that of the critics' values. For
    D4PG too it is the error of the means, not the cross-entropy of the distributions by which Barth-Maron et al.
    (arXiv:1804.08617) set priorities.
    """

    kind: Annotated[Literal["prioritized"], STRUCTURAL]
    """transitions are drawn in proportion to their last error"""
    capacity: Annotated[Count, STRUCTURAL] = 100_000
    """transitions of each seed"""
    alpha: Annotated[Fraction, TRACED, LEARNING] = 0.6
    """how far the error decides; 0: not at all"""
    beta: Annotated[Fraction, TRACED, LEARNING] = 0.4
    """how far weights make up for it, at the first update"""
    beta_end: Annotated[Fraction, TRACED, LEARNING] = 1.0
    """likewise at the last update; linear between them"""
    epsilon: Annotated[float, Field(gt=0, le=1), TRACED, LEARNING] = 1e-6
    """added to the error, so that nothing is lost for ever"""
    fade: Annotated[float, Field(gt=0, le=1), LEARNING] = 1.0
    """what priorities are multiplied by for each transition that has come since, as 0.9999 (DR.Q); weights do not make
    up for it; 1: they do not fade"""
    fade_floor: Annotated[Fraction, LEARNING] = 0.1
    """the least that is left of them, where they fade"""


class HindsightReplayConfig(Section):
    """`[replay]` with `kind = "hindsight"`.

    For environments of gymnasium that are told which goal to reach: a transition may be given a goal that was achieved
    later in its episode (Andrychowicz et al., arXiv:1707.01495, strategy `future`).
    """

    kind: Annotated[Literal["hindsight"], STRUCTURAL]
    """transitions are drawn alike, and most of them given another goal"""
    capacity: Annotated[Count, STRUCTURAL] = 100_000
    """transitions of each seed"""
    relabel: Annotated[Fraction, LEARNING] = 0.8
    """share of the transitions drawn that are given another goal; 0.8: four for each with its own, as published"""


ReplayConfig: TypeAlias = UniformReplayConfig | PrioritizedReplayConfig | HindsightReplayConfig
"""The union of the replays' configurations, told apart by `kind`."""


class EvaluationConfig(Section):
    """`[evaluation]`."""

    every: Annotated[CountOrZero, HARMLESS] = 2000
    """environment steps of each seed between evaluations; 0: only at the end"""
    episodes: Annotated[int, Field(ge=1, le=100_000), HARMLESS] = 10
    """episodes of each seed in an evaluation"""


class LoggingConfig(Section):
    """`[logging]`."""

    every: Annotated[int, Field(ge=1, le=10**8), HARMLESS] = 1000
    """environment steps of each seed between two rows of metrics; with many environments, set it to many times their
    number"""
    tensorboard: Annotated[bool, HARMLESS] = True
    """write event files"""
    augmentations: Annotated[bool, HARMLESS] = False
    """draw a batch of pictures as it is stored and as it is shifted, augmentations.png, at the first report"""
    sinks: Annotated[tuple[str, ...], HARMLESS] = ()
    """where the record is sent while it is written: wandb, mlflow, trackio, each with the extra of its name; or
    module:Class"""
    loggers: Annotated[tuple[str, ...], HARMLESS] = ()
    """loggers of your own: functions or classes that make one, as `module:name`, or registered by a plugin"""
    callbacks: Annotated[tuple[str, ...], HARMLESS] = ()
    """callbacks of your own, likewise: functions that are called at every report"""

    @field_validator("sinks", mode="before")
    @classmethod
    def _one_or_more(cls, names: object) -> object:
        return tuple(name.strip() for name in names.split(",")) if isinstance(names, str) else names

    @field_validator("sinks")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in SINKS and ":" not in name and find("sink", name) is None]
        if unknown:
            close = difflib.get_close_matches(unknown[0][:50], SINKS, n=1)
            raise ValueError(
                f"there is no sink {unknown[0][:50]!r}; there are {', '.join(SINKS)}"
                + (f"; did you mean {close[0]}?" if close else "")
            )
        if len(set(names)) < len(names):
            raise ValueError("a sink stands twice in the list")
        return names


class CheckpointConfig(Section):
    """`[checkpoint]`: what is kept on disk so that a run can be resumed."""

    every: Annotated[CountOrZero, HARMLESS] = 10_000
    """environment steps of each seed between checkpoints; 0: only where the run is told to stop
    or an environment fails"""
    min_seconds: Annotated[float, Field(ge=0, le=86400), HARMLESS] = 10.0
    """seconds between two checkpoints at least, so that fast runs do not spend their time on them"""
    keep: Annotated[int, Field(ge=2, le=1000), HARMLESS] = 2
    """how many of the newest are kept; the one with the best evaluation is kept beside them"""
