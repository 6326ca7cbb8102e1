"""What memory costs: seconds of an update by cell and length of window, beside the bare products of the same shapes.

    python benchmarks/memory.py [--rounds 15] [--lengths 16 64] [--parts trunk,update] [--out FILE.json]

"update" is `Agent.update` of recurrent TD3, jitted and donated, two updates a call, with batches already on the device;
"trunk" is the recurrent encoder alone, forward and backward. All contenders stand in one process and take turns, a call
each round; reported are medians, and the median of the ratios within a round.

"products" are the matrix products of the same program and nothing else: those that its jaxpr holds once what nobody
asks for is gone, with their shapes, in their order, inside loops of the same lengths, each waiting for the one before.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from contenders import load, record
from jax.interpreters import partial_eval
from rich.console import Console
from rich.table import Table

import ddpg_jax as dj
from ddpg_jax.agents.algorithms import make_agent
from ddpg_jax.agents.memory_networks import memory_encoder
from ddpg_jax.types import Batch, EnvSpec, Transition, Window
from ddpg_jax.xla.tuning import configure_process

SPEC = EnvSpec((8,), "float32", (-1.0,) * 6, (1.0,) * 6)
"""Of HalfCheetah, its velocities hidden."""
CELLS = ("lstm", "gru", "lru")
BATCH_SIZE, HIDDEN, WIDTH, PER_CALL = 32, 128, 128, 2
LIMIT = 0.6
"""Time of the linear recurrence over the LSTM's, at a length of 64."""


class Product(NamedTuple):
    """A matrix product, or a loop of some.

    Attributes:
      shapes: of both factors; `()` of a loop.
      dimensions: as of `jax.lax.dot_general`.
      length: of a loop, else 1.
      inner: what a loop makes.
    """

    shapes: tuple[tuple[int, ...], ...] = ()
    dimensions: Any = None
    length: int = 1
    inner: tuple[Product, ...] = ()

    @property
    def flop(self) -> int:
        """Floating-point operations."""
        if self.inner:
            return self.length * sum(each.flop for each in self.inner)
        (left, right), ((contracted, _), _) = self.shapes, self.dimensions
        outputs = jax.eval_shape(self.of, *map(jnp.zeros, (left, right))).size
        return 2 * outputs * int(np.prod([left[i] for i in contracted]))

    def of(self, left: Any, right: Any) -> Any:
        """The product."""
        return jax.lax.dot_general(left, right, self.dimensions)


def products_in(jaxpr: Any) -> Iterator[Product]:
    """The products of a jaxpr, in order; of a choice between branches, those of the last."""
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            yield Product(tuple(each.aval.shape for each in equation.invars), params["dimension_numbers"])
            continue
        branches = params.get("branches")
        found = [branches[-1]] if branches else [params[key] for key in ("jaxpr", "call_jaxpr") if key in params]
        for inner in found:
            made = tuple(products_in(getattr(inner, "jaxpr", inner)))
            if name == "scan" and made:
                yield Product(length=params["length"], inner=made)
            else:
                yield from made


def products_of(function: Callable[..., Any], *arguments: Any) -> tuple[Product, ...]:
    """The products of a program that anybody asks for."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    return tuple(products_in(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0]))


def bare(products: tuple[Product, ...]) -> Callable[[], Any]:
    """A call that makes these products and nothing else, each after the one before."""

    def shapes(products: tuple[Product, ...]) -> Iterator[tuple[int, ...]]:
        for each in products:
            yield from each.shapes
            yield from shapes(each.inner)

    factors = {shape: jnp.full(shape, 1e-3) for shape in shapes(products)}

    def run(products: tuple[Product, ...], factors: dict[Any, Any], last: Any, place: Any) -> Any:
        for each in products:
            if each.inner:
                last = jax.lax.fori_loop(0, each.length, lambda _, x, of=each.inner: run(of, factors, x, place), last)
            else:  # the barrier keeps a product in its loop; it is made whole, as a number at a place not known is read
                *pair, last = jax.lax.optimization_barrier((*(factors[shape] for shape in each.shapes), last))
                last = last + jax.lax.dynamic_slice(each.of(*pair).reshape(-1), (place,), (1,))
        return last

    program = jax.jit(lambda factors, place: run(products, factors, jnp.zeros(1), place))
    return lambda: program(factors, np.int32(0))


def window_batch(count: int, length: int) -> Batch:
    """Some batches of random windows, in each of which an episode may begin."""
    rng = np.random.default_rng(0)
    lead = (count, BATCH_SIZE)

    def normal(*shape: int) -> Any:
        return jnp.asarray(rng.normal(size=lead + shape), jnp.float32)

    obs, action, reward = normal(length + 1, 8), jnp.tanh(normal(length, 6)), normal(length)
    first = jnp.asarray(rng.random((*lead, length)) < 0.02)
    last = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (*lead, length))
    before = jnp.zeros((*lead, 6)), jnp.zeros(lead)
    window = Window(obs[:, :, :-1], action, reward, obs[:, :, 1:], first, *before, last)
    data = Transition(window, action, reward, jnp.full((*lead, length), 0.99), ())
    return Batch(data, jnp.ones(lead), ())


class Contender(NamedTuple):
    """A program beside its bare products.

    Attributes:
      call: makes it once and waits.
      products: of one call.
      updates: in one call.
    """

    call: Callable[[], Any]
    products: tuple[Product, ...]
    updates: int = 1


def config_of(cell: str, length: int) -> dj.Config:
    """Recurrent TD3."""
    memory = {"cell": cell, "hidden": HIDDEN, "length": length}
    widths = {"hidden": [WIDTH, WIDTH], "critic_hidden": [WIDTH, WIDTH]}
    return dj.load_config(algorithm={"name": "td3", "batch_size": BATCH_SIZE, "memory": memory, **widths})


def trunk(cell: str, length: int) -> Contender:
    """The encoder of a window forward, and back to its parameters."""
    settings = config_of(cell, length).algorithm.memory
    assert settings is not None
    encoder = memory_encoder(8, 6, settings)
    windows = jax.tree.map(lambda leaf: leaf[0], window_batch(1, length).data.obs)

    def loss(params: Any, windows: Window) -> Any:
        features = jax.vmap(lambda window: encoder.unroll(params, window, length, 0)[1])(windows)
        return jnp.mean(jnp.sin(features))

    params, gradient = jax.jit(encoder.init)(jax.random.key(0)), jax.jit(jax.grad(loss))
    return Contender(lambda: gradient(params, windows), products_of(gradient, params, windows))


def update(cell: str, length: int) -> Contender:
    """Two updates of the whole agent."""
    agent, key = make_agent(config_of(cell, length), SPEC), jax.random.key(0)
    batches = window_batch(PER_CALL, length)
    state, step = jax.jit(agent.init)(key), jax.jit(agent.update, donate_argnums=0)
    products = products_of(agent.update, state, batches, key)

    def call() -> Any:
        nonlocal state
        state, *_ = step(state, batches, key)
        return state

    return Contender(call, products, PER_CALL)


PARTS = {"trunk": trunk, "update": update}


def measured(part: str, lengths: list[int], rounds: int) -> list[dict[str, Any]]:
    """Milliseconds of each contender and of its products, by cell and length."""
    found = {(cell, length): PARTS[part](cell, length) for length in lengths for cell in CELLS}
    calls = {key: (each.call, bare(each.products)) for key, each in found.items()}
    times = {key: np.empty((rounds + 1, 2)) for key in calls}
    for i in range(rounds + 1):  # the first compiles
        for key, pair in calls.items():
            for j in (0, 1) if i % 2 else (1, 0):
                began = time.perf_counter()
                jax.block_until_ready(pair[j]())
                times[key][i, j] = (time.perf_counter() - began) / found[key].updates * 1e3
    seconds = {key: each[1:] for key, each in times.items()}
    return [
        {
            "cell": cell,
            "length": length,
            "milliseconds": float(np.median(each[:, 0])),
            "products_milliseconds": float(np.median(each[:, 1])),
            "megaflop": sum(product.flop for product in found[cell, length].products)
            / found[cell, length].updates
            / 1e6,
            "ratio_to_products": float(np.median(each[:, 0] / each[:, 1])),
            "ratio_to_lstm": float(np.median(each[:, 0] / seconds["lstm", length][:, 0])),
        }
        for (cell, length), each in seconds.items()
    ]


def main() -> None:
    """Measures every cell at every length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if unknown := sorted(set(options.parts.split(",")) - set(PARTS)):
        parser.error(f"--parts: {', '.join(unknown)} is none of {', '.join(PARTS)}")
    configure_process(config_of("lstm", max(options.lengths)), tune_process=True)
    before = load()
    results = {part: measured(part, options.lengths, options.rounds) for part in options.parts.split(",")}
    show(results)
    if options.out:
        facts = record(sys.argv, ()) | {"limit": LIMIT, "load_before": before, "parts": results}
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


def show(results: dict[str, list[dict[str, Any]]]) -> None:
    """A row for each contender."""
    table = Table("part", "cell", "length", "ms", "products, ms", "MFLOP", "to products", "to LSTM")
    for part, rows in results.items():
        for row in rows:
            figures = f"{row['milliseconds']:.2f}", f"{row['products_milliseconds']:.2f}", f"{row['megaflop']:.0f}"
            ratios = f"{row['ratio_to_products']:.2f}", f"{row['ratio_to_lstm']:.2f}"
            table.add_row(part, row["cell"], str(row["length"]), *figures, *ratios)
    Console().print(table)


if __name__ == "__main__":
    main()
