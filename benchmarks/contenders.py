"""What the benchmarks of speed share: contenders that are processes of their own, their rounds, and the record.

Only NumPy is imported before a contender is made: one of them runs in an interpreter that has not our dependencies.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WARMUP = 500
RATE = 1e-3


class Racer(NamedTuple):
    """What a contender does once it is compiled and warm.

    Attributes:
      advance: trains a round, and waits for its end.
      ready: what it says when it is ready.
      answers: what else it may be asked.
    """

    advance: Callable[[], None]
    ready: Mapping[str, Any] = {}
    answers: Mapping[str, Callable[[], dict[str, Any]]] = {}


class Contender:
    """A process that trains a round when asked.

    Args:
      name: of the contender.
      case: where it stands.
      python: its interpreter.
      script: what it runs, of this folder.
      environment: variables that it gets beside those of this process.
    """

    def __init__(
        self,
        name: str,
        case: str,
        python: str | Path = sys.executable,
        script: str = "throughput.py",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._name = f"{name} of {case}"
        command = [str(python), str(Path(__file__).with_name(script)), "--contender", name, case]
        fresh = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"} | dict(environment or {})
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=fresh)
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
        raise SystemExit(f"{self._name} ended before its time")


def race(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Goes around the contenders; returns the seconds of each one's rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            seconds[name].append(contender.ask("round")["seconds"])
    return seconds


def serve(make: Callable[[], Racer]) -> None:
    """The life of a contender: compile, warm up, then answer requests."""
    warnings.filterwarnings("ignore")
    began = time.perf_counter()
    racer = make()
    print(json.dumps({"ready": time.perf_counter() - began, **racer.ready}), flush=True)

    def a_round() -> dict[str, float]:
        began = time.perf_counter()
        racer.advance()
        return {"seconds": time.perf_counter() - began}

    answers = {"round": a_round, **racer.answers}
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), flush=True)


def median_ratio(rates: Mapping[str, list[float]], name: str, other: str) -> float:
    """The median over rounds of the ratio of two contenders' rates."""
    return float(np.median(np.array(rates[name]) / np.array(rates[other])))


def update_flop(width: int, batch: int, obs_size: int, action_size: int) -> int:
    """Floating-point operations of the matrix products of one update, two hidden layers; those of its jaxpr.

    The critic's step: forward through target actor, target critic and critic, back to the critic's weights and to all
    inputs but its first layer's. The actor's: forward through both, back through the critic to its inputs, back to the
    actor's weights and to all inputs but its first layer's.
    """
    h, o, a = width, obs_size, action_size
    actor, critic = o * h + h * h + h * a, (o + a) * h + h * h + h
    critic_step = actor + critic + critic + critic + (critic - (o + a) * h)
    actor_step = actor + critic + critic + actor + (actor - o * h)
    return 2 * batch * (critic_step + actor_step)


def products(width: int, batch: int, count: int) -> tuple[Callable[[], None], int]:
    """A call that makes about `count` bare products `[batch, width] x [width, width]`, each of the one before.

    A program has eight of them: dispatched one by one they are slower by a seventh at 256, and in a loop too.

    Returns:
      The call, and how many products it makes.
    """
    import jax
    import jax.numpy as jnp

    x, w = jnp.ones((batch, width)), jnp.full((width, width), 1 / width)
    calls = -(-count // 8)

    @jax.jit
    def eight(x: Any, w: Any) -> Any:
        for _ in range(8):
            x = x @ w
        return x

    def many() -> None:
        y = x
        for _ in range(calls):
            y = eight(y, w)
        y.block_until_ready()

    return many, 8 * calls


def timed(call: Callable[[], Any], repeats: int = 5) -> float:
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


def record(command: list[str], packages: tuple[str, ...]) -> dict[str, Any]:
    """What stands beside every figure: command, date, commit, versions, machine.

    It asks JAX for its devices, which claims memory of an accelerator: not while contenders run.

    Args:
      command: the words of the command line, without the interpreter.
      packages: peers whose versions belong to it.
    """
    from ddpg_jax.runs.result import system_info

    facts = system_info()
    for package in packages:
        try:
            facts["versions"][package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts["versions"][package] = None
    return {
        "command": " ".join(["python", *command]),
        "date": time.strftime("%Y-%m-%d"),
        **source(),
        **facts,
    }


def source() -> dict[str, Any]:
    """The commit that the working tree is at, and whether its files differ from it."""
    return {"commit": _git("rev-parse", "HEAD"), "changed": bool(_git("status", "--porcelain", "-uno"))}


def load() -> float | None:
    """Processes that want a core, on average over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()
