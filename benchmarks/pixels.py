"""What control from pixels costs: milliseconds of an update by encoder and size of picture, by phase, and of drawing.

    python benchmarks/pixels.py [--rounds 9] [--cases small:48:1,strided:48:1] [--out FILE.json]

A case is encoder:size:channels. "update" is `Agent.update` of DrQ-v2, jitted and donated, with batches already on the
device; "shift" its augmentation alone; "convolutions" what it does with the encoder and nothing else, forward for both
observations and back for one, in our way and in XLA's own (`plainly`); "gather" is the host's replay putting a batch
together. All contenders of a case stand in one process and take turns; reported are medians over the rounds.

"draw" is pictures a second: of our own environments on the device, and of gymnasium's where they can be drawn.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from contenders import load, record
from rich.console import Console
from rich.table import Table

import ddpg_jax as dj
from ddpg_jax.agents import encoders
from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.agents.augmentations import random_shift
from ddpg_jax.envs.factory import device_env
from ddpg_jax.replay.factory import make_ring
from ddpg_jax.types import Batch, EnvSpec, Step, Transition
from ddpg_jax.xla import convolution

CASES = "small:48:1,strided:48:1,ddpg:64:3,strided:84:3,drqv2:84:3"
BATCH_SIZE, STACK, ROWS = 64, 3, 2000


def spec_of(size: int, channels: int) -> EnvSpec:
    """Pictures, and six actions."""
    return EnvSpec((STACK, size, size, channels), "uint8", (-1.0,) * 6, (1.0,) * 6, stack=STACK)


def config_of(kind: str, size: int, channels: int) -> dj.Config:
    """DrQ-v2 of 256-256."""
    pixels = {"size": size, "gray": channels == 1, "stack": STACK}
    algorithm = {"name": "drqv2", "hidden": [256, 256], "batch_size": BATCH_SIZE, "encoder": {"kind": kind}}
    return dj.load_config(env={"pixels": pixels}, algorithm=algorithm, replay={"capacity": ROWS}, seeds=1)


def batch_of(spec: EnvSpec) -> Batch:
    """One batch of noise, `[1, B]`."""
    rng, lead = np.random.default_rng(0), (1, BATCH_SIZE)
    pictures = [jnp.asarray(rng.integers(0, 256, (*lead, *spec.obs_shape), np.uint8)) for _ in range(2)]
    action = jnp.asarray(rng.uniform(-1, 1, (*lead, 6)), jnp.float32)
    ones = jnp.ones(lead)
    return Batch(Transition(pictures[0], action, ones, ones, pictures[1]), ones, ())


def encoder_loss(layers: encoders.Convolutions, spec: EnvSpec, batch: Batch) -> tuple[Any, Callable[[Any], Any]]:
    """Parameters of an encoder, and what of an update passes through it: both observations, one with a gradient."""
    network = encoders.pixel_encoder(spec.obs_shape, layers)
    params, data = network.init(jax.random.key(0)), jax.tree.map(lambda x: x[0], batch.data)

    def loss(params: Any) -> Any:
        ahead = jax.vmap(lambda obs: network.apply(params, (), obs))(data.next_obs)
        seen = jax.vmap(lambda obs: network.apply(params, (), obs))(data.obs)
        return jnp.mean(jnp.sin(seen + jax.lax.stop_gradient(ahead)))

    return params, loss


def convolutions(layers: encoders.Convolutions, spec: EnvSpec, batch: Batch, way: Any) -> Callable[[], Any]:
    """The encoder's part of an update."""
    encoders.convolve = way  # what is measured is this function in the place of the other
    params, loss = encoder_loss(layers, spec, batch)
    program = jax.jit(jax.grad(loss)).lower(params).compile()
    encoders.convolve = convolution.convolve
    return lambda: program(params)


def replay_call(config: dj.Config, spec: EnvSpec) -> Callable[[], Any]:
    """A full ring of the host and its batch."""
    ring = make_ring(config, spec)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (8, 1, 1, *spec.obs_shape), np.uint8)
    none = np.zeros((1, 1))
    for i in range(ROWS):
        obs, after = pictures[i % 8], pictures[(i + 1) % 8]
        ring.add(
            obs, np.zeros((1, 1, 6), np.float32), Step(after, after, none, none > 0, np.full((1, 1), i % 250 == 249))
        )
    calls = iter(range(10**9))
    return lambda: ring.sample(1, BATCH_SIZE, next(calls))


def measure_case(kind: str, size: int, channels: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of an update and of its parts."""
    config, spec = config_of(kind, size, channels), spec_of(size, channels)
    agent, key, batch = make_agent(config, spec), jax.random.key(0), batch_of(spec)
    layers = encoders.KINDS[kind](32, 3)._replace(initializer="orthogonal")
    state, step = jax.jit(agent.init)(key), jax.jit(agent.update, donate_argnums=0)
    keys = jax.random.split(key, BATCH_SIZE)
    shift = jax.jit(jax.vmap(random_shift(4)))
    data = jax.tree.map(lambda x: x[0], batch.data)

    def update() -> Any:
        nonlocal state
        state, *_ = step(state, batch, key)
        return state.step

    calls = {
        "update": update,
        "shift": lambda: shift(data, keys),
        "convolutions": convolutions(layers, spec, batch, convolution.convolve),
        "XLA's convolutions": convolutions(layers, spec, batch, lambda x, k, s, *_: convolution.plainly(x, k, s)),
        "gather": replay_call(config, spec),
    }
    times = {name: np.empty(rounds + 1) for name in calls}
    for i in range(rounds + 1):  # the first compiles
        for name, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            times[name][i] = (time.perf_counter() - began) * 1e3
    medians = {name: float(np.median(each[1:])) for name, each in times.items()}
    limit = float(np.median(times["update"][1:] / times["convolutions"][1:]))
    features = encoders.features(spec.obs_shape, layers)
    facts = {"encoder": kind, "size": size, "channels": channels, "features": features, "milliseconds": medians}
    return facts | {"ratio_to_convolutions": limit}


def draw_on_device(name: str, size: int, lanes: int = 16, steps: int = 50) -> float:
    """Steps with a picture a second, of several environments side by side."""
    env = device_env(dj.load_config(env={"id": f"jax:{name}", "pixels": {"size": size, "gray": True}}))
    keys = jax.random.split(jax.random.key(0), lanes)

    @jax.jit
    def play(state: Any) -> Any:
        def one(state: Any, key: Any) -> Any:
            action = jnp.zeros((lanes, env.spec.action_size))
            state, step = jax.vmap(env.step)(state, action, jax.random.split(key, lanes))
            return state, step.obs.sum(dtype=jnp.int32)

        return jax.lax.scan(one, state, jax.random.split(keys[0], steps))[1]

    state = jax.jit(jax.vmap(env.reset))(keys)[0]
    return lanes * steps / _best(partial(play, state))


def _best(call: Callable[[], Any]) -> float:
    jax.block_until_ready(call())
    seconds: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def draw_on_host(identifier: str, size: int, steps: int = 200) -> float:
    """Steps with a picture a second, of one environment."""
    from ddpg_jax.envs.factory import make_training_envs

    config = dj.load_config(env={"id": identifier, "pixels": {"size": size}}, seeds=1)
    lanes = make_training_envs(config)
    lanes.reset()
    action = np.zeros((1, 1, lanes.spec.action_size), np.float32)
    lanes.step(action)  # what draws is made and compiled
    began = time.perf_counter()
    for _ in range(steps):
        lanes.step(action)
    rate = steps / (time.perf_counter() - began)
    lanes.close()
    return rate


def main() -> None:
    """Measures every case, and drawing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--host", default="Pendulum-v1,InvertedPendulum-v5", help="environments that are drawn")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    before, results = load(), list[dict[str, Any]]()
    for case in options.cases.split(","):
        kind, size, channels = case.split(":")
        results.append(measure_case(kind, int(size), int(channels), options.rounds))
        show(results[-1])
    drawn = {f"jax:{name} {s}": draw_on_device(name, s) for name in ("pendulum", "cartpole-swingup") for s in (48, 84)}
    drawn |= {f"{name} {s}": draw_on_host(name, s) for name in filter(None, options.host.split(",")) for s in (48, 84)}
    for name, rate in drawn.items():
        Console().print(f"{name}: {rate:.0f} pictures/s")
    if options.out:
        facts = record(sys.argv, ()) | {"load_before": before, "batch_size": BATCH_SIZE, "cases": results}
        options.out.write_text(json.dumps(facts | {"pictures_per_second": drawn}, indent=1) + "\n")


def show(case: dict[str, Any]) -> None:
    """A table of one case."""
    table = Table("part", "ms", title=f"{case['encoder']} {case['size']}x{case['size']}x{case['channels']}")
    for name, value in case["milliseconds"].items():
        table.add_row(name, f"{value:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
