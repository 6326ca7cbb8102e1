"""The cases of the device loop, for `throughput.py`: Pendulum, one environment and one update a step.

A round of ours is one call of the compiled program, a fixed number of iterations past the warm-up; compiling is apart.
The first contender of a case is ours, and ratios are to the others:

* "device-256": to the bare matrix products that an update is made of; see `contenders.update_flop`.
* "device-64": to our host loop on gymnasium's Pendulum-v1.
* "device-64-16seeds": to one seed.
* "device-64-capacity": a replay of 1e6 to one of 1e4. Both count as full from the start, so that draws are spread over
  all of their memory. Compared too is the peak of memory since the program was compiled, over what was held then, as
  the compiler's own peak is far above either replay; the difference is in units of the large replay.
* "device-64-bfloat16", "device-256-bfloat16": to float32.
* "rejax-64", ...: our TD3, and for comparison our DDPG, to rejax's TD3 at equal settings. rejax draws
  without replacement, which takes time for every transition that its replay can hold; with a replay of 2000
  ("rejax-td3-2000") that time is next to nothing. It evaluates nothing in a round. What it is asked at the end says how
  many updates it made. Compiling is, for both, tracing and compiling all that a run with evaluations needs: what makes
  the state, what trains and what evaluates; of rejax one after the other, as its users get it.
"""

from __future__ import annotations

import gc
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from contenders import RATE, WARMUP, Contender, Racer, median_ratio, products, race, update_flop

COMPILE = "device-64-compile"
COMPILE_PROCESSES = 5
COMPILE_SECONDS = 5.0
MEMORY_FACTOR = 1.2
REJAX = ("rejax", "gymnax", "jax", "jaxlib", "flax", "optax")


class Entry(NamedTuple):
    """A contender.

    Attributes:
      kind: "device" and "host", our loops; "product", "rejax".
      width: of both hidden layers.
      batch: B.
      steps: environment steps of each seed in a round.
      seeds: side by side.
      capacity: of the replay.
      full: whether the replay counts as full from the start.
      precision: as in the configuration.
      algorithm: likewise.
    """

    kind: str
    width: int
    batch: int
    steps: int
    seeds: int = 1
    capacity: int = 100_000
    full: bool = False
    precision: str = "float32"
    algorithm: str = "ddpg"


class Case(NamedTuple):
    """Contenders, ours first, and the least ratio to the second that is asked for."""

    entries: dict[str, Entry]
    asked: float | None = None


_SMALL = Entry("device", 64, 64, 3000)
_LARGE = Entry("device", 256, 256, 200)


def _beside_rejax(seeds: int, ours: int, theirs: int, theirs_small: int) -> Case:
    """A number of seeds, and the steps of each seed that make a round of about half a second or more."""
    return Case(
        {
            "ours-td3": _SMALL._replace(seeds=seeds, steps=ours, algorithm="td3"),
            "ours-ddpg": _SMALL._replace(seeds=seeds, steps=ours),
            "rejax-td3": _SMALL._replace(kind="rejax", seeds=seeds, steps=theirs),
            "rejax-td3-2000": _SMALL._replace(kind="rejax", seeds=seeds, steps=theirs_small, capacity=2000),
        }
    )


CASES = {
    "device-64": Case({"ours": _SMALL, "ours-host": _SMALL._replace(kind="host", steps=1500)}, 2.2),
    "device-64-16seeds": Case({"ours": _SMALL._replace(seeds=16, steps=400), "ours-1seed": _SMALL}, 1.4),
    "device-64-capacity": Case(
        {name: _SMALL._replace(capacity=size, full=True) for name, size in (("ours-1e6", 10**6), ("ours-1e4", 10**4))},
        0.9,
    ),
    "device-64-bfloat16": Case({"ours": _SMALL._replace(precision="bfloat16"), "ours-float32": _SMALL}),
    "device-256": Case({"ours": _LARGE, "product": _LARGE._replace(kind="product")}, 0.75),
    "device-256-bfloat16": Case({"ours": _LARGE._replace(precision="bfloat16"), "ours-float32": _LARGE}),
    "rejax-64": _beside_rejax(1, 3000, 400, 2000),
    "rejax-64-8seeds": _beside_rejax(8, 600, 100, 400),
    "rejax-64-32seeds": _beside_rejax(32, 200, 20, 120),
}


def run_case(name: str, rounds: int, rejax_python: Path | None) -> dict[str, Any]:
    """Interleaves the contenders of a case."""
    entries, asked = CASES[name]
    missing = [each for each, entry in entries.items() if entry.kind == "rejax" and rejax_python is None]
    entries = {each: entry for each, entry in entries.items() if each not in missing}
    contenders = {
        each: Contender(each, name, rejax_python) if entry.kind == "rejax" and rejax_python else Contender(each, name)
        for each, entry in entries.items()
    }
    seconds = race(contenders, rounds)
    facts = {each: contenders[each].ask("facts") for each, entry in entries.items() if entry.kind != "host"}
    for contender in contenders.values():
        contender.close()
    rates = {each: [entry.steps * entry.seeds / s for s in seconds[each]] for each, entry in entries.items()}
    ours, *others = entries
    return {
        "case": name,
        "contenders": {each: entry._asdict() for each, entry in entries.items()},
        "seed_steps_per_second": {each: float(np.median(r)) for each, r in rates.items()},
        "ratio_to": {each: median_ratio(rates, ours, each) for each in others},
        "asked": asked,
        "rounds": rates,
        "ready": {each: contender.ready for each, contender in contenders.items()},
        "missing": missing,
        "facts": facts,
        **(_memory(facts) if name == "device-64-capacity" else {}),
    }


def compile_case() -> dict[str, Any]:
    """Compiles Pendulum's program in fresh processes, without a persistent cache."""
    seconds: list[float] = []
    for _ in range(COMPILE_PROCESSES):
        contender = Contender("ours", "device-64")
        seconds.append(contender.ready["compile"])
        contender.close()
    return {"case": COMPILE, "seconds": float(np.median(seconds)), "asked": COMPILE_SECONDS, "processes": seconds}


def has_rejax(python: Path) -> bool:
    """Whether an interpreter has rejax."""
    try:
        return subprocess.run([str(python), "-c", "import rejax"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def make(entry: Entry) -> Racer:
    """Compiles and warms up a contender that is not the host loop."""
    return {"device": device, "product": product, "rejax": rejax_td3}[entry.kind](entry)


def device(entry: Entry) -> Racer:
    """Our device loop."""
    import jax

    from ddpg_jax.config.load import load_config
    from ddpg_jax.envs.device.backends import make_named_env
    from ddpg_jax.rng import run_keys
    from ddpg_jax.training.device.compile import compile_program, lane_mesh, memory_bytes
    from ddpg_jax.xla.tuning import configure_process

    config = load_config(
        seeds=entry.seeds,
        total_steps=2**40,
        precision=entry.precision,
        env={"id": "jax:pendulum"},
        algorithm={
            "name": entry.algorithm,
            "hidden": [entry.width] * 2,
            "batch_size": entry.batch,
            "warmup_steps": WARMUP,
            "actor_learning_rate": RATE,
            "critic_learning_rate": RATE,
        },
        replay={"capacity": entry.capacity},
        evaluation={"every": 0},
    )
    configure_process(config, tune_process=True)  # as the program does
    env, keys = make_named_env(config.env.id, None, {}), run_keys(config.seed_list)
    began = time.perf_counter()
    compiled = compile_program(config, env, keys, {}, lane_mesh(len(keys)))
    seconds = time.perf_counter() - began
    memory = Memory()
    keys = compiled.shard(keys)
    lane, clock, done, updates = compiled.init(keys, {}), compiled.clock(), 0, 0
    if entry.full:
        length = jax.device_put(np.int32(entry.capacity), clock.position.length.sharding)
        clock = clock._replace(position=clock.position._replace(length=length))

    def advance(steps: int) -> None:
        nonlocal lane, clock, done, updates
        lane, clock, totals = compiled.advance(
            lane, clock, compiled.totals(), compiled.counts(done, done + steps), keys, {}
        )
        jax.block_until_ready((lane, clock, totals))
        done, updates = done + steps, updates + int(totals.updates[0])

    def facts() -> dict[str, Any]:
        assert updates == done - WARMUP, "one update a step"
        replay = sum(leaf.nbytes for leaf in jax.tree.leaves(lane.store))
        return {"updates_per_seed": updates, "replay_bytes": replay, **memory.peaks()}

    advance(WARMUP + entry.steps)
    ready = {"compile": seconds, "forecast_bytes": memory_bytes(compiled, len(keys))}
    return Racer(partial(advance, entry.steps), ready, {"facts": facts})


def product(entry: Entry) -> Racer:
    """As many bare float32 matrix products as have the floating-point operations of a round's updates, up to eight."""
    flop, each = update_flop(entry.width, entry.batch, 3, 1), 2 * entry.batch * entry.width**2
    many, count = products(entry.width, entry.batch, round(entry.steps * flop / each))
    many()
    return Racer(many, {}, {"facts": lambda: {"update_mflop": flop / 1e6, "products": count, "product_flop": each}})


def rejax_td3(entry: Entry) -> Racer:
    """Rejax's TD3 on gymnax's Pendulum: one environment, one update of the critics a step, no evaluation.

    gymnax says apart whether an episode terminated or was truncated; rejax 0.1.3 wants one `done`, and is given both
    joined, as gymnax did when it was written.
    """
    import importlib.metadata

    import jax
    from gymnax.environments.classic_control.pendulum import Pendulum
    from rejax import TD3

    class Joined(Pendulum):
        def step(self, *arguments: Any) -> Any:
            obs, state, reward, *ends, info = super().step(*arguments)
            return obs, state, reward, ends[0] | ends[-1], info

    assert entry.width == 64, "rejax fixes the widths of TD3"
    env, relu = Joined(), {"activation": "relu"}
    algorithm = TD3.create(
        env=env,
        env_params=env.default_params,
        actor_kwargs=dict(relu),
        critic_kwargs=dict(relu),
        num_envs=1,
        num_epochs=1,
        batch_size=entry.batch,
        buffer_size=entry.capacity,
        fill_buffer=WARMUP,
        learning_rate=RATE,
        polyak=0.995,
        exploration_noise=0.2,
        total_timesteps=entry.steps,
        eval_freq=entry.steps,
        skip_initial_evaluation=True,
    )
    over_seeds = (lambda one: one) if entry.seeds == 1 else jax.vmap  # without vmap a branch is a branch
    keys = jax.random.split(jax.random.key(0), entry.seeds)
    keys, seconds, rounds = keys[0] if entry.seeds == 1 else keys, {}, 0

    def compiled(name: str, one: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        program = jax.jit(over_seeds(one), **options).lower(*arguments).compile()
        seconds[name] = time.perf_counter() - began
        return program

    state = compiled("init", algorithm.init_state, keys)(keys)
    compiled("evaluation", lambda state, key: algorithm.eval_callback(algorithm, state, key), state, keys)
    silent = algorithm.replace(eval_callback=lambda algorithm, state, key: ())
    program = compiled("training", lambda state: silent.train(train_state=state)[0], state, donate_argnums=0)

    def advance() -> None:
        nonlocal state, rounds
        state, rounds = jax.block_until_ready(program(state)), rounds + 1

    def facts() -> dict[str, Any]:
        updates, steps = (int(np.ravel(count)[0]) for count in (state.critic_ts.step, state.global_step))
        assert steps == rounds * entry.steps, "a round has as many steps as it is said to"
        assert 0 <= steps - WARMUP - updates <= 1, "one update a step"
        changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), weights(), initial)
        assert all(jax.tree.leaves(changed)), "updates change all weights"
        versions = {name: importlib.metadata.version(name) for name in REJAX}
        return {"updates_per_seed": updates, "versions": versions}

    def weights() -> Any:
        return jax.tree.map(np.array, (state.actor_ts.params, state.critic_ts.params))

    initial = weights()
    while rounds * entry.steps <= WARMUP:
        advance()
    advance()
    ready = {"compile": sum(seconds.values()), "compile_parts": seconds}
    return Racer(advance, ready, {"facts": facts})


class Memory:
    """What this process holds, from now on; nothing is known where the system does not say, or lets nobody reset it."""

    def __init__(self) -> None:
        gc.collect()
        self._before, self._held = _status("VmHWM"), _status("VmRSS")
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self._held = None

    def peaks(self) -> dict[str, int | None]:
        """The peak ever, and since the beginning over what was held then."""
        peak = _status("VmHWM")
        if peak is None or self._before is None:
            return {"peak_bytes": None, "training_bytes": None}
        training = None if self._held is None else peak - self._held
        return {"peak_bytes": max(peak, self._before), "training_bytes": training}


def show(results: list[dict[str, Any]], compiled: dict[str, Any] | None) -> None:
    """A table of the results, at most 80 columns wide."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="device loop: seed-steps/s, ours is times the other", pad_edge=False)
    for header in ("case", "contender", "steps/s", "times", "asked", "compile"):
        table.add_column(header, no_wrap=True, justify="left" if header in ("case", "contender") else "right")
    for result in results:
        asked = "" if result["asked"] is None else f">= {result['asked']}"
        for i, (name, rate) in enumerate(result["seed_steps_per_second"].items()):
            ratio, compile_seconds = result["ratio_to"].get(name), result["ready"][name].get("compile")
            shown = "" if ratio is None else f"{ratio:.2f}"
            seconds = "" if compile_seconds is None else f"{compile_seconds:.1f} s"
            table.add_row(result["case"], name, f"{rate:.0f}", shown, asked if i == 1 else "", seconds)
        for name in result["missing"]:
            table.add_row(result["case"], name, "missing", "", "", "")
    if compiled is not None:
        words = f"{len(compiled['processes'])} processes"
        table.add_row(COMPILE, words, "", "", f"<= {compiled['asked']:g} s", f"{compiled['seconds']:.1f} s")
    if table.rows:
        Console(width=80).print(table)
    for result in results:
        if "product" in result["facts"]:
            mflop = result["facts"]["product"]["update_mflop"]
            gflops = result["seed_steps_per_second"]["product"] * mflop / 1e3
            print(f"{result['case']}: products at {gflops:.1f} GFLOP/s, {mflop:.1f} MFLOP an update")
        if result.get("memory_in_replays") is not None:
            more = result["memory_in_replays"]
            print(f"{result['case']}: the large replay costs {more:.2f} times its bytes, asked <= {MEMORY_FACTOR}")


def _memory(facts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the large replay adds to the peak of training, in units of its bytes."""
    large, small = facts.values()
    if large["training_bytes"] is None or small["training_bytes"] is None:
        return {"memory_in_replays": None, "memory_asked": MEMORY_FACTOR}
    more = large["training_bytes"] - small["training_bytes"]
    return {"memory_in_replays": more / large["replay_bytes"], "memory_asked": MEMORY_FACTOR}


def _status(name: str) -> int | None:
    """Bytes that the system gives for this process under a name; None where it does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    sizes = [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")]
    return sizes[0] if sizes else None
