"""Three Ray nodes on loopback, one of which is killed without grace: `python ray_nodes.py FOLDER`; prints JSON."""

import json
import os
import sys
import time
from pathlib import Path

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}

from ray.cluster_utils import Cluster

from ddpg_jax.training.search.engines.engine import Task, parse_engine, read_marks
from ddpg_jax.training.search.engines.factory import make_engine

CHILD = str(Path(__file__).with_name("engine_child.py"))
ROWS = 60


def main() -> None:
    folder = Path(sys.argv[1])
    began = time.monotonic()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    cluster.wait_for_nodes()
    engine = make_engine(parse_engine({"kind": "ray", "address": cluster.address}, "here"), folder)
    up = time.monotonic() - began
    names = [f"task{number}" for number in range(4)]
    for name in names:
        words = (sys.executable, CHILD, str(folder / name), "--rows", str(ROWS), "--seconds", "0.1")
        engine.submit(Task(name, words, folder / name))
    running = {}
    while len(running) < 2 or len(set(running.values())) < 2:  # work on both nodes
        time.sleep(0.2)
        running = placed(folder, names)
    victim = nodes[0]
    lost = [name for name, node in running.items() if node == victim.node_id]
    at_loss = time.monotonic()
    cluster.remove_node(victim, allow_graceful=False)
    ended = {}
    while found := engine.wait(lambda: False):
        ended |= {each.name: each._asdict() for each in found}
    seconds = round(time.monotonic() - at_loss, 1)
    engine.close()
    cluster.shutdown()
    starts = {name: read_marks(folder / f"{name}.log").starts for name in names}
    said = {
        "ended": ended,
        "lost": lost,
        "rows": ROWS,
        "starts": starts,
        "up": round(up, 1),
        "seconds_after_loss": seconds,
    }
    print(json.dumps(said))


def placed(folder, names):
    """On which node each task runs that has written rows."""
    begun = [name for name in names if (folder / name / "rows").exists()]
    return {name: read_marks(folder / f"{name}.log").node.rpartition("/")[2] for name in begun}


if __name__ == "__main__":
    main()
