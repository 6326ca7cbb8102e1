"""Training speed of the host loop, with peers side by side in one run.

    python benchmarks/throughput.py [--rounds 7] [--cases pendulum-64,half_cheetah-256] [--out FILE.json]

Every contender is a process of its own that compiles, fills its replay, then waits; the rounds go around all of them,
so that each round compares under the same load. Reported are medians over rounds, the ratios of each round's rates, the
time until a contender is ready (imports, compiling, warm-up), the phases of our loop one by one and synchronous, and
the rate of the bare matrix product of the same shapes, which bounds the updates. A peer that is not installed is said
to be missing.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WARMUP = 500
RATE = 1e-3


class Case(NamedTuple):
    """What is trained, and how many environment steps of each seed make a round."""

    env: str
    width: int
    batch: int
    seeds: int
    steps: int


CASES = {
    "pendulum-64": Case("Pendulum-v1", 64, 64, 1, 1500),
    "pendulum-64-8seeds": Case("Pendulum-v1", 64, 64, 8, 1000),
    "pendulum-256": Case("Pendulum-v1", 256, 256, 1, 300),
    "half_cheetah-256": Case("HalfCheetah-v5", 256, 256, 1, 300),
    "half_cheetah-256-3seeds": Case("HalfCheetah-v5", 256, 256, 3, 150),
}
PEERS = {"sbx": "sbx", "sb3": "stable_baselines3"}


def main() -> None:
    """Runs the benchmark, or one contender of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--peers", default="sbx,sb3", help="of sbx, sb3; or none")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--contender", nargs=2, metavar=("NAME", "CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        contend(*options.contender)
        return
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    results = [run_case(name, options) for name in options.cases.split(",")]
    replay = replay_case(options.rounds)
    record = {"command": " ".join(["python", *sys.argv]), "date": time.strftime("%Y-%m-%d"), "load_before": load}
    record |= {"commit": _git("rev-parse", "HEAD"), "changed": bool(_git("status", "--porcelain", "-uno")), **_facts()}
    record |= {"cases": results, "replay": replay}
    show(results)
    print("replay, 256 of 1e6 HalfCheetah transitions:", json.dumps(replay))
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        print(options.out)


def run_case(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Interleaves the contenders of a case."""
    case = CASES[name]
    peers = [] if options.peers == "none" or case.seeds > 1 else options.peers.split(",")
    missing = [peer for peer in peers if importlib.util.find_spec(PEERS[peer]) is None]
    names = ["ours", *(peer for peer in peers if peer not in missing)]
    if case.seeds > 1:
        names.append("ours-1seed")
    contenders = {each: Contender(each, name) for each in names}
    seconds: dict[str, list[float]] = {each: [] for each in names}
    for _ in range(options.rounds):
        for each, contender in contenders.items():
            seconds[each].append(contender.ask("round")["seconds"])
    ours = contenders["ours"].ask("phases")
    for contender in contenders.values():
        contender.close()
    count = {each: case.steps * (case.seeds if each == "ours" else 1) for each in names}
    rates = {each: [count[each] / s for s in seconds[each]] for each in names}
    return {
        "case": name,
        **case._asdict(),
        "seed_steps_per_second": {each: float(np.median(r)) for each, r in rates.items()},
        "ratio_to": {
            each: float(np.median(np.array(rates["ours"]) / np.array(rates[each]))) for each in names if each != "ours"
        },
        "rounds": rates,
        "seconds_until_ready": {each: contender.ready["ready"] for each, contender in contenders.items()},
        "missing": missing,
        **ours,
    }


class Contender:
    """A process that trains a round when asked."""

    def __init__(self, name: str, case: str) -> None:
        command = [sys.executable, __file__, "--contender", name, case]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ready = self._answer()

    def ask(self, request: str) -> dict[str, Any]:
        """Sends a request and waits for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate("")

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit("a contender ended before its time")


def contend(name: str, case_name: str) -> None:
    """The life of a contender: compile, warm up, then answer requests."""
    warnings.filterwarnings("ignore")
    case = CASES[case_name]
    if name == "ours-1seed":
        case = case._replace(seeds=1)
    began = time.perf_counter()
    advance, phases = ours(case) if name.startswith("ours") else peer(name, case)
    print(json.dumps({"ready": time.perf_counter() - began}), flush=True)
    for line in sys.stdin:
        if line.strip() == "phases":
            print(json.dumps(phases()), flush=True)
            continue
        began = time.perf_counter()
        advance()
        print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)


def ours(case: Case) -> tuple[Callable[[], None], Callable[[], dict[str, Any]]]:
    """Our host loop, and its phases one by one."""
    import jax

    from ddpg_jax.algorithms import make_agent
    from ddpg_jax.reading import load_config
    from ddpg_jax.envs.factory import training_lanes
    from ddpg_jax.loops import host, transport
    from ddpg_jax.replay.ring import Ring

    config = load_config(
        seeds=case.seeds,
        total_steps=2**40,
        env={"id": case.env},
        algorithm={
            "hidden": [case.width] * 2,
            "batch_size": case.batch,
            "warmup_steps": WARMUP,
            "actor_learning_rate": RATE,
            "critic_learning_rate": RATE,
        },
        evaluation={"every": 0},
        logging={"every": case.steps},
    )
    lanes = training_lanes(config)
    agent = make_agent(config, lanes.spec)
    ring = Ring(lanes.spec, config.seed_list, num_envs=1, capacity=100_000, n_step=1, gamma=0.99)
    reports = host.host_loop(config, agent, lanes, ring)
    while next(reports).updates == 0:
        pass

    def advance() -> None:
        jax.block_until_ready(next(reports).state)

    def phases() -> dict[str, Any]:
        keys = jax.vmap(jax.random.key)(np.arange(case.seeds))
        state = jax.jit(jax.vmap(agent.init))(keys)
        act_state = jax.vmap(lambda _: agent.init_act(1))(np.arange(case.seeds))
        way = transport.transport_of(ring, narrow=config.algorithm.narrow)
        act, update = host.jit_act(agent), host.jit_update(agent, way.unpack)
        words = np.zeros((case.seeds, 1, 2), np.uint32)
        obs, first = lanes.reset(), np.zeros((case.seeds, 1), bool)
        action = np.zeros((case.seeds, 1, lanes.spec.action_size), np.float32)
        step = lanes.step(action)
        calls = iter(range(10**9))

        def replay() -> Any:
            ring.add(obs, action, step)
            return way.take(ring.draw(1, case.batch, next(calls)))

        def one_update() -> None:
            nonlocal state
            state, _ = update(state, packed, keys)
            jax.block_until_ready(state)

        packed = replay()
        micro = {
            "act": _timed(
                lambda: np.asarray(act(transport.acting(state), act_state, transport.pack_seen(obs, first), words)[0])
            ),
            "environment": _timed(lambda: lanes.step(action)),
            "replay": _timed(replay),
            "transfer": _timed(lambda: jax.block_until_ready(jax.device_put(packed))),
            "update": _timed(one_update),
        }
        return {"phase_microseconds": micro, "limit": limit(case, lanes.spec)}

    return advance, phases


def limit(case: Case, spec: Any) -> dict[str, float]:
    """The rate of the bare matrix product, and the updates/s it would allow."""
    import jax
    import jax.numpy as jnp

    h, b, o, a = case.width, case.batch, spec.obs_shape[0], spec.action_size
    x, w = jnp.ones((b, h)), jnp.ones((h, h))
    product = jax.jit(lambda x, w: x @ w)
    chain = 64

    def many() -> None:
        y = x
        for _ in range(chain):
            y = product(y, w)
        y.block_until_ready()

    gflops = 2 * b * h * h * chain / _timed(many) / 1e3
    actor, critic = 2 * b * (o * h + h * h + h * a), 2 * b * ((o + a) * h + h * h + h)
    first_actor, first_critic = 2 * b * o * h, 2 * b * (o + a) * h
    flop = (actor + critic) + (3 * critic - first_critic) + (actor + critic + critic + 2 * actor - first_actor)
    return {"matrix_product_gflops": gflops, "update_mflop": flop / 1e6, "updates_per_second": gflops * 1e9 / flop}


def peer(name: str, case: Case) -> tuple[Callable[[], None], Callable[[], dict[str, Any]]]:
    """A peer's DDPG at equal settings: one update of one batch for each step, Gaussian noise."""
    import gymnasium
    from stable_baselines3.common.noise import NormalActionNoise

    env = gymnasium.make(case.env)
    size = env.action_space.shape[0]
    model = importlib.import_module(PEERS[name]).DDPG(
        "MlpPolicy",
        env,
        policy_kwargs={"net_arch": [case.width] * 2},
        learning_rate=RATE,
        batch_size=case.batch,
        buffer_size=100_000,
        learning_starts=WARMUP,
        train_freq=1,
        gradient_steps=1,
        action_noise=NormalActionNoise(np.zeros(size), 0.1 * np.ones(size)),
        seed=0,
    )
    model.learn(WARMUP + 100)
    return lambda: model.learn(case.steps, reset_num_timesteps=False) and None, dict


def replay_case(rounds: int) -> dict[str, Any]:
    """Sampling 256 of 1,000,000 HalfCheetah transitions, with cpprb's uniform buffer interleaved."""
    from ddpg_jax.replay.ring import Ring
    from ddpg_jax.types import EnvSpec, Step

    count, batch = 1_000_000, 256
    ring = Ring(
        EnvSpec((17,), "float32", (-1.0,) * 6, (1.0,) * 6), [0], num_envs=1, capacity=count, n_step=1, gamma=0.99
    )
    obs, zero, no = np.ones((1, 1, 17), np.float32), np.zeros((1, 1), np.float32), np.zeros((1, 1), bool)
    for _ in range(count):
        ring.add(obs, obs[..., :6], Step(obs, obs, zero, no, no))
    calls = iter(range(10**9))
    samplers: dict[str, Callable[[], Any]] = {"ours": lambda: ring.sample(1, batch, next(calls))}
    if importlib.util.find_spec("cpprb") is not None:
        import cpprb

        fields = {"obs": {"shape": 17}, "act": {"shape": 6}, "rew": {}, "next_obs": {"shape": 17}, "done": {}}
        theirs = cpprb.ReplayBuffer(count, fields)
        block = np.ones((100_000, 17), np.float32)
        for _ in range(count // len(block)):
            theirs.add(obs=block, act=block[:, :6], rew=block[:, 0], next_obs=block, done=block[:, 0])
        samplers["cpprb"] = lambda: theirs.sample(batch)
    microseconds: dict[str, list[float]] = {name: [] for name in samplers}
    for _ in range(rounds):
        for name, sampler in samplers.items():
            microseconds[name].append(_timed(sampler, repeats=1))
    return {"megabytes": ring.nbytes / 1e6} | {name: float(np.median(us)) for name, us in microseconds.items()}


def show(results: list[dict[str, Any]]) -> None:
    """Tables of the results."""
    from rich.console import Console
    from rich.table import Table

    rates = Table("case", "contender", "seed-steps/s", "ours is times", "ready after s", title="one update a step")
    phases = Table("case", *results[0]["phase_microseconds"], "product allows", title="phases of ours, us")
    for result in results:
        for name, rate in result["seed_steps_per_second"].items():
            ratio = result["ratio_to"].get(name)
            shown = "" if ratio is None else f"{ratio:.2f}"
            rates.add_row(result["case"], name, f"{rate:.0f}", shown, f"{result['seconds_until_ready'][name]:.1f}")
        for name in result["missing"]:
            rates.add_row(result["case"], name, "missing", "", "")
        micro = [f"{us:.0f}" for us in result["phase_microseconds"].values()]
        phases.add_row(result["case"], *micro, f"{result['limit']['updates_per_second']:.0f} upd/s")
    console = Console()
    console.print(rates)
    console.print(phases)


def _timed(call: Callable[[], Any], repeats: int = 5) -> float:
    """Median microseconds of a call, each repeat about 0.1 s long."""
    call()
    began = time.perf_counter()
    call()
    number = max(1, min(2000, int(0.1 / max(1e-7, time.perf_counter() - began))))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(number):
            call()
        times.append((time.perf_counter() - began) / number * 1e6)
    return float(np.median(times))


def _facts() -> dict[str, Any]:
    from ddpg_jax.reports.result import environment

    facts = environment()
    for package in ("stable_baselines3", "sbx-rl", "torch"):
        try:
            facts["versions"][package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts["versions"][package] = None
    return facts


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
