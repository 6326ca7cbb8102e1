"""The configuration: what a run is. Its sections are in `sections`.

The defaults train DDPG on Pendulum. How a file and a command line become a `Config`, and how mistakes are reported, is
in `load`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ddpg_jax.config.algorithms import AlgorithmConfig, DDPGConfig
from ddpg_jax.config.conflicts import find_conflicts
from ddpg_jax.config.marks import HARMLESS, LEARNING, STRUCTURAL, traced_fields
from ddpg_jax.config.memory import MemoryConfig
from ddpg_jax.config.pixels import EncoderConfig, PixelsConfig
from ddpg_jax.config.plugins import find
from ddpg_jax.config.section import Count, Section
from ddpg_jax.config.sections import (
    CheckpointConfig,
    EnvConfig,
    EvaluationConfig,
    ExplorationConfig,
    GaussianConfig,
    LoggingConfig,
    ReplayConfig,
    ScheduledConfig,
    Seed,
    UniformReplayConfig,
)
from ddpg_jax.config.values import named_wrappers
from ddpg_jax.errors import ConfigError

DEVICE_BACKENDS = ("jax", "phys2d", "gymnax", "brax", "playground")
"""What may stand before the colon in the id of an environment written in JAX."""


class Config(Section):
    """A run."""

    seeds: Annotated[Count | Annotated[tuple[Seed, ...], Field(min_length=1)], STRUCTURAL] = 5
    """how many, or the list of them"""
    total_steps: Annotated[Count, LEARNING] = 12_000
    """environment steps of each seed, over all its environments"""
    loop: Annotated[Literal["host", "device", "auto"], HARMLESS] = "auto"
    """host: gymnasium environments; device: environments written in JAX, all in one program; auto: as env.id says"""
    precision: Annotated[Literal["float32", "bfloat16"], LEARNING] = "float32"
    """of the factors of matrix products; sums, parameters and optimiser stay float32"""
    data_parallel: Annotated[int, Field(ge=1, le=65536), LEARNING] = 1
    """devices that share each batch, on the device loop; the rest of the devices divides the seeds"""
    env: EnvConfig = EnvConfig()
    """[env]"""
    algorithm: Annotated[AlgorithmConfig, Field(discriminator="name")] = DDPGConfig()
    """[algorithm]"""
    exploration: Annotated[ExplorationConfig, Field(discriminator="kind")] = GaussianConfig()
    """[exploration]"""
    replay: Annotated[ReplayConfig, Field(discriminator="kind")] = UniformReplayConfig()
    """[replay]"""
    evaluation: EvaluationConfig = EvaluationConfig()
    """[evaluation]"""
    logging: LoggingConfig = LoggingConfig()
    """[logging]"""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """[checkpoint]"""

    @property
    def on_device(self) -> bool:
        """Whether the device loop trains it: its environment is written in JAX."""
        return is_device_env(self.env.id)

    @property
    def algorithm_name(self) -> str:
        """Who learns: the agent of one's own, or the algorithm."""
        return self.algorithm.make_agent or self.algorithm.name

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds of the run, S of them."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def max_devices(self) -> int:
        """Devices that the device loop has work for: one for each seed and each part of a batch."""
        return len(self.seed_list) * self.data_parallel

    def updates_owed(self, step: int) -> int:
        """Updates of each seed that are due after `step` environment steps of it."""
        algorithm = self.algorithm
        return int(round(max(0, step - max(algorithm.learning_begins, 1)) * algorithm.updates_per_step, 6))

    @model_validator(mode="before")
    @classmethod
    def _support_from_task(cls, values: object) -> object:
        """Gives a categorical algorithm without v_min or v_max the env.value_range of its task."""
        if not isinstance(values, dict):
            return values
        given = cast("dict[str, Any]", values)
        env, algorithm = given.get("env"), given.get("algorithm")
        ends = env.get("value_range") if isinstance(env, dict) else getattr(env, "value_range", None)
        if ends is None or not isinstance(algorithm, dict) or str(algorithm.get("name")) not in _CATEGORICAL:
            return given
        low, high = ends if _is_range(ends) else (-1.0, 1.0)  # a wrong range is a mistake of its own
        return given | {"algorithm": {"v_min": low, "v_max": high} | algorithm}

    @model_validator(mode="before")
    @classmethod
    def _encoder_for_pixels(cls, values: object) -> object:
        """Gives an algorithm without an encoder the default one, where the environment shows pictures."""
        if not isinstance(values, dict):
            return values
        given = cast("dict[str, Any]", values)
        env, algorithm = given.get("env"), given.get("algorithm", {})
        pixels = env.get("pixels") if isinstance(env, dict) else getattr(env, "pixels", None)
        if pixels is None or not isinstance(algorithm, dict):
            return given
        return given | {"algorithm": {"encoder": {}} | algorithm}

    @model_validator(mode="after")
    def _without_conflicts(self) -> Config:
        conflicts = find_conflicts(self)
        if conflicts:
            text = "; ".join(f"{each.path}: {each.message}" for each in conflicts)
            raise PydanticCustomError("conflicts", "{text}", {"text": text, "conflicts": conflicts})
        return self

    @field_validator("seeds")
    @classmethod
    def _sensible(cls, seeds: int | tuple[int, ...]) -> int | tuple[int, ...]:
        count = seeds if isinstance(seeds, int) else len(seeds)
        if count > 65536:
            raise ValueError(
                f"{count} seeds side by side are more than 65536; to name one seed write a list: [{seeds}]"
            )
        if not isinstance(seeds, int) and len(set(seeds)) < len(seeds):
            raise ValueError("a seed stands twice in the list; equal seeds give equal runs")
        return seeds

    @field_validator("algorithm", "exploration", "replay", mode="before")
    @classmethod
    def _default_tag(cls, value: object, info: ValidationInfo) -> object:
        defaults = {"algorithm": "ddpg", "exploration": "gaussian", "replay": "uniform"}
        tag = {TAGS[str(info.field_name)]: defaults[str(info.field_name)]}
        return tag | name_agent(cast("dict[str, object]", value)) if isinstance(value, dict) else value


TAGS = {"algorithm": "name", "exploration": "kind", "replay": "kind"}
"""The field that tells the models of a section apart."""


def sections() -> dict[str, tuple[type[BaseModel], ...]]:
    """The sections of the configuration, each with the models it may hold; a table inside one is named with its dot."""
    return {
        "env": (EnvConfig,),
        "env.pixels": (PixelsConfig,),
        "algorithm": get_args(AlgorithmConfig),
        "algorithm.memory": (MemoryConfig,),
        "algorithm.encoder": (EncoderConfig,),
        "exploration": get_args(ExplorationConfig),
        "replay": get_args(ReplayConfig),
        "evaluation": (EvaluationConfig,),
        "logging": (LoggingConfig,),
        "checkpoint": (CheckpointConfig,),
    }


def takes_fractions(path: str) -> bool:
    """Whether a field, as `section.field`, may be a floating-point number; of an unknown one nothing else is said."""
    section, _, name = path.rpartition(".")
    fields = [model.model_fields[name] for model in sections().get(section, ()) if name in model.model_fields]
    return not fields or any(float in (field.annotation, *get_args(field.annotation)) for field in fields)


_CATEGORICAL = {
    m.model_fields["name"].annotation.__args__[0] for m in get_args(AlgorithmConfig) if "v_min" in m.model_fields
}


def _is_range(ends: object) -> bool:
    try:
        return EnvConfig.model_validate({"value_range": ends}).value_range is not None
    except ValidationError:
        return False


def is_device_env(identifier: str) -> bool:
    """Whether an id names an environment written in JAX."""
    prefix, colon, _ = identifier.partition(":")
    return bool(colon) and prefix in DEVICE_BACKENDS


def warn_of_idle_learner(config: Config) -> list[str]:
    """A line if nothing is learned in the whole run, as no update is due before its end."""
    algorithm, steps = config.algorithm, config.total_steps
    updates, least = config.updates_owed(steps), algorithm.updates_per_call or 1
    if updates >= least:
        return []
    field = "warmup_steps" if algorithm.learning_starts is None else "learning_starts"
    why = f"algorithm.{field}={algorithm.learning_begins} come before the first update"
    if algorithm.learning_begins < steps:
        why = f"algorithm.updates_per_step={algorithm.updates_per_step} makes {updates} due, of {least} in a call"
    return [f"warning: nothing is learned in total_steps={steps}: {why}"]


def names_module(identifier: str) -> bool:
    """Whether a name says which module to import, as in `module:id` and `jax:module:function`."""
    prefix, colon, name = identifier.partition(":")
    return bool(colon) and (not is_device_env(identifier) or (prefix == "jax" and ":" in name))


PARTS = (
    ("env", "id"),
    ("algorithm", "make_agent"),
    ("algorithm", "make_networks"),
    ("logging", "sinks"),
    ("logging", "loggers"),
    ("logging", "callbacks"),
)
"""The fields that may name parts of one's own, whose modules are imported."""


def imported_names(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What nested values say shall be imported: the fields, as `section.field`, each with a name."""
    found: list[tuple[str, str]] = []
    for section, field in PARTS:
        table = values.get(section)
        named = cast("Mapping[str, Any]", table).get(field) if isinstance(table, Mapping) else None
        each = named if isinstance(named, (list, tuple)) else [named]
        found += [(f"{section}.{field}", name) for name in each if isinstance(name, str) and names_module(name)]
    return found + [(path, name) for path, name in named_wrappers(values) if ":" in name]


def name_agent(table: Mapping[str, Any]) -> dict[str, Any]:
    """`[algorithm]` whose name is that of an agent of one's own: it is `make_agent`, with the fields of the default."""
    name = table.get("name")
    own = isinstance(name, str) and (":" in name or (name not in _algorithms() and find("agent", name) is not None))
    kept = {field: value for field, value in table.items() if not (own and field == "name")}
    return kept | {"make_agent": name} if own else kept


def _algorithms() -> set[str]:
    return {m.model_fields["name"].annotation.__args__[0] for m in get_args(AlgorithmConfig)}  # pyright: ignore[reportOptionalMemberAccess]


def hyper_paths(config: Config) -> tuple[str, ...]:
    """The fields of a configuration that may be traced, as `section.field`."""
    tables: dict[str, Any] = {name: getattr(config, name) for name in TAGS} | {
        "algorithm.memory": config.algorithm.memory,
        "algorithm.encoder": config.algorithm.encoder,
    }
    given = {name: type(table) for name, table in tables.items() if table is not None}
    paths = [f"{name}.{field}" for name, model in given.items() for field in traced_fields(model)]
    decays = {f"algorithm.{name}_weight_decay" for name in ("critic", "actor", "encoder")}
    unused = decays if config.algorithm.weight_decay == "none" else set[str]()
    if isinstance(config.exploration, ScheduledConfig) and not config.exploration.ends:
        unused = unused | {"exploration.sigma_end"}
    return tuple(path for path in paths if path not in unused)


def lane_paths(config: Config) -> tuple[str, ...]:
    """The fields of a configuration in which lanes of one program may differ.

    On the device loop these are all of `hyper_paths`. The replay of the host loop draws and folds with numbers of its
    own, for all lanes the same: they are structure there.
    """
    paths = hyper_paths(config)
    return paths if config.on_device else tuple(path for path in paths if path not in _OF_HOST_REPLAY)


_OF_HOST_REPLAY = frozenset(
    {"algorithm.gamma", *(f"replay.{name}" for name in ("alpha", "beta", "beta_end", "epsilon"))}
)


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with other values at some of `hyper_paths`; they are not checked, so they may be traced.

    Args:
      config: the run.
      values: numbers or arrays `[]` by path, as in `{"algorithm.tau": 0.01}`.

    Raises:
      ConfigError: a path is not among `hyper_paths`.
    """
    known = hyper_paths(config)
    for path, value in values.items():
        if path not in known:
            raise ConfigError(f"{path} is not a number that may differ from lane to lane; these are {', '.join(known)}")
        config = _with_value(config, path, value)
    return config


def _with_value(section: Any, path: str, value: Any) -> Any:
    name, _, rest = path.partition(".")
    return section.model_copy(update={name: _with_value(getattr(section, name), rest, value) if rest else value})
