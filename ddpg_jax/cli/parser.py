"""The commands and their options, as argparse knows them; the fields of a configuration are in `arguments`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ddpg_jax.__about__ import __version__
from ddpg_jax.cli.arguments import count, fields_help

CommandFn: TypeAlias = Callable[[argparse.Namespace, list[str]], int]
"""`(options, words that are fields) -> exit code`."""

Commands: TypeAlias = Any
"""What `add_subparsers` returns, for which argparse has no public type."""

_CONFIG_HELP = "presets, a task first, and TOML files, each over those before it; without any, DDPG on Pendulum"


def make_parser(commands: Mapping[str, CommandFn]) -> argparse.ArgumentParser:
    """The parser of the program.

    Args:
      commands: what runs each command, by its name.
    """
    parser = argparse.ArgumentParser("ddpg-jax", description="Deterministic policy gradients in JAX.")
    parser.add_argument("--version", action="version", version=f"ddpg-jax {__version__}")
    known = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, add in _COMMANDS.items():
        add(known).set_defaults(command=commands[name])
    return parser


def _add_train(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser("train", help="train the seeds of a configuration", add_help=False)
    parser.add_argument("config", nargs="*", help=_CONFIG_HELP)
    parser.add_argument("--run-dir", type=Path, help="directory of the run; default: a new one under runs/")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that is in the directory")
    parser.add_argument(
        "--checkpoint-every", metavar="N", help="short for --checkpoint.every: steps between checkpoints"
    )
    parser.add_argument(
        "--resume", choices=["auto"], help="auto: go on with the run that is in the directory, if one is"
    )
    _add_until(parser)
    parser.add_argument(
        "--init-from", type=Path, metavar="RUN_DIR", help="begin with the weights of that run, and those only"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    _add_no_cache(parser)
    job = parser.add_argument_group("several processes, each with its share of the seeds")
    job.add_argument("--distributed", action="store_true", help="join the other processes of the job; needs --run-dir")
    job.add_argument("--coordinator", metavar="HOST:PORT", help="of the first process, where no cluster tells")
    job.add_argument("--num-processes", type=count, metavar="N", help="likewise")
    job.add_argument("--process-id", type=int, metavar="I", help="likewise, from 0")
    parser.add_argument("-h", "--help", action=_FieldsHelp, nargs=0, help="show this, and every field")
    _add_parts(parser)
    return parser


def _add_config(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "config",
        help="print a whole configuration, every field, to start from",
        epilog="--section.field value sets a field, as in train.",
    )
    parser.add_argument("config", nargs="*", help=_CONFIG_HELP)
    _add_parts(parser)
    return parser


def _add_presets(commands: Commands) -> argparse.ArgumentParser:
    return commands.add_parser("presets", help="list the tasks and ways to learn that train knows by name")


def _add_resume(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "resume",
        help="go on with a run or a sweep that was interrupted, to the bit",
        epilog="--section.field value changes a field, as in train; what changes how the run learns is reported.",
    )
    parser.add_argument("run_dir", type=Path, help="directory of the run")
    parser.add_argument("--from", type=count, dest="step", metavar="STEP", help="from that checkpoint; needs --run-dir")
    parser.add_argument("--run-dir", type=Path, dest="into", help="new directory for what comes of --from")
    parser.add_argument(
        "--level",
        choices=["exact", "weights"],
        default="exact",
        help="weights: begin again with the networks alone, where rows of the replay are lost",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    _add_no_cache(parser)
    _add_parts(parser)
    return parser


def _add_verify(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser("verify", help="read every checkpoint of a run and compare its hashes")
    parser.add_argument("run_dir", type=Path, help="directory of a run")
    return parser


def _add_reproduce(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser("reproduce", help="run an update again that was not finite, and say where it breaks")
    parser.add_argument("bundle", type=Path, help="a file not-finite-seed-*.safetensors that a run has left")
    _add_parts(parser)
    return parser


def _add_sweep(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "sweep",
        help="train many combinations, as lanes of one program or by many programs, and search among them",
        epilog="--section.field value sets a field for all combinations, as in train.",
    )
    parser.add_argument("sweep", type=Path, help="a TOML file with [grid], [random] or [search]; see docs/sweeps.md")
    parser.add_argument("--run-dir", type=Path, help="directory of the sweep; default: a new one under runs/")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in the directory")
    parser.add_argument(
        "--resume", choices=["auto"], help="auto: go on with the sweep that is in the directory, if one is"
    )
    _add_until(parser)
    parser.add_argument(
        "--engine",
        choices=["local", "ray", "slurm", "kubernetes"],
        help="what runs the programs, in the place of the [engine] of the file; see docs/search.md",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what the engine would run first, and run nothing; with an engine"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    _add_no_cache(parser)
    _add_parts(parser)
    return parser


def _add_sweep_status(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser("sweep-status", help="show how far a search is, and what is best so far")
    parser.add_argument("run_dir", type=Path, help="directory of a search")
    parser.add_argument(
        "--watch", type=float, metavar="SECONDS", help="again every so many seconds, until it has ended"
    )
    return parser


def _add_sync(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "sync",
        help="send the record of a run or a sweep to W&B, MLflow or trackio, as far as that was not done",
        epilog="What was sent already is not sent again; so it is with logging.sinks, which sends while a run goes on.",
    )
    parser.add_argument("run_dir", type=Path, help="directory of a run or a sweep")
    parser.add_argument("--to", required=True, metavar="SINK", help="wandb, mlflow or trackio")
    return parser


def _add_evaluate(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "evaluate",
        help="evaluate the final policies of a run",
        epilog="The fields of the environment may be set, as in train.",
        add_help=False,
    )
    parser.add_argument("run_dir", type=Path, help="directory of a run")
    parser.add_argument("--episodes", type=count, default=100, help="episodes of each seed (default 100)")
    _add_which(parser, "policies")
    parser.add_argument("--seed", type=int, metavar="N", help="that seed of the run only")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--video", type=Path, metavar="DIR", help="record an MP4 file for each seed")
    parser.add_argument(
        "--window-gap",
        action="store_true",
        help="of agents with memory: how far Q of windows is from Q of whole episodes; see docs/memory.md",
    )
    parser.add_argument("-h", "--help", action=_FieldsHelp, nargs=0, const="env", help="show this, and the fields")
    _add_no_cache(parser)
    _add_parts(parser)
    return parser


def _add_compare(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "compare",
        help="compare runs, and curves of others, in figures and tables",
        epilog="Runs of one algorithm whose configurations differ only in seeds are one group; where runs of one task "
        "and algorithm differ in more, the name of the group says in what. Tasks are never mixed.",
    )
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="directories of runs")
    parser.add_argument("--out", type=Path, default=Path("comparison"), metavar="DIR", help="default: comparison")
    parser.add_argument(
        "--group", action="append", default=[], metavar="NAME=RUN,RUN", help="runs that are one group, whatever differs"
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME[@TASK]=FILE[:TAG]",
        help="a CSV file with the columns step, return and, for several seeds, seed; or a directory of TensorBoard",
    )
    parser.add_argument(
        "--diverged",
        choices=["worst", "exclude"],
        default="worst",
        help="seeds that diverged: their return is the worst of all (default), or they are left out, aloud",
    )
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="[TASK=]RETURN",
        help="to which return steps are counted; default: the highest that every group ends with",
    )
    parser.add_argument(
        "--normalize",
        action="append",
        default=[],
        metavar="TASK=LOW,HIGH",
        help="returns that count as 0 and 1, for all tasks: then scores over all tasks are told as well",
    )
    return parser


def _add_export(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "export",
        help="write a policy of a run as files that run elsewhere",
        epilog="The fields of the environment may be set, as in train.",
    )
    parser.add_argument("run_dir", type=Path, help="directory of a run")
    parser.add_argument("--seed", type=int, metavar="N", help="that seed of the run (default: its first)")
    _add_which(parser, "policy")
    parser.add_argument(
        "--to",
        metavar="FORMS",
        default="safetensors,numpy",
        help="of safetensors, numpy, stablehlo, onnx, with commas between them (default safetensors,numpy)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the files; default: one under exported/")
    parser.add_argument("--overwrite", action="store_true", help="replace the export that is in the folder")
    _add_no_cache(parser)
    _add_parts(parser)
    return parser


def _add_doctor(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser("doctor", help="show versions, devices and extras, and test the installation")
    parser.add_argument("--determinism", action="store_true", help="train twice for a moment on each loop and compare")
    parser.add_argument(
        "--engine",
        choices=["local", "ray", "slurm", "kubernetes"],
        help="look at what an engine of sweeps needs: versions, names, shared storage",
    )
    return parser


def _add_until(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--until", type=count, metavar="STEP", help="end there, saved, at an evaluation; the same command goes on later"
    )


def _add_parts(command: argparse.ArgumentParser) -> None:
    """Options that let a command use parts of the user's own."""
    command.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module, which registers environments or other parts; may be given again",
    )
    command.add_argument("--allow-imports", action="store_true", help="let files name modules to import, module:name")


def _add_which(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "--which", choices=["final", "best"], default="final", help=f"best: the {what} of the best evaluation"
    )


def _add_no_cache(command: argparse.ArgumentParser) -> None:
    command.add_argument("--no-cache", action="store_true", help="compile anew, and keep nothing for later starts")


class _FieldsHelp(argparse.Action):
    """Shows the help of a command with the fields of one section, `const`, or of all."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        from ddpg_jax.runs.loggers.progress import SafeConsole

        text = parser.format_help() + fields_help(only=None if self.const is None else str(self.const))
        SafeConsole().print(text, soft_wrap=True, highlight=False, markup=False)
        parser.exit()


_COMMANDS: dict[str, Callable[[Commands], argparse.ArgumentParser]] = {
    "train": _add_train,
    "config": _add_config,
    "presets": _add_presets,
    "resume": _add_resume,
    "verify": _add_verify,
    "reproduce": _add_reproduce,
    "sweep": _add_sweep,
    "sweep-status": _add_sweep_status,
    "sync": _add_sync,
    "evaluate": _add_evaluate,
    "compare": _add_compare,
    "export": _add_export,
    "doctor": _add_doctor,
}
