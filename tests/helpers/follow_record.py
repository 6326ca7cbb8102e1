"""A follower in a process of its own: `python follow_record.py RUN SINK LENGTHS`, with the lines to keep each time.

The record is cut to so many lines of `whole.jsonl`, then sent, and how many rows were sent is printed. A negative
number: the process dies between sending and noting it.
"""

import os
import sys
from pathlib import Path

from ddpg_jax.runs.directory import RunDirectory
from ddpg_jax.runs.sinks.factory import make_follower
from ddpg_jax.runs.sinks.follower import Follower

WRITE = Follower._write


def die(follower, position):
    """Stands in the place of `Follower._write`."""
    if not position.pending:
        os._exit(9)
    WRITE(follower, position)


if __name__ == "__main__":
    run, name, lengths = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    lines = (run / "whole.jsonl").read_bytes().splitlines(keepends=True)
    for kept in map(int, lengths.split(",")):
        (run / "metrics.jsonl").write_bytes(b"".join(lines[: abs(kept)]))
        if kept < 0:
            Follower._write = die
        follower = make_follower(RunDirectory(run), name)
        while follower.advance(at_end=True):
            pass
        follower.close()
        print(follower.sent)
