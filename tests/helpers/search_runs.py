"""An engine for tests of a search's decisions: its runs only write the record that a run would leave."""

import json
import tomllib

from ddpg_jax.training.search.driver import FRESH
from ddpg_jax.training.search.engines.engine import Ended
from ddpg_jax.training.search.file import load_search
from ddpg_jax.training.search.run import run_search

BASE = """
[config]
seeds = 3
total_steps = 1000
evaluation.every = 100
env.id = "{env}"
"""
SPACE = """
[search.space]
"algorithm.tau" = { low = 0.01, high = 0.9 }
"algorithm.batch_size" = { low = 8, high = 64, integer = true }
"""
TASK = """
[[search.tasks]]
config = { env.id = "Pendulum-v1" }
low = 0
high = 50
"""


class Killed(BaseException):
    """Stands for SIGKILL: nothing that is written later is there."""


class Writer:
    """An engine whose runs write the record that a run would leave; the last one that ended is reported first."""

    def __init__(self, codes=(), life=None, diverges=()):
        self.codes, self.life, self.diverges = dict(codes), life, diverges
        self.tasks, self.waiting, self.closed = [], [], False

    def submit(self, task):
        self._live()
        self.tasks.append(task)
        self.waiting.append(task)

    def wait(self, stop):
        self._live()
        if stop():
            return []
        task = self.waiting.pop()
        code = self.codes.get(self.tasks.index(task), 0)
        if not code:
            write_record(task, self.diverges)
        return [Ended(task.name, code, 1, "its log")]

    def close(self):
        self.closed = True

    def _live(self):
        if self.life is not None:
            self.life -= 1
            if self.life < 0:
                raise Killed


def write_record(task, diverges=()):
    """Evaluations every 100 steps: of a seed, 100·tau + the share of steps + the seed; some values of tau diverge."""
    words = task.command
    config = tomllib.loads((task.directory.parent / f"{task.name}.toml").read_text())
    total = config.get("total_steps", config.get("config", {}).get("total_steps"))
    until = int(words[words.index("--until") + 1]) if "--until" in words else total
    combinations = config.get("settings", [{}])
    task.directory.mkdir(exist_ok=True)
    rows = []
    for number, setting in enumerate(combinations):
        tau = setting.get("algorithm.tau", config.get("algorithm", {}).get("tau"))
        seeds = config.get("seeds", config["config"]["seeds"] if "config" in config else None)
        for step in range(100, until + 1, 100) if tau not in diverges else ():
            for seed in range(seeds) if isinstance(seeds, int) else seeds:
                figure = 100 * tau + step / 1000 + seed % FRESH
                row = {"event": "evaluation", "seed": seed, "step": step, "mean_return": figure}
                rows.append(row | ({"combination": number} if "settings" in config else {}))
    (task.directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_search(folder, text, env="Pendulum-v1"):
    path = folder / "search.toml"
    path.write_text(BASE.format(env=env) + text)
    return path


def searched(path, run_dir, engine=None, **how):
    engine = engine or Writer()
    run = run_search(load_search(path), run_dir, engine=engine, notify=lambda line: None, **how)
    return run, engine


def check_asynchronous(lines, trials=9, batch=3, rungs=3):
    """What holds of any record: a start for each rung, in order, none more than a batch at once, none after a stop."""
    sent, training, ended = {}, set(), {}
    for line in lines:
        if line.get("fresh"):
            continue
        if line["event"] == "started":
            (number,) = line["trials"]
            assert line["rung"] in (sent.get(number, 0), sent.get(number, 0) + 1)
            sent[number] = line["rung"]
            training.add((number, line.get("task")))
            assert len({each for each, _ in training}) <= batch
            assert number not in ended
        elif line["event"] == "scored":
            training.remove((line["trial"], line.get("task")))
        elif line["event"] == "stopped":
            ended[line["trial"]] = line["step"]
    assert not training
    assert len(sent) == trials
    assert {number for number, rung in sent.items() if rung < rungs} == set(ended)
    assert sum(rung == rungs for rung in sent.values()) >= 1
