"""A sink of a user's own, which writes a file, and the command line that knows it: `python plain_sink.py train ...`."""

import json
import os
import sys
import time
from pathlib import Path

NAME = "plain_sink:PlainSink"


class PlainSink:
    """Appends rows to a file in `followers`; what a killed process may have appended is looked up."""

    file = "plain.jsonl"

    def destination(self, run):
        return "plain"

    def open(self, run, *, resumes):
        self._path = run.files / self.file
        there = self._path.exists()
        content = self._path.read_bytes() if there else b""
        self._path.write_bytes(content[: content.rfind(b"\n") + 1])
        return there

    def send(self, rows, when, *, again):
        lines = [json.dumps(row) for row in rows]
        known = set(self._path.read_text().splitlines()) if again else set()
        with self._path.open("a") as file:
            file.writelines(f"{line}\n" for line in lines if line not in known)

    def close(self):
        pass


class SilentSink(PlainSink):
    """Is never reached."""

    def open(self, run, *, resumes):
        time.sleep(3600)


class SlowSink(PlainSink):
    """Stalls for ten seconds, then goes on."""

    def open(self, run, *, resumes):
        time.sleep(10)
        return super().open(run, resumes=resumes)


class FailingSink(PlainSink):
    """Raises, as where a server refuses."""

    file = "failing.jsonl"

    def send(self, rows, when, *, again):
        raise ConnectionError("no route to the server\nand a second line")


class FullSink(PlainSink):
    """Its disk is full."""

    file = "full.jsonl"

    def send(self, rows, when, *, again):
        with open("/dev/full", "w") as file:
            file.write("a row")


class CrashingSink(PlainSink):
    """Takes its process down."""

    def open(self, run, *, resumes):
        os._exit(7)


def allow(*names):
    """Lets configurations name sinks of these tests."""
    from ddpg_jax.config import sections

    sections.SINKS = (*sections.SINKS, *(name for name in names if name not in sections.SINKS))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    allow(NAME)
    from ddpg_jax.cli.main import main

    sys.exit(main())
