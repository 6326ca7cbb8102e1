"""Speed and exactness of replay: 256 of 1,000,000 transitions of HalfCheetah's size, uniform and prioritised.

    python benchmarks/replay.py [--rounds 15] [--capacity 1000000] [--out FILE.json]

On the host, beside cpprb's PrioritizedReplayBuffer where it is installed: drawing with the gather of what was drawn and
the weights, and setting the priorities of a batch. The contenders take turns, a few milliseconds each, so that each
round compares under the same load; reported are medians over rounds and of the ratios of each round. Frequencies are
tested by chi-square against the priorities, in groups of a thousand slots.

On the device, add + sample + write back in one compiled loop on one thread, at capacities of 10^4, 10^5 and 10^6 that
take turns too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from contenders import load, record

from ddpg_jax.xla.process import limit_to_one_thread

BATCH, ALPHA, BETA, EPSILON = 256, 0.6, 0.4, 1e-6
CAPACITIES = (10**4, 10**5, 10**6)
CALLS = 40
ASKED = {"sample": 0.6, "priorities": 1.0, "device_growth": 1.5}


def main() -> None:
    """Runs the benchmark and writes its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--capacity", type=int, default=10**6, help="of the host's replays; a multiple of 100000")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.out and not options.out.parent.is_dir():
        parser.error(f"--out: there is no folder {options.out.parent}")
    limit_to_one_thread()  # as the program does for one seed of narrow networks
    before = load()
    facts = {"host": host(options.rounds, options.capacity), "device": device(options.rounds), "asked": ASKED}
    facts = {**record(sys.argv, ("cpprb",)), "load": [before, load()], **facts}
    print(json.dumps({name: facts[name] for name in ("load", "host", "device", "asked")}, indent=1))
    if options.out:
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


def host(rounds: int, capacity: int) -> dict[str, Any]:
    """Microseconds of drawing 256, and of setting their priorities."""
    rings, errors = filled_rings(capacity)
    draws = {f"ours, {name}": partial(_sample, ring, count()) for name, ring in rings.items()}
    rng = np.random.default_rng(1)  # no block comes twice, as a replay's caches would else know it
    blocks = [(rng.integers(0, capacity, BATCH), rng.choice(errors, BATCH)) for _ in range(10 * rounds * CALLS)]
    setters: dict[str, Callable[[Any, Any], Any]] = {
        "ours, prioritized": lambda index, error: rings["prioritized"].write_back(index[None, None], error[None, None])
    }
    exact = {"ours": chi_square(lambda: rings["prioritized"].draw(40, BATCH, next(_NUMBERS))[0], errors)}
    if importlib.util.find_spec("cpprb") is not None:
        theirs = cpprb_buffer(capacity, errors)
        draws["cpprb, prioritized"] = lambda: theirs.sample(BATCH, beta=BETA)
        setters["cpprb, prioritized"] = lambda index, error: theirs.update_priorities(index, error)
        exact["cpprb"] = chi_square(
            lambda: np.concatenate([theirs.sample(BATCH, beta=BETA)["indexes"] for _ in range(40)]), errors
        )
    sample = take_turns(draws, rounds, lambda draw, i: draw())
    priorities = take_turns(setters, rounds, lambda set_to, i: set_to(*blocks[i % len(blocks)]))
    return {"capacity": capacity, "batch": BATCH, "sample": sample, "priorities": priorities, "chi_square_p": exact}


_NUMBERS = count(10**6)


def _sample(ring: Any, numbers: Any) -> Any:
    return ring.sample(1, BATCH, next(numbers))


def filled_rings(capacity: int) -> tuple[dict[str, Any], Any]:
    """Both rings, full, of one seed with one environment, and the errors of all rows."""
    from ddpg_jax.equations.priorities import Prioritization
    from ddpg_jax.replay.host.prioritized import PrioritizedRing
    from ddpg_jax.replay.host.ring import Ring
    from ddpg_jax.types import EnvSpec, Step

    spec = EnvSpec((17,), "float32", (-1.0,) * 6, (1.0,) * 6)
    sizes = {"num_envs": 1, "capacity": capacity, "n_step": 1, "gamma": 0.99}
    rule = Prioritization(ALPHA, BETA, BETA, EPSILON, 1)
    rings = {"uniform": Ring(spec, [0], **sizes), "prioritized": PrioritizedRing(spec, [0], **sizes, rule=rule)}
    obs, zero, no = np.ones((1, 1, 17), np.float32), np.zeros((1, 1), np.float32), np.zeros((1, 1), bool)
    for ring in rings.values():
        for _ in range(capacity):
            ring.add(obs, obs[..., :6], Step(obs, obs, zero, no, no))
    errors = np.random.default_rng(0).exponential(size=capacity).astype(np.float32)
    for rows in np.split(np.arange(capacity), capacity // 10**5):
        rings["prioritized"].write_back(rows[None, None], errors[rows][None, None])
    return rings, errors


def cpprb_buffer(capacity: int, errors: Any) -> Any:
    """The peer's buffer with the same rows and errors; it takes priorities before the exponent, and adds epsilon."""
    import cpprb

    fields = {"obs": {"shape": 17}, "act": {"shape": 6}, "rew": {}, "next_obs": {"shape": 17}, "done": {}}
    buffer = cpprb.PrioritizedReplayBuffer(capacity, fields, alpha=ALPHA, eps=EPSILON)
    block = np.ones((10**5, 17), np.float32)
    for each in np.split(errors, capacity // 10**5):
        buffer.add(
            obs=block, act=block[:, :6], rew=block[:, 0], next_obs=block, done=block[:, 0], priorities=each
        )  # fmt: skip
    return buffer


def take_turns(contenders: dict[str, Any], rounds: int, call: Callable[[Any, int], Any]) -> dict[str, Any]:
    """Median microseconds of a call, and the median over rounds of each contender's ratio to the last."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(-3, rounds * 10):
        for name, contender in contenders.items():
            began = time.perf_counter()
            for j in range(CALLS):
                call(contender, i * CALLS + j)
            if i >= 0:
                times[name].append((time.perf_counter() - began) / CALLS * 1e6)
    *_, last = times
    ratios = {name: float(np.median(np.array(each) / times[last])) for name, each in times.items() if name != last}
    quartiles = {name: np.percentile(each, [25, 75]).tolist() for name, each in times.items()}
    medians = {name: float(np.median(each)) for name, each in times.items()}
    return {"microseconds": medians, "quartiles": quartiles, f"ratio_to {last}": ratios}


def chi_square(draw: Callable[[], Any], errors: Any, draws: int = 10**6) -> float:
    """The p-value of the frequencies of a thousand groups of slots."""
    from scipy.stats import chisquare

    index = np.concatenate([draw().ravel() for _ in range(draws // (40 * BATCH))])
    share = (errors.astype(np.float64) + EPSILON) ** ALPHA
    groups = share.reshape(1000, -1).sum(1)
    counts = np.bincount(index // (len(errors) // 1000), minlength=1000)
    return float(chisquare(counts, groups / groups.sum() * counts.sum()).pvalue)


def device(rounds: int) -> dict[str, Any]:
    """Microseconds of add + sample + write back, by capacity, for the full ring of one seed."""
    loops = {str(capacity): {kind: device_loop(kind, capacity) for kind in _DEVICE} for capacity in CAPACITIES}
    flat = {f"{kind} {capacity}": loop for capacity, kinds in loops.items() for kind, loop in kinds.items()}
    times: dict[str, list[float]] = {name: [] for name in flat}
    for _ in range(rounds):
        for name, loop in flat.items():
            times[name].append(loop())
    medians = {name: float(np.median(each)) for name, each in times.items()}
    low, *_, high = CAPACITIES
    growth = {kind: float(np.median(np.array(times[f"{kind} {high}"]) / times[f"{kind} {low}"])) for kind in _DEVICE}
    least = {name: min(each) for name, each in times.items()}
    return {"batch": BATCH, "microseconds": medians, "least": least, "growth": growth}


_DEVICE = ("uniform", "prioritized")


def device_loop(kind: str, capacity: int) -> Callable[[], float]:
    """A compiled loop over the full ring; a call of it returns its microseconds an iteration."""
    import jax
    import jax.numpy as jnp

    from ddpg_jax.equations.priorities import Prioritization
    from ddpg_jax.replay.device import ring as replays
    from ddpg_jax.replay.device.prioritized import prioritized
    from ddpg_jax.types import EnvSpec, Step

    spec = EnvSpec((17,), "float32", (-1.0,) * 6, (1.0,) * 6)
    sizes = {"num_envs": 1, "capacity": capacity, "n_step": 1, "gamma": 0.99}
    rule = Prioritization(ALPHA, BETA, 1.0, EPSILON, 10**6)
    replay = replays.uniform(spec, **sizes) if kind == "uniform" else prioritized(spec, **sizes, rule=rule)
    obs, zero, no = jnp.ones((1, 17)), jnp.zeros(1), jnp.zeros(1, bool)
    row, steps = (obs, obs[:, :6], Step(obs, obs, zero, no, no)), 1000

    def add(_: Any, carry: Any) -> Any:
        store, position = carry
        return replay.add(store, position, *row), replays.advance(position, capacity)

    def iterate(i: Any, carry: Any) -> Any:
        store, position, key, seen = carry
        store, position = add(i, (store, position))
        key, *more = jax.random.split(key, 3)
        batch = replay.sample(store, position, more[0], i, 1, BATCH)
        error = jax.random.exponential(more[1], (1, BATCH)) + batch.data.reward
        seen += sum((leaf.sum() for leaf in jax.tree.leaves(batch.data)), batch.weight.sum())  # so that all is drawn
        return replay.write_back(store, batch.index, error), position, key, seen

    fill = jax.jit(lambda: jax.lax.fori_loop(0, capacity, add, (replay.init(), replays.start())))
    program = jax.jit(lambda carry: jax.lax.fori_loop(0, steps, iterate, carry), donate_argnums=0)
    carry = jax.block_until_ready(program((*fill(), jax.random.key(0), jnp.zeros(()))))

    def once() -> float:
        nonlocal carry
        began = time.perf_counter()
        carry = jax.block_until_ready(program(carry))
        return (time.perf_counter() - began) / steps * 1e6

    return once


if __name__ == "__main__":
    main()
