"""A program of the standard library alone that ends as a run does: rows appended, SIGTERM heard, codes of `errors`.

    python engine_child.py RUN_DIR [--rows 12] [--seconds 0.01] [--end 3] [--times 1] [--at 4] [--kill 9] [--deaf]

Every start goes on after the last whole row. At row `--at` of its first `--times` starts it ends with `--end`, or
sends itself the signal `--kill`. Otherwise it ends with 0.
"""

import argparse
import fcntl
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

stopped = False


def note(number, frame):
    global stopped
    stopped = True


def row_text(row: int) -> str:
    return f"{row} {hashlib.sha256(str(row).encode()).hexdigest()[:8]}\n"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    for name, value in {"rows": 12, "end": 0, "times": 10**6, "at": 4, "kill": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--seconds", type=float, default=0.01)
    parser.add_argument("--deaf", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if options.deaf else note)
    options.run_dir.mkdir(parents=True, exist_ok=True)
    lock = os.open(options.run_dir / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another process writes here")
        return 5
    with open(options.run_dir / "starts", "a") as file:
        file.write(f"{os.getpid()}\n")
    starts = len((options.run_dir / "starts").read_text().splitlines())
    seen = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "XLA_PYTHON_CLIENT_MEM_FRACTION")}
    seen |= {"cores": sorted(os.sched_getaffinity(0)), "threads": os.environ.get("OMP_NUM_THREADS")}
    (options.run_dir / "seen.json").write_text(json.dumps(seen))
    return write_rows(options, starts)


def write_rows(options, starts: int) -> int:
    path = options.run_dir / "rows"
    path.touch()
    whole = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    os.truncate(path, sum(map(len, whole)))
    for row in range(len(whole), options.rows):
        if stopped:
            print(f"interrupted at row {row}")
            return 75
        if starts <= options.times and row >= options.at:
            if options.kill:
                os.kill(os.getpid(), options.kill)
            if options.end:
                print(f"ends with {options.end} at row {row}")
                return options.end
        with open(path, "a") as file:
            file.write(row_text(row))
        time.sleep(options.seconds)
    print("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
