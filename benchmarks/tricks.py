"""Each trick for speed beside the plain way that it stands for (docs/performance.md).

    python benchmarks/tricks.py [--tricks norm,dot] [--rounds 15] [--out FILE.json]

Both sides are processes of their own that compile, warm up and then take turns, a round each, so that each round
compares under the same load; reported is the median of the ratios of the rounds, with its quartiles: the time with the
trick over the time without. Where a trick is for compiling, a round is a fresh process on each side.

On the plain side functions and numbers of the package are replaced before anything is traced, or the environment of
the process is another. What is replaced is named in `TRICKS`, and a test sees that it is there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from contenders import Contender, Racer, race, record, serve

SIDES = ("with", "without")


class Trick(NamedTuple):
    """A trick and what stands in its place.

    Attributes:
      case: of `CASES`.
      plain: what replaces names of the package on the plain side, by their full names.
      environment: variables of the plain side.
      compiling: whether compiling is what is timed.
    """

    case: str
    plain: Mapping[str, Any] = {}
    environment: Mapping[str, str] = {}
    compiling: bool = False


def host(width: int, seeds: int, steps: int, task: str = "Pendulum-v1") -> Callable[[], Racer]:
    """The host loop with DDPG."""

    def make() -> Racer:
        from throughput import Case, ours

        return ours(Case(task, width, width, seeds, steps))

    return make


def on_device(width: int, seeds: int, steps: int, algorithm: str = "ddpg") -> Callable[[], Racer]:
    """The device loop on jax:pendulum."""

    def make() -> Racer:
        from device_throughput import Entry, device

        return device(Entry("device", width, width, steps, seeds=seeds, algorithm=algorithm))

    return make


def drawing(kind: str) -> Callable[[], Racer]:
    """256 of 1,000,000 rows drawn on the device, and their priorities written back."""

    def make() -> Racer:
        from replay import device_loop

        from ddpg_jax.xla.process import limit_to_one_thread

        limit_to_one_thread()  # as the program does for one seed of narrow networks
        return Racer(device_loop(kind, 10**6))

    return make


def pixels(seeds: int) -> Callable[[], Racer]:
    """The convolutions of an update of DrQ-v2 from gray pictures of 48 x 48, of so many seeds."""

    def make() -> Racer:
        import jax
        from pixels import batch_of, encoder_loss, spec_of

        from ddpg_jax.agents import encoders

        spec = spec_of(48, 1)
        params, loss = encoder_loss(encoders.KINDS["small"](32, 3), spec, batch_of(spec))
        each = jax.tree.map(lambda x: jax.numpy.stack([x] * seeds), params)
        program = jax.jit(jax.vmap(jax.grad(loss)))

        def advance() -> None:
            jax.block_until_ready(program(each))

        advance()
        return Racer(advance)

    return make


CASES = {
    "host-64": host(64, 1, 1500),
    "host-256": host(256, 1, 300),
    "host-256-cheetah": host(256, 1, 300, "HalfCheetah-v5"),
    "device-64": on_device(64, 1, 3000),
    "device-64-16seeds": on_device(64, 16, 400),
    "device-64-td3": on_device(64, 1, 3000, "td3"),
    "device-256": on_device(256, 1, 200),
    "pixels": pixels(1),
    "pixels-3seeds": pixels(3),
    "drawing": drawing("uniform"),
    "drawing-prioritized": drawing("prioritized"),
}


def _flat_norm(tree: Any) -> Any:
    import jax
    import jax.numpy as jnp

    return jnp.linalg.norm(jnp.concatenate([jnp.zeros(0), *(leaf.ravel() for leaf in jax.tree.leaves(tree))]))


def _same_rows(table: Any, rows: Any) -> Any:
    return rows


def _vmap(function: Any, in_axes: Any = 0, out_axes: Any = 0, **_: Any) -> Any:
    import jax

    return jax.vmap(function, in_axes, out_axes)


def _same(value: Any) -> Any:
    return value


def _default_options(mesh: Any, **_: Any) -> None:
    """What XLA does by itself."""


def _one_after_another(programs: Any, stop: Any) -> list[Any]:
    return [each.lower(*arguments).compile(options) for each, arguments, options in programs]


def _folded(ring: Any, **_: Any) -> Any:
    from ddpg_jax.training.host.transfer import folded_batches

    return folded_batches(ring)


def _leaf_by_leaf(config: Any) -> Any:
    from ddpg_jax.xla.tuning import tuning

    return tuning(config)._replace(flat_optimizer=False)


def _plainly(x: Any, kernel: Any, stride: int, product: Any = None, factors: Any = None) -> Any:
    from ddpg_jax.xla.convolution import plainly

    return plainly(x, kernel, stride)


def _newer_emitters(mesh: Any, **_: Any) -> dict[str, Any]:
    return {"xla_backend_optimization_level": 1}


TRICKS = {
    "one-thread": Trick("host-64", environment={"NPROC": "2"}),
    "one-thread-device": Trick("device-64", environment={"NPROC": "2"}),
    "core-devices": Trick("device-64-16seeds", environment={"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}),
    "squeeze-device": Trick(
        "device-64",
        {
            "ddpg_jax.training.device.compile.squeezed_vmap": _vmap,
            "ddpg_jax.training.device.compile.with_lane_axis": _same,
        },
    ),
    "squeeze-host": Trick("host-256", {"ddpg_jax.training.host.compile.squeezed_vmap": _vmap}),
    "norm": Trick("host-256", {"ddpg_jax.agents.policy_gradient.global_norm": _flat_norm}),
    "dot": Trick("host-256-cheetah", {"ddpg_jax.agents.modules.FEW_OUTPUTS": 0}),
    "patches": Trick("pixels", {"ddpg_jax.agents.encoders.convolve": _plainly}),
    "patches-3seeds": Trick("pixels-3seeds", {"ddpg_jax.agents.encoders.convolve": _plainly}),
    "gather": Trick("drawing", {"ddpg_jax.replay.device.ring.prefetch": _same_rows}),
    "gather-prioritized": Trick(
        "drawing-prioritized",
        {
            "ddpg_jax.replay.device.ring.prefetch": _same_rows,
            "ddpg_jax.replay.device.sum_tree.prefetch": _same_rows,
        },
    ),
    "level": Trick(
        "device-64-td3", {"ddpg_jax.training.device.compile.compiler_options": _default_options}, compiling=True
    ),
    "emitters": Trick(
        "device-64-td3", {"ddpg_jax.training.device.compile.compiler_options": _newer_emitters}, compiling=True
    ),
    "compile-all": Trick(
        "device-64-td3", {"ddpg_jax.training.device.compile.compile_all": _one_after_another}, compiling=True
    ),
    "raw-rows": Trick("host-64", {"ddpg_jax.training.host.loop.batch_transfer": _folded}),
    "flat-optimizer": Trick("host-64", {"ddpg_jax.agents.factory.tuning": _leaf_by_leaf}),
    "key-blocks": Trick("host-64", {"ddpg_jax.training.host.compile.KEY_BLOCK": 1}),
    "for-acting": Trick("host-64", {"ddpg_jax.types.TrainState.for_acting": property(_same)}),
}


def contend(name: str, side: str) -> None:
    """The life of one side of a trick."""
    trick = TRICKS[name]
    for target, plain in trick.plain.items() if side == "without" else ():
        mock.patch(target, plain).start()
    serve(CASES[trick.case])


def measured(name: str, rounds: int) -> dict[str, Any]:
    """Seconds of a round on each side, and their ratios."""
    trick = TRICKS[name]

    def start(side: str) -> Contender:
        environment = trick.environment if side == "without" else {}
        return Contender(name, side, script="tricks.py", environment=environment)

    if trick.compiling:
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            for side in SIDES:
                contender = start(side)
                seconds[side].append(contender.ready["compile"])
                contender.close()
    else:
        contenders = {side: start(side) for side in SIDES}
        race(contenders, 2)
        seconds = race(contenders, rounds)
        for contender in contenders.values():
            contender.close()
    ratios = np.array(seconds["with"]) / np.array(seconds["without"])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
    medians = {side: float(np.median(each)) for side, each in seconds.items()}
    return {"case": trick.case, "seconds": medians, "ratio": middle, "quartiles": [low, high]}


def main() -> None:
    """Measures the tricks that are asked for."""
    if sys.argv[1:2] == ["--contender"]:
        contend(*sys.argv[2:])
        return
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tricks", default=",".join(TRICKS), help=f"of {', '.join(TRICKS)}")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    names = options.tricks.split(",")
    if unknown := [name for name in names if name not in TRICKS]:
        parser.error(f"{', '.join(unknown)}: there are {', '.join(TRICKS)}")
    results = {name: measured(name, options.rounds) for name in names}
    table = Table("trick", "case", "with, s", "without, s", "ratio", "quartiles")
    for name, each in results.items():
        low, high = each["quartiles"]
        seconds = (f"{each['seconds'][side]:.4f}" for side in SIDES)
        table.add_row(name, each["case"], *seconds, f"{each['ratio']:.3f}", f"{low:.3f} to {high:.3f}")
    Console().print(table)
    if options.out:
        facts = record(sys.argv, ()) | {"tricks": results}
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
