"""What back-ends hold of a run, from their own files: `(step, key, value)` for each number, as often as it is there."""

import json
import os
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from ddpg_jax.runs.sinks.factory import find_problem

LABELS = {"event", "combination", "seed", "step", "env", "episode", "episodes", "updates", "returns"}
BACKENDS = ("plain_sink:PlainSink", "wandb", "mlflow", "trackio")


def need(name):
    """Skips a test whose back-end is not installed."""
    problem = find_problem(name)
    if problem is not None:
        pytest.skip(problem)


def settings(folder: Path) -> dict[str, str]:
    """The environment in which all back-ends work on this machine alone."""
    return {
        "WANDB_MODE": "offline",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TRACKIO_DIR": str(folder / "trackio"),
        "DO_NOT_TRACK": "1",
    }


def environment(folder: Path) -> dict[str, str]:
    """That of a process which sends to them."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parents[1]), str(here), os.environ.get("PYTHONPATH", "")])
    return os.environ | settings(folder) | {"PYTHONPATH": path}


def follow(run: Path, name: str, lengths: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs `follow_record.py`."""
    program = Path(__file__).with_name("follow_record.py")
    command = [sys.executable, "-W", "ignore", str(program), str(run), name, lengths]
    return subprocess.run(command, env=environment(folder), capture_output=True, text=True, check=False)


def expected(run: Path, lane=None):
    """What the record of a run says, or that of a sweep of a lane; seeds have one environment each."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return sorted(
        (row["step"], f"{row['event']}/{name}" + (f"/seed-{row['seed']}" if lane is None else ""), value)
        for row in rows
        for name, value in row.items()
        if name not in LABELS and lane in (None, (row.get("combination"), row["seed"]))
    )


def part(lane):
    """The folder of a lane of a sweep in `followers`."""
    return "" if lane is None else f"combination-{lane[0]}-seed-{lane[1]}"


def read(name, run: Path, folder: Path, lane=None):
    """What the back-end holds of a run, or of a lane of a sweep."""
    files = run / "followers" / part(lane)
    return sorted({"wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}.get(name, _plain)(files, folder, lane))


def _plain(files, folder, lane):
    rows = [json.loads(line) for line in (files / "plain.jsonl").read_text().splitlines()]
    for row in rows:
        whose = f"/seed-{row['seed']}" if lane is None else ""
        for name in row.keys() - LABELS:
            yield row["step"], f"{row['event']}/{name}{whose}", row[name]


def _wandb(files, folder, lane):
    from wandb.proto import wandb_internal_pb2

    (path,) = (files / "wandb").glob("offline-run-*/run-*.wandb")
    for content in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        if record.WhichOneof("record_type") != "history":
            continue
        items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        assert items["_step"] == items["env_step"]
        for key, value in items.items():
            if key != "env_step" and not key.startswith("_"):
                yield items["env_step"], key, value


def _records(content):
    """The records of a log of W&B: blocks of 32 KiB, in them parts with checksum, length and kind."""
    at, parts = 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        if not kind:
            return
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or last
            yield parts
            parts = b""


def _mlflow(files, folder, lane):
    identifier = json.loads((files / "mlflow.json").read_text())["id"]
    with sqlite3.connect(folder / "mlflow.db") as base:
        query = (
            "select step, metrics.key, metrics.value from metrics join tags using (run_uuid) "
            "where tags.key = ? and tags.value = ?"
        )
        found = base.execute(query, ("ddpg_jax.run", identifier)).fetchall()
    base.close()
    return found


def _trackio(files, folder, lane):
    identifier = json.loads((files / "trackio.json").read_text())["id"]
    with sqlite3.connect(folder / "trackio" / "ddpg_jax.db") as base:
        found = base.execute("select step, metrics from metrics where run_id = ?", (identifier,)).fetchall()
    base.close()
    return [(step, key, value) for step, metrics in found for key, value in json.loads(metrics).items()]


def children(process):
    """The processes that one has started, and those that they have."""
    try:
        direct = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [pid for child in direct for pid in (int(child), *children(int(child)))]


def alive(process):
    """Whether there is such a process."""
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True
