"""Takes guards out of copies of the project, one at a time, and sees that a test fails.

    python tests/mutate.py [--jobs 2] [--draw 10 --seed TEXT] [--seconds 600] [WORD ...]

A mutant stands in the `mutants.toml` beside the tests of its room: in `file`, `old` is replaced by `new`, and one of
the `tests` (words for pytest; slow ones too if it is `slow`) must fail, or never end if it `hangs`. Where all of them
pass, nothing proves that the guard is needed: the exit code counts these. WORDs choose the mutants whose name or file
holds one of them.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
MAX_SECONDS, HANGING_SECONDS = 900, 120
"""Of the tests of a mutant, and of one without which they would wait for ever."""


class Mutant(NamedTuple):
    """A guard that is taken out."""

    name: str
    file: str
    old: str
    new: str
    tests: str
    slow: bool = False
    hangs: bool = False

    def apply(self, root: Path = ROOT) -> str:
        """The text of the file without the guard.

        Raises:
          ValueError: `old` does not stand in the file exactly once.
        """
        text = (root / self.file).read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: expected once in {self.file}, found {count} times:\n{self.old}")
        return text.replace(self.old, self.new)


def load() -> dict[Path, list[Mutant]]:
    """The mutants of each `mutants.toml`."""
    paths = sorted((ROOT / "tests").glob("*/mutants.toml"))
    return {path: [Mutant(**entry) for entry in tomllib.loads(path.read_text("utf-8"))["mutant"]] for path in paths}


def outcome(mutant: Mutant, give_up: float) -> str:
    """`killed by` the first test that failed, or why there is none."""
    if time.monotonic() > give_up:
        return "no verdict: no time was left to begin"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _copy(root)
        (root / mutant.file).write_text(mutant.apply(root), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
        command += [*mutant.tests.split(), *(["-m", "slow or not slow"] if mutant.slow else [])]
        environment = os.environ | {"PYTHONPATH": str(root)}
        limit = HANGING_SECONDS if mutant.hangs else MAX_SECONDS
        try:
            run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return f"{'killed' if mutant.hangs else 'no verdict'}: its tests had not ended after {limit} s"
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if run.returncode == 0:
        return "LIVES"
    return f"killed by {failed[0].split(' - ')[0].split(maxsplit=1)[1]}" if failed else f"ENDED: {run.stdout[-300:]}"


def _copy(root: Path) -> None:
    """What git knows, or would take; the cache of compiled programs is shared."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    (ROOT / ".jax_cache").mkdir(exist_ok=True)
    (root / ".jax_cache").symlink_to(ROOT / ".jax_cache")


def main() -> None:
    """Runs the mutants, a few at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--draw", type=int, help="only so many, drawn by --seed")
    parser.add_argument("--seed", default="", help="any text, such as the hash of a commit")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin none after this time")
    options = parser.parse_args()
    chosen = [mutant for mutants in load().values() for mutant in mutants]
    if options.words:
        chosen = [each for each in chosen if any(word in each.name or word in each.file for word in options.words)]
    if options.draw is not None:
        chosen = random.Random(options.seed).sample(chosen, min(options.draw, len(chosen)))  # noqa: S311  no secret
    killed = open_ = 0
    give_up = time.monotonic() + options.seconds
    with ThreadPoolExecutor(options.jobs) as pool:
        for mutant, found in zip(chosen, pool.map(lambda each: outcome(each, give_up), chosen), strict=True):
            killed, open_ = killed + found.startswith("killed"), open_ + found.startswith("no verdict")
            print(f"{mutant.name}: {found}", flush=True)
    living = len(chosen) - killed - open_
    print(f"{len(chosen)} guards: {killed} that a test misses, {living} that none misses, {open_} without a verdict")
    sys.exit(min(living, 99))


if __name__ == "__main__":
    main()
