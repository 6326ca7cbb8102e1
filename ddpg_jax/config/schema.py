"""The configuration: what a run is. Its sections are in `sections`.

The defaults train DDPG on Pendulum. How a file and a command line become a `Config`, and how mistakes are reported, is
in `load`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from ddpg_jax.config.algorithms import AlgorithmConfig, DDPGConfig
from ddpg_jax.config.sections import (
    CheckpointConfig,
    Count,
    EnvConfig,
    EvaluationConfig,
    ExplorationConfig,
    GaussianConfig,
    LoggingConfig,
    ReplayConfig,
    ScheduledConfig,
    Section,
    Seed,
    UniformReplayConfig,
)
from ddpg_jax.errors import ConfigError

DEVICE_BACKENDS = ("jax", "phys2d", "gymnax", "brax", "playground")
"""What may stand before the colon in the id of an environment written in JAX."""


class Config(Section):
    """A run."""

    seeds: Count | Annotated[tuple[Seed, ...], Field(min_length=1)] = 5
    """how many, or the list of them"""
    total_steps: Count = 12_000
    """environment steps of each seed, over all its environments"""
    loop: Literal["host", "device", "auto"] = "auto"
    """host: gymnasium environments; device: environments written in JAX, all in one program; auto: as env.id says"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """of the factors of matrix products; sums, parameters and optimiser stay float32"""
    data_parallel: Annotated[int, Field(ge=1, le=65536)] = 1
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
    def seed_list(self) -> tuple[int, ...]:
        """The seeds of the run, S of them."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def most_devices(self) -> int:
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
        if ends is None or not isinstance(algorithm, dict) or algorithm.get("name") not in _CATEGORICAL:
            return given
        low, high = ends if _is_range(ends) else (-1.0, 1.0)  # a wrong range is a mistake of its own
        return given | {"algorithm": {"v_min": low, "v_max": high} | algorithm}

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
        return tag | cast("dict[str, object]", value) if isinstance(value, dict) else value


TAGS = {"algorithm": "name", "exploration": "kind", "replay": "kind"}
"""The field that tells the models of a section apart."""


def sections() -> dict[str, tuple[type[BaseModel], ...]]:
    """The sections of the configuration, each with the models it may hold."""
    return {
        "env": (EnvConfig,),
        "algorithm": get_args(AlgorithmConfig),
        "exploration": get_args(ExplorationConfig),
        "replay": get_args(ReplayConfig),
        "evaluation": (EvaluationConfig,),
        "logging": (LoggingConfig,),
        "checkpoint": (CheckpointConfig,),
    }


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


def hyper_paths(config: Config) -> tuple[str, ...]:
    """The fields of a configuration that may be traced, as `section.field`."""
    paths = [f"{name}.{field}" for name in TAGS for field in getattr(config, name).hyper]
    decays = {"algorithm.critic_weight_decay", "algorithm.actor_weight_decay"}
    unused = decays if config.algorithm.weight_decay == "none" else set[str]()
    if isinstance(config.exploration, ScheduledConfig) and not config.exploration.ends:
        unused = unused | {"exploration.sigma_end"}
    return tuple(path for path in paths if path not in unused)


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
        section, _, field = path.partition(".")
        config = config.model_copy(update={section: getattr(config, section).model_copy(update={field: value})})
    return config


def chosen_loop(config: Config) -> str:
    """The loop that trains a configuration: "host" or "device".

    Raises:
      ConfigError: the loop that is asked for cannot run the environment, or worker processes are asked for in vain.
    """
    identifier, native = config.env.id, "device" if is_device_env(config.env.id) else "host"
    if config.loop not in ("auto", native):
        what = "written in JAX" if native == "device" else "a gymnasium environment"
        hint = "; its counterpart written in JAX is jax:pendulum" if identifier == "Pendulum-v1" else ""
        raise ConfigError(
            f'loop = "{config.loop}" cannot run env.id={identifier!r}, which is {what}: set loop to "{native}"{hint}'
        )
    if native == "host" and config.data_parallel > 1:
        raise ConfigError(f"data_parallel={config.data_parallel} has no effect on the host loop: set it to 1")
    if native == "device" and config.env.workers:
        raise ConfigError(f"env.workers={config.env.workers} has no effect on {identifier!r}, which is written in JAX")
    return native
