"""A driver in a process of its own: submits the tasks of a JSON file to an engine and prints what ended, as JSON.

    python engine_driver.py PLAN    with {"engine": {...}, "folder": ..., "tasks": {name: [words of the child]},
                                          "stop_at_rows": null or N}

With `stop_at_rows` it asks to stop once every task has written so many rows. The last line says what came of the tasks.
"""

import json
import sys
import time
from pathlib import Path

from ddpg_jax.training.search.engines.engine import Task, parse_engine
from ddpg_jax.training.search.engines.factory import make_engine

CHILD = str(Path(__file__).with_name("engine_child.py"))


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(plan["folder"])
    began = time.monotonic()
    engine = make_engine(parse_engine(plan["engine"], "plan"), folder)
    ready = time.monotonic()

    def stop() -> bool:
        def rows(name):
            path = folder / name / "rows"
            return len(path.read_text().splitlines()) if path.exists() else 0

        wanted = plan.get("stop_at_rows")
        return wanted is not None and all(rows(name) >= wanted for name in plan["tasks"])

    for name, words in plan["tasks"].items():
        engine.submit(Task(name, (sys.executable, CHILD, str(folder / name), *words), folder / name))
    ended = {}
    try:
        while found := engine.wait(stop):
            ended |= {each.name: each._asdict() for each in found}
            if stop():
                break
    finally:
        engine.close()
    heavy = [name for name in ("jax", "flax", "optax") if name in sys.modules]
    seconds = {"ready": round(ready - began, 1), "whole": round(time.monotonic() - began, 1)}
    print(json.dumps({"ended": ended, "heavy": heavy, "seconds": seconds}))


if __name__ == "__main__":
    main()
