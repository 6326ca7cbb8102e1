"""The configuration: what a run is, as frozen records that know their ranges.

Order: defaults, then the file, then the command line. All mistakes are found at once and reported with their path, the
value, what is allowed and the nearest key, before jax is imported. The defaults train DDPG on Pendulum.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, cast, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from ddpg_jax.errors import ConfigError

Rate: TypeAlias = Annotated[float, Field(gt=0, le=1)]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=2**53)]
CountOrZero: TypeAlias = Annotated[int, Field(ge=0, le=2**53)]
Scale: TypeAlias = Annotated[float, Field(ge=0, le=10)]
Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class EnvConfig(_Section):
    """`[env]`: where the agent lives."""

    id: str = "Pendulum-v1"
    """a gymnasium id; "module:id" on the command line only"""
    num_envs: Annotated[int, Field(ge=1, le=65536)] = 1
    """environments of each seed, E"""
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """processes that run the environments, and as many for evaluation; 0: in this process"""
    worker_timeout: Annotated[float, Field(gt=0, le=86400)] = 60.0
    """seconds a worker process may take for one step"""
    max_episode_steps: Count | None = None
    """time limit of an episode; left out: the environment's own"""
    kwargs: dict[str, bool | int | float | str] = Field(default_factory=dict[str, bool | int | float | str])
    """arguments of the environment's constructor"""


class DDPGConfig(_Section):
    """`[algorithm]` with `name = "ddpg"`."""

    name: Literal["ddpg"] = "ddpg"
    """the algorithm"""
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(min_length=1, max_length=32)] = (64, 64)
    """widths of the hidden layers of actor and critic"""
    activation: Literal["relu", "elu", "tanh", "silu"] = "relu"
    """of the hidden layers"""
    initializer: Literal["fan_in", "lecun_normal"] = "fan_in"
    """fan_in: U(+-1/sqrt(fan_in)) for weights and biases"""
    final_scale: Annotated[float, Field(gt=0, le=10)] | None = None
    """last layers are drawn from U(+-final_scale); left out: as the others"""
    action_layer: Annotated[int, Field(ge=0, le=31)] = 0
    """hidden layer of the critic that the action enters; 0: with the observation"""
    actor_learning_rate: Rate = 5e-4
    """of Adam"""
    critic_learning_rate: Rate = 1e-3
    """of Adam"""
    weight_decay: Literal["none", "l2", "decoupled"] = "none"
    """of the critic: l2 is added to the gradient, decoupled to the step"""
    critic_weight_decay: Fraction = 0.0
    """its coefficient"""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """gradients are scaled down to this global norm; left out: never"""
    gamma: Fraction = 0.99
    """discount of one step"""
    n_step: Annotated[int, Field(ge=1, le=1000)] = 1
    """steps folded into one transition"""
    tau: Annotated[float, Field(gt=0, le=1)] = 0.005
    """mixing factor of the targets"""
    batch_size: Annotated[int, Field(ge=1, le=2**24)] = 64
    """transitions of one update"""
    updates_per_step: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """updates for each environment step of a seed; may be below 1"""
    updates_per_call: Annotated[int, Field(ge=1, le=65536)] | None = None
    """updates in one compiled call; left out: those due after one step of all environments"""
    warmup_steps: CountOrZero = 500
    """environment steps of each seed with uniformly random actions"""
    learning_starts: CountOrZero | None = None
    """environment steps of each seed before the first update; left out: warmup_steps"""

    @property
    def narrow(self) -> bool:
        """Whether dispatch, not arithmetic, takes the time: every hidden layer is below 128 wide."""
        return max(self.hidden) < 128

    @model_validator(mode="after")
    def _consistent(self) -> DDPGConfig:
        if self.action_layer >= len(self.hidden):
            raise ValueError(f"action_layer={self.action_layer} is not one of {len(self.hidden)} hidden layers, from 0")
        if self.critic_weight_decay > 0 and self.weight_decay == "none":
            raise ValueError(
                f'critic_weight_decay={self.critic_weight_decay} has no effect with weight_decay="none"; '
                'set weight_decay to "l2" or "decoupled"'
            )
        return self


AlgorithmConfig: TypeAlias = DDPGConfig
"""The union of the algorithms' configurations, told apart by `name`."""


class NoNoiseConfig(_Section):
    """`[exploration]` with `kind = "none"`: the greedy policy acts."""

    kind: Literal["none"]
    """none"""


class GaussianConfig(_Section):
    """`[exploration]` with `kind = "gaussian"`."""

    kind: Literal["gaussian"] = "gaussian"
    """independent normal noise"""
    sigma: Scale = 0.1
    """standard deviation, in units of half the action range"""


class OUConfig(_Section):
    """`[exploration]` with `kind = "ou"`."""

    kind: Literal["ou"]
    """an Ornstein-Uhlenbeck process"""
    theta: Annotated[float, Field(ge=0, le=1000)] = 0.15
    """rate of return to 0"""
    sigma: Scale = 0.2
    """diffusion, in units of half the action range"""
    dt: Annotated[float, Field(gt=0, le=1)] = 1.0
    """time between two steps"""


ExplorationConfig: TypeAlias = NoNoiseConfig | GaussianConfig | OUConfig


class ReplayConfig(_Section):
    """`[replay]`."""

    kind: Literal["uniform"] = "uniform"
    """how transitions are drawn"""
    capacity: Count = 100_000
    """transitions of each seed"""


class EvaluationConfig(_Section):
    """`[evaluation]`."""

    every: CountOrZero = 2000
    """environment steps of each seed between evaluations; 0: only at the end"""
    episodes: Annotated[int, Field(ge=1, le=100_000)] = 10
    """episodes of each seed in an evaluation"""


class LoggingConfig(_Section):
    """`[logging]`."""

    every: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """environment steps of each seed between two rows of metrics"""
    tensorboard: bool = True
    """write event files"""


class Config(_Section):
    """A run."""

    seeds: Count | Annotated[tuple[Seed, ...], Field(min_length=1)] = 5
    """how many, or the list of them"""
    total_steps: Count = 12_000
    """environment steps of each seed, over all its environments"""
    loop: Literal["host", "auto"] = "auto"
    """which loop trains: "host" for gymnasium environments"""
    precision: Literal["float32"] = "float32"
    """of the matrix products"""
    env: EnvConfig = EnvConfig()
    """[env]"""
    algorithm: AlgorithmConfig = DDPGConfig()
    """[algorithm]"""
    exploration: Annotated[ExplorationConfig, Field(discriminator="kind")] = GaussianConfig()
    """[exploration]"""
    replay: ReplayConfig = ReplayConfig()
    """[replay]"""
    evaluation: EvaluationConfig = EvaluationConfig()
    """[evaluation]"""
    logging: LoggingConfig = LoggingConfig()
    """[logging]"""

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds of the run, S of them."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

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

    @field_validator("exploration", mode="before")
    @classmethod
    def _default_kind(cls, value: object) -> object:
        return {"kind": "gaussian"} | cast("dict[str, object]", value) if isinstance(value, dict) else value


def load_config(path: str | Path | None = None, **overrides: Any) -> Config:
    """Reads a configuration: defaults, then the file, then the overrides.

    Args:
      path: a TOML file; None for the defaults.
      **overrides: top-level fields; a mapping for a section, as in `load_config(seeds=5, algorithm={"tau": 0.01})`.

    Returns:
      The configuration.

    Raises:
      ConfigError: listing every mistake.
    """
    return resolve(read_toml(path) if path is not None else {}, overrides, source=str(path) if path else "the file")


def read_toml(path: str | Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
      ConfigError: there is no such file, or it is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error


def resolve(
    values: Mapping[str, Any], overrides: Mapping[str, Any], *, source: str, more: Mapping[str, str] | None = None
) -> Config:
    """Merges values and overrides over the defaults and checks them.

    Args:
      values: nested values of a file.
      overrides: nested values that win over them.
      source: what the file is called in messages.
      more: mistakes already found, message by path; reported with the others.

    Raises:
      ConfigError: listing every mistake.
    """
    merged = merge(_without_other_kind(values, overrides), overrides)
    problems = dict(more or {}) | _not_numbers(merged)
    identifier = merged.get("env", {}).get("id", "") if isinstance(merged.get("env"), dict) else ""
    config = None
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            path, message = _describe(details, merged)
            if message and not any(known.startswith(f"{path}.") for known in problems):
                problems.setdefault(path, message)
    if isinstance(identifier, str) and ":" in identifier and not _lookup(overrides, ("env", "id")):
        problems["env.id"] = f"{identifier!r}: a module to import may be named on the command line only"
    if problems or config is None:
        raise ConfigError(_report(problems, overrides, merged, source))
    return config


def dump_toml(config: Config) -> str:
    """The configuration as TOML, every field; reads back equal."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Joins two nested mappings; the second wins."""
    joined = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(joined.get(key), Mapping)
        joined[key] = merge(joined[key], cast("Mapping[str, Any]", value)) if both else value
    return joined


def nearest(word: str, words: list[str]) -> str:
    """`; did you mean X?`, or what there is, or nothing."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(words)}" if 0 < len(words) <= 24 else ""


def sections() -> dict[str, tuple[type[BaseModel], ...]]:
    """The sections of the configuration, each with the models it may hold."""
    return {
        "env": (EnvConfig,),
        "algorithm": (DDPGConfig,),
        "exploration": (NoNoiseConfig, GaussianConfig, OUConfig),
        "replay": (ReplayConfig,),
        "evaluation": (EvaluationConfig,),
        "logging": (LoggingConfig,),
    }


def _without_other_kind(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values without the exploration section, if the overrides ask for another kind: its fields are not theirs."""
    kind, other = (_lookup(each, ("exploration", "kind")) for each in (values, overrides))
    if other is None or other == kind:
        return values
    return {name: value for name, value in values.items() if name != "exploration"}


def _not_numbers(merged: Mapping[str, Any]) -> dict[str, str]:
    """Booleans and texts where a number belongs; pydantic would turn them into numbers."""
    places = [((name,), field) for name, field in Config.model_fields.items()]
    for section, models in sections().items():
        places += [((section, name), field) for model in models for name, field in model.model_fields.items()]
    given = [(path, _lookup(merged, path)) for path, field in places if _is_number(field.annotation)]
    return {
        ".".join(path): f"must be a number, not {type(value).__name__}"
        for path, value in given
        if isinstance(value, (bool, str))
    }


def _is_number(annotation: Any) -> bool:
    return annotation in (int, float) or (
        get_origin(annotation) is not tuple and any(_is_number(part) for part in get_args(annotation))
    )


def _fields_at(path: tuple[str, ...], merged: Mapping[str, Any]) -> list[str]:
    """The keys that are known where an unknown one was found."""
    if not path:
        return list(Config.model_fields)
    models = sections().get(path[0], ())
    kind = _lookup(merged, (path[0], "kind"))
    chosen = [m for m in models if len(models) == 1 or kind in (m.model_fields["kind"].default, _only_kind(m))]
    return sorted({name for model in chosen or models for name in model.model_fields})


def _only_kind(model: type[BaseModel]) -> str:
    return model.model_fields["kind"].annotation.__args__[0]  # type: ignore[union-attr]


def _describe(details: ErrorDetails, merged: Mapping[str, Any]) -> tuple[str, str]:
    """Path and message of one pydantic error, without the tags that pydantic puts into paths."""
    where: list[str] = []
    node: Any = merged
    for part in details["loc"]:
        if isinstance(node, Mapping) and part in node:
            node = node[part]
            where.append(str(part))
        elif isinstance(node, (list, tuple)) and isinstance(part, int):
            node = node[part]  # pyright: ignore[reportUnknownVariableType]
            where.append(str(part))
    path, kind = ".".join(where), details["type"]
    if kind == "extra_forbidden":
        known = _fields_at(tuple(where[:-1]), merged)
        return path, f"unknown key{nearest(where[-1], known)}"
    if kind == "union_tag_invalid":
        kinds = [_only_kind(model) for model in sections()[path]]
        close = difflib.get_close_matches(str(_lookup(merged, (path, "kind"))), kinds, n=1)
        choices = f"must be {', '.join(map(repr, kinds[:-1]))} or {kinds[-1]!r}"
        return f"{path}.kind", choices + (f"; did you mean {close[0]}?" if close else "")
    other_branch = kind == "int_type" if isinstance(node, list) else kind == "tuple_type" and path == "seeds"
    message = "" if other_branch else details["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "must be").replace("a valid tuple", "a list, as in [64, 64]")
    return path, message[:1].lower() + message[1:]


def _lookup(values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    node: Any = values
    for part in path:
        if isinstance(node, Mapping) and part in node:
            node = cast("Mapping[str, Any]", node)[part]
        elif isinstance(node, list) and part.isdigit() and int(part) < len(cast("list[Any]", node)):
            node = cast("list[Any]", node)[int(part)]
        else:
            return None
    return node


def _report(problems: Mapping[str, str], overrides: Mapping[str, Any], merged: Mapping[str, Any], source: str) -> str:
    lines: list[str] = []
    for path, message in problems.items():
        keys = tuple(path.split("."))
        value = _lookup(merged, keys)
        origin = source if _lookup(overrides, keys) is None else "command line"
        lines.append(f"  {path}: {message}" if value is None else f"  {path} = {value!r} ({origin}): {message}")
    count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    return f"{count} in the configuration:\n" + "\n".join(lines)
