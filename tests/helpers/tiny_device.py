"""Tiny programs of the device loop that several test modules share: what is made once, is made once a process."""

from collections import Counter
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tiny_run import tiny_config

from ddpg_jax.config.load import merge
from ddpg_jax.config.schema import Config
from ddpg_jax.envs.factory import device_env
from ddpg_jax.replay.device import ring as replays
from ddpg_jax.rng import run_keys
from ddpg_jax.training.device.compile import Compiled, compile_program, lane_mesh
from ddpg_jax.training.report import METRICS
from ddpg_jax.types import Batch, DeviceEnv, Transition

SEEDS = (4, 9, 2, 7)
WARMUP, CAPACITY, TOTAL = 20, 100, 220
"""The ring goes round twice, and 200 updates are made."""
COLLECTIVES = r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"


class Built(NamedTuple):
    """A compiled program and what it was made of."""

    config: Config
    env: DeviceEnv
    compiled: Compiled
    keys: Any
    hyper: dict[str, Any]
    traces: Counter[str]


class Ended(NamedTuple):
    """Where some iterations led: NumPy arrays, and the sums over each chunk."""

    lane: Any
    clock: Any
    totals: list[Any]


def device_config(**changes: Any) -> Config:
    base = {
        "seeds": SEEDS,
        "total_steps": TOTAL,
        "env": {"id": "jax:pendulum"},
        "algorithm": {"warmup_steps": WARMUP},
        "replay": {"capacity": CAPACITY},
        "evaluation": {"every": 110},
        "logging": {"every": 60},
    }
    return tiny_config(**merge(base, changes))


def build(
    config: Config, env: DeviceEnv | None = None, devices: Any = None, hyper: Any = None, keys: Any = None
) -> Built:
    """Compiles; the environment counts how often it is traced."""
    made = env or device_env(config)
    traces: Counter[str] = Counter()

    def counted(name: str) -> Any:
        def fn(*args: Any) -> Any:
            traces[name] += 1
            return getattr(made, name)(*args)

        return fn

    watched = made._replace(reset=counted("reset"), step=counted("step"))
    keys = run_keys(config.seed_list) if keys is None else keys
    mesh = lane_mesh(len(keys), config.data_parallel, devices)
    return Built(config, made, compile_program(config, watched, keys, hyper or {}, mesh), keys, hyper or {}, traces)


@cache
def four() -> Built:
    """Four seeds, on two devices if there are."""
    return build(device_config())


@cache
def four_on_one() -> Built:
    return build(device_config(), devices=jax.devices()[:1])


def host(tree: Any) -> Any:
    return jax.tree.map(np.array, tree)


def run(built: Built, *stops: int, keys: Any = None, lane: Any = None, clock: Any = None) -> Ended:
    """Iterations up to each of the stops, in chunks, from the beginning unless a state is given."""
    compiled = built.compiled
    keys, hyper = compiled.shard((built.keys if keys is None else keys, built.hyper))
    lane, clock = lane or compiled.init(keys, hyper), clock or compiled.clock()
    totals, begin = [], 0
    for stop in stops:
        counts = compiled.counts(begin, stop)
        lane, clock, sums = compiled.advance(lane, clock, compiled.totals(), counts, keys, hyper)
        totals.append(host(sums))
        begin = stop
    return Ended(host(lane), host(clock), totals)


@cache
def four_ended() -> Ended:
    return run(four(), TOTAL)


def lane_of(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda x: x[i], tree)


def assert_close(left: Any, right: Any, tolerance: float) -> None:
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def stored(built: Built, ended: Ended) -> Transition:
    """All rows of the lanes' replays as they were added, one step each, oldest first; leaves `[L, N, ...]`."""
    position = ended.clock.position
    index = jnp.arange(int(position.length) * built.config.env.num_envs)
    gather = partial(replays.gather, spec=built.env.spec, n_step=1, gamma=jnp.float32(built.config.algorithm.gamma))
    rows = getattr(ended.lane.store, "rows", ended.lane.store)
    return host(jax.vmap(lambda rows: gather(rows, position, index))(rows).data)


def idle(agent: Any) -> Any:
    """An agent whose update only counts, so that a test of the schedule compiles in no time."""

    def update(state: Any, batches: Batch, run_key: Any) -> Any:
        shape = batches.weight.shape
        metrics = {name: jnp.full(shape[0], 0.0 if name == "rejected" else -2.0) for name in METRICS}
        return state._replace(step=state.step + shape[0]), metrics, jnp.zeros(shape)

    return agent._replace(update=update)
