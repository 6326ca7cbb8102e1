"""The actor of a run as a list of steps on named arrays, which a reader without flax can follow.

Only networks that the package makes itself are known here. A policy is `obs -> steps -> tanh`, in [-1, 1]; the bounds
of the environment come afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

from ddpg_jax.agents.sphere import KEEP_ABOVE_ZERO, SHIFT
from ddpg_jax.config.wording import option
from ddpg_jax.errors import ConfigError

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config
    from ddpg_jax.types import HostArray

Step: TypeAlias = dict[str, Any]
"""`op`, the names of its arrays, and numbers:

`normalize` (x − mean) / (sqrt(variance) + epsilon), clipped to ±clip where it is given; `dense` x·kernel + bias, which
it may lack, with `factors = "bfloat16"` of factors rounded to bfloat16; `layer_norm` (x − mean of x) / sqrt(variance
of x + epsilon) · scale + bias; `batch_norm` the same by its own mean and variance; `rms_norm` x / sqrt(mean of x² +
epsilon) · scale; `residual` x + steps(x); `blend`
x + share · by · (steps(x) − x); `scale` x · scale · by; `append` value beside x; `add` x + value; `unit`
x / max(|x|, 1e-8); `relu`, `elu`, `silu`, `tanh`.
"""

_WEIGHTS, _MOMENTS = "params/actor/params", "stats/networks/actor"
_UNREAD = {"stats/obs/size", *(f"stats/obs/rest/{name}" for name in ("size", "mean", "variance"))}
_LAYER_EPSILON, _BATCH_EPSILON = 1e-6, 1e-5


def actor_steps(config: Config, arrays: Mapping[str, HostArray]) -> list[Step]:
    """The steps of a run's actor.

    Args:
      config: of the run.
      arrays: that the policy of one seed reads, by their stored names.

    Raises:
      ConfigError: the network is not one that the package makes.
    """
    embeds = config.algorithm.name in ("td7", "mrq") and config.algorithm.make_agent is None
    if embeds or config.algorithm.encoder is not None:
        raise ConfigError(
            f"a policy that sees {'embeddings' if embeds else 'pictures'} can be exported to safetensors and stablehlo "
            f"only: name those in {option('to')}"
        )
    steps = [*_normalizer(config), *_NETWORKS[config.algorithm.architecture](config), {"op": "tanh"}]
    if odd := sorted(set(_names(steps)) ^ (arrays.keys() - _UNREAD)):
        raise ConfigError(
            f"the actor is not a network of ddpg_jax, as {', '.join(odd[:3])} shows: such policies can be exported to "
            "safetensors and stablehlo only"
        )
    return steps


def _names(steps: list[Step]) -> Iterator[str]:
    for step in steps:
        yield from (value for key, value in step.items() if key not in ("op", "factors") and isinstance(value, str))
        yield from _names(step.get("steps", []))


def _normalizer(config: Config) -> list[Step]:
    if not config.algorithm.normalize_observations:
        return []
    epsilon, clip = config.algorithm.observation_epsilon, config.algorithm.observation_clip
    step = {"op": "normalize", "mean": "stats/obs/mean", "variance": "stats/obs/variance", "epsilon": epsilon}
    return [step | {"clip": clip} if clip else step]


def _dense(number: int, precision: str = "float32") -> Step:
    name = f"{_WEIGHTS}/Dense_{number}"
    step = {"op": "dense", "kernel": f"{name}/kernel", "bias": f"{name}/bias"}
    return step if precision == "float32" else step | {"factors": precision}


def _layer_norm(number: int) -> Step:
    name = f"{_WEIGHTS}/LayerNorm_{number}"
    return {"op": "layer_norm", "scale": f"{name}/scale", "bias": f"{name}/bias", "epsilon": _LAYER_EPSILON}


def _batch_norm(number: int) -> Step:
    name, moments = f"{_WEIGHTS}/BatchNorm_{number}", f"{_MOMENTS}/BatchNorm_{number}"
    arrays = {"mean": f"{moments}/mean", "variance": f"{moments}/var", "scale": f"{name}/scale", "bias": f"{name}/bias"}
    return {"op": "batch_norm", **arrays, "epsilon": _BATCH_EPSILON}


def _mlp(config: Config) -> list[Step]:
    algorithm = config.algorithm
    kind, layers = algorithm.normalization, len(algorithm.hidden)
    steps = [_batch_norm(0)] if kind == "batch" else list[Step]()
    for i in range(layers):
        norm = {"none": [], "layer": [_layer_norm(i)], "batch": [_batch_norm(i + 1)]}[kind]
        steps += [_dense(i, config.precision), *norm, {"op": algorithm.activation}]
    return [*steps, _dense(layers)]


def _simba(config: Config) -> list[Step]:
    blocks, steps = len(config.algorithm.hidden), [_dense(0, config.precision)]
    for i in range(blocks):
        wide, back = (_dense(2 * i + j, config.precision) for j in (1, 2))
        inner = [_layer_norm(i), wide, {"op": config.algorithm.activation}, back]
        steps.append({"op": "residual", "steps": inner})
    return [*steps, _layer_norm(blocks), _dense(2 * blocks + 1)]


def _flash(config: Config) -> list[Step]:
    """As in `agents.batch_blocks`."""
    blocks, layers, norms = len(config.algorithm.hidden), count(), count()

    def layer(precision: str) -> Step:
        step = {"op": "dense", "kernel": f"{_WEIGHTS}/UnitDense_{next(layers)}/unit_kernel"}
        return step if precision == "float32" else step | {"factors": precision}

    steps = [_batch_norm(next(norms)), layer(config.precision)]
    for _ in range(blocks):
        inner = [[layer(config.precision), _batch_norm(next(norms)), {"op": "relu"}] for _ in range(2)]
        steps.append({"op": "residual", "steps": inner[0] + inner[1]})
    last = {"op": "rms_norm", "scale": f"{_WEIGHTS}/RMSNorm_0/scale", "epsilon": _LAYER_EPSILON}
    return [*steps, last, layer("float32") | {"bias": f"{_WEIGHTS}/bias"}]


def _simba_v2(config: Config) -> list[Step]:
    """As in `agents.sphere`; layers and scales are numbered in their order."""
    blocks, width, precision = len(config.algorithm.hidden), config.algorithm.hidden[0], config.precision
    layers, scales = count(), count()

    def layer(precision: str) -> Step:
        step = {"op": "dense", "kernel": f"{_WEIGHTS}/UnitDense_{next(layers)}/unit_kernel"}
        return step if precision == "float32" else step | {"factors": precision}

    def factors() -> str:
        return f"{_WEIGHTS}/Scale_{next(scales)}/factors"

    steps = [{"op": "append", "value": SHIFT}, {"op": "unit"}, layer(precision)]
    steps += [{"op": "scale", "scale": factors(), "by": 1.0}, {"op": "unit"}]
    for _ in range(blocks):
        inside = [layer(precision), {"op": "scale", "scale": factors(), "by": 1.0}, {"op": "relu"}]
        inside += [{"op": "add", "value": KEEP_ABOVE_ZERO}, layer(precision), {"op": "unit"}]
        by = 1 / (blocks + 1) / width**-0.5
        steps += [{"op": "blend", "share": factors(), "by": by, "steps": inside}, {"op": "unit"}]
    steps += [layer(precision), {"op": "scale", "scale": factors(), "by": 1.0}]
    return [*steps, layer("float32") | {"bias": f"{_WEIGHTS}/bias"}]


_NETWORKS = {"mlp": _mlp, "simba": _simba, "simba_v2": _simba_v2, "flash": _flash}
