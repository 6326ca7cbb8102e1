"""Training speed of both loops, with peers side by side in one run.

    python benchmarks/throughput.py [--rounds 7] [--cases pendulum-64,device-64] [--rejax-python PYTHON]
        [--out FILE.json]

Every contender is a process of its own that compiles, fills its replay, then waits; the rounds go around all of them,
so that each round compares under the same load. Reported are medians over rounds, the ratios of each round's rates, the
time until a contender is ready (imports, compiling, warm-up), the phases of our host loop one by one and synchronous,
and the rate of the bare matrix product of the same shapes, which bounds the updates. A peer that is not installed is
said to be missing. The cases of the device loop are in `device_throughput`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import device_throughput
import numpy as np
from contenders import (
    RATE,
    WARMUP,
    Contender,
    Racer,
    load,
    median_ratio,
    products,
    race,
    record,
    serve,
    source,
    timed,
    update_flop,
)


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
REPLAY = "replay"


def main() -> None:
    """Runs the benchmark, or one contender of it."""
    every = [*CASES, *device_throughput.CASES, device_throughput.COMPILE, REPLAY]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=_among(every), default=every, help=f"of {', '.join(every)}")
    parser.add_argument("--peers", type=_among([*PEERS, "none"]), default=[*PEERS], help="of sbx, sb3; or none")
    parser.add_argument("--rounds", type=_count, default=7)
    parser.add_argument("--rejax-python", type=Path, help="interpreter that has rejax; left out: rejax is missing")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--contender", nargs=2, metavar=("NAME", "CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        serve(lambda: make(*options.contender))
        return
    if options.rejax_python and not device_throughput.has_rejax(options.rejax_python):
        parser.error(f"--rejax-python: {options.rejax_python} does not import rejax")
    if options.out and not options.out.parent.is_dir():
        parser.error(f"--out: there is no folder {options.out.parent}")
    run(options)


def run(options: argparse.Namespace) -> None:
    """Runs the cases one after another, shows and records them."""
    begun = {**source(), "load_before": load()}
    host = [run_case(name, options) for name in options.cases if name in CASES]
    device = [
        device_throughput.run_case(name, options.rounds, options.rejax_python)
        for name in options.cases
        if name in device_throughput.CASES
    ]
    results: dict[str, Any] = {"cases": host, "device_cases": device}
    if device_throughput.COMPILE in options.cases:
        results["compile"] = device_throughput.compile_case()
    if REPLAY in options.cases:
        results["replay"] = replay_case(options.rounds)
    if host:
        show(host)
    device_throughput.show(device, results.get("compile"))
    if REPLAY in results:
        print("replay, 256 of 1e6 HalfCheetah transitions:", json.dumps(results[REPLAY]))
    if options.out:
        words = [word.replace(str(options.rejax_python), "PYTHON") for word in sys.argv]
        facts = record(words, ("stable_baselines3", "sbx-rl", "torch")) | begun
        options.out.write_text(json.dumps(facts | results, indent=1) + "\n")
        print(options.out)


def run_case(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Interleaves the contenders of a case."""
    case = CASES[name]
    peers = [] if "none" in options.peers or case.seeds > 1 else options.peers
    missing = [peer for peer in peers if importlib.util.find_spec(PEERS[peer]) is None]
    names = ["ours", *(peer for peer in peers if peer not in missing)]
    if case.seeds > 1:
        names.append("ours-1seed")
    contenders = {each: Contender(each, name) for each in names}
    seconds = race(contenders, options.rounds)
    ours = contenders["ours"].ask("phases")
    for contender in contenders.values():
        contender.close()
    count = {each: case.steps * (case.seeds if each == "ours" else 1) for each in names}
    rates = {each: [count[each] / s for s in seconds[each]] for each in names}
    return {
        "case": name,
        **case._asdict(),
        "seed_steps_per_second": {each: float(np.median(r)) for each, r in rates.items()},
        "ratio_to": {each: median_ratio(rates, "ours", each) for each in names if each != "ours"},
        "rounds": rates,
        "seconds_until_ready": {each: contender.ready["ready"] for each, contender in contenders.items()},
        "missing": missing,
        **ours,
    }


def make(name: str, case_name: str) -> Racer:
    """Compiles and warms up a contender."""
    if case_name in device_throughput.CASES:
        entry = device_throughput.CASES[case_name].entries[name]
        if entry.kind != "host":
            return device_throughput.make(entry)
        return ours(Case("Pendulum-v1", entry.width, entry.batch, entry.seeds, entry.steps))
    case = CASES[case_name]
    if name == "ours-1seed":
        case = case._replace(seeds=1)
    return ours(case) if name.startswith("ours") else peer(name, case)


def ours(case: Case) -> Racer:
    """Our host loop, and its phases one by one."""
    import jax

    from ddpg_jax.agents.algorithms import make_agent
    from ddpg_jax.config.load import load_config
    from ddpg_jax.envs.factory import make_training_envs
    from ddpg_jax.replay.host.ring import Ring
    from ddpg_jax.training.host import compile as programs
    from ddpg_jax.training.host import loop as host
    from ddpg_jax.training.host import transfer as transport
    from ddpg_jax.xla.tuning import configure_process, tuning

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
    configure_process(config, tune_process=True)  # as the program does
    lanes = make_training_envs(config)
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
        way = transport.batch_transfer(ring, raw=tuning(config).raw_rows)
        act, update = programs.jit_act(agent), programs.jit_update(agent, way.unpack)
        words = np.zeros((case.seeds, 1, 2), np.uint32)
        obs, first = lanes.reset(), np.zeros((case.seeds, 1), bool)
        action = np.zeros((case.seeds, 1, lanes.spec.action_size), np.float32)
        step = lanes.step(action)
        calls = iter(range(10**9))

        def replay() -> Any:
            ring.add(obs, action, step)
            return way.pack(ring.draw(1, case.batch, next(calls)))

        def one_update() -> None:
            nonlocal state
            state, *_ = update(state, packed, keys)
            jax.block_until_ready(state)

        packed = replay()
        micro = {
            "act": timed(
                lambda: np.asarray(act(state.for_acting, act_state, transport.pack_obs(obs, first), words)[0])
            ),
            "environment": timed(lambda: lanes.step(action)),
            "replay": timed(replay),
            "transfer": timed(lambda: jax.block_until_ready(jax.device_put(packed))),
            "update": timed(one_update),
        }
        return {"phase_microseconds": micro, "limit": limit(case, lanes.spec)}

    return Racer(advance, answers={"phases": phases})


def limit(case: Case, spec: Any) -> dict[str, float]:
    """The rate of the bare matrix product, and the updates/s it would allow."""
    flop = update_flop(case.width, case.batch, spec.obs_shape[0], spec.action_size)
    many, count = products(case.width, case.batch, 64)
    gflops = 2 * case.batch * case.width**2 * count / timed(many) / 1e3
    return {"matrix_product_gflops": gflops, "update_mflop": flop / 1e6, "updates_per_second": gflops * 1e9 / flop}


def peer(name: str, case: Case) -> Racer:
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
    return Racer(lambda: model.learn(case.steps, reset_num_timesteps=False) and None)


def replay_case(rounds: int) -> dict[str, Any]:
    """Sampling 256 of 1,000,000 HalfCheetah transitions, with cpprb's uniform buffer interleaved."""
    from ddpg_jax.replay.host.ring import Ring
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
            microseconds[name].append(timed(sampler, repeats=1))
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
    console = Console(width=80)
    console.print(rates)
    console.print(phases)


def _among(known: list[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        words = text.split(",")
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(known)}")
        return words

    return names


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


if __name__ == "__main__":
    main()
