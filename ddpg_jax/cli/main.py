"""The command line: train, config, presets, resume, verify, reproduce, sweep, evaluate, doctor.

Nothing heavy is imported before a command needs it, and jax only after the configuration has been found right.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ddpg_jax.__about__ import __version__
from ddpg_jax.cli.arguments import (
    count,
    fields_help,
    find_options,
    parse_config,
    parse_overrides_strict,
    split_overrides,
)
from ddpg_jax.cli.failures import describe, no_device
from ddpg_jax.cli.streams import flush_streams, prepare_streams, tell
from ddpg_jax.config.wording import command_line, resume_command
from ddpg_jax.errors import ConfigError, DdpgJaxError, Interrupted, StorageError
from ddpg_jax.training.signals import StopRequest

if TYPE_CHECKING:
    from rich.console import Console

    from ddpg_jax.config.schema import Config
    from ddpg_jax.training.recorder import Run
    from ddpg_jax.training.sweep.run import SweepRun

INTERRUPTED = 130

_CONFIG_HELP = "presets, a task first, and TOML files, each over those before it; without any, DDPG on Pendulum"

_FIELDS = "--section.field value sets a field, as in train."

_PLAIN: dict[str, Any] = {"soft_wrap": True, "highlight": False, "markup": False}


def program() -> NoReturn:
    """The program `ddpg-jax`: ends the process with the exit code of `main`.

    An abort skips the interpreter's own end: an interrupt may leave jaxlib's threads compiling, and these crash the
    process (SIGSEGV, not 130) once what they use is freed.
    """
    prepare_streams()
    if not sys.flags.safe_path:  # --env.id my_module:id: of the directory one is in, as with python -m
        with suppress(OSError):
            sys.path.append(os.getcwd())
    try:
        code = main()
    except KeyboardInterrupt:  # one more, while the first was told
        code = INTERRUPTED
    except SystemExit as end:  # from argparse
        code = end.code
    if code == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        flush_streams()
        os._exit(INTERRUPTED)
    flush_streams()
    raise SystemExit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    0 done, 2 configuration, 3 environment, 4 numbers not finite, 5 storage, 75 interrupted and resumable, 130 aborted
    by a second Ctrl-C.
    """
    parser = _parser()
    words, overrides = split_overrides(sys.argv[1:] if arguments is None else arguments, find_options(parser))
    options = parser.parse_args(words)
    command: Callable[[argparse.Namespace, list[str]], int] = options.command
    if command not in (_train, _resume, _sweep):
        StopRequest.leave_to_system()
    try:
        with command_line():
            return command(options, overrides)
    except DdpgJaxError as error:
        tell("\n".join(describe(error)))
        return error.exit_code
    except (RuntimeError, AssertionError) as error:
        if (line := no_device(error)) is None:
            raise
        tell(f"ddpg-jax: {line}")
        return ConfigError.exit_code
    except OSError as error:  # a path of the command line that cannot be used
        tell(f"ddpg-jax: {error}")
        return StorageError.exit_code
    except KeyboardInterrupt:
        tell("ddpg-jax: interrupted")
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("ddpg-jax", description="Deterministic policy gradients in JAX.")
    parser.add_argument("--version", action="version", version=f"ddpg-jax {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train the seeds of a configuration", add_help=False)
    train.add_argument("config", nargs="*", help=_CONFIG_HELP)
    train.add_argument("--run-dir", type=Path, help="directory of the run; default: a new one under runs/")
    train.add_argument("--overwrite", action="store_true", help="replace the run that is in the directory")
    train.add_argument(
        "--checkpoint-every", metavar="N", help="short for --checkpoint.every: steps between checkpoints"
    )
    train.add_argument(
        "--resume", choices=["auto"], help="auto: go on with the run that is in the directory, if one is"
    )
    train.add_argument(
        "--init-from", type=Path, metavar="RUN_DIR", help="begin with the weights of that run, and those only"
    )
    train.add_argument("--quiet", action="store_true", help="show no progress")
    _add_no_cache(train)
    job = train.add_argument_group("several processes, each with its share of the seeds")
    job.add_argument("--distributed", action="store_true", help="join the other processes of the job; needs --run-dir")
    job.add_argument("--coordinator", metavar="HOST:PORT", help="of the first process, where no cluster tells")
    job.add_argument("--num-processes", type=count, metavar="N", help="likewise")
    job.add_argument("--process-id", type=int, metavar="I", help="likewise, from 0")
    train.add_argument("-h", "--help", action="store_true", help="show this, and every field")
    train.set_defaults(command=_train, parser=train)

    config = commands.add_parser(
        "config", help="print a whole configuration, every field, to start from", epilog=_FIELDS
    )
    config.add_argument("config", nargs="*", help=_CONFIG_HELP)
    config.set_defaults(command=_config)

    presets = commands.add_parser("presets", help="list the tasks and ways to learn that train knows by name")
    presets.set_defaults(command=_presets)

    resume = commands.add_parser(
        "resume",
        help="go on with a run or a sweep that was interrupted, to the bit",
        epilog="--section.field value changes a field, as in train; what changes how the run learns is reported.",
    )
    resume.add_argument("run_dir", type=Path, help="directory of the run")
    resume.add_argument("--from", type=count, dest="step", metavar="STEP", help="from that checkpoint; needs --run-dir")
    resume.add_argument("--run-dir", type=Path, dest="into", help="new directory for what comes of --from")
    resume.add_argument(
        "--level",
        choices=["exact", "weights"],
        default="exact",
        help="weights: begin again with the networks alone, where rows of the replay are lost",
    )
    resume.add_argument("--quiet", action="store_true", help="show no progress")
    _add_no_cache(resume)
    resume.set_defaults(command=_resume)

    verify = commands.add_parser("verify", help="read every checkpoint of a run and compare its hashes")
    verify.add_argument("run_dir", type=Path, help="directory of a run")
    verify.set_defaults(command=_verify)

    reproduce = commands.add_parser(
        "reproduce", help="run an update again that was not finite, and say where it breaks"
    )
    reproduce.add_argument("bundle", type=Path, help="a file not-finite-seed-*.safetensors that a run has left")
    reproduce.set_defaults(command=_reproduce)

    sweep = commands.add_parser(
        "sweep",
        help="train many combinations of numbers as lanes of one program",
        epilog="--section.field value sets a field for all combinations, as in train.",
    )
    sweep.add_argument("sweep", type=Path, help="a TOML file with [grid] or [random]; see docs/sweeps.md")
    sweep.add_argument("--run-dir", type=Path, help="directory of the sweep; default: a new one under runs/")
    sweep.add_argument("--overwrite", action="store_true", help="replace what is in the directory")
    sweep.add_argument(
        "--resume", choices=["auto"], help="auto: go on with the sweep that is in the directory, if one is"
    )
    sweep.add_argument("--quiet", action="store_true", help="show no progress")
    _add_no_cache(sweep)
    sweep.set_defaults(command=_sweep)

    evaluate = commands.add_parser(
        "evaluate",
        help="evaluate the final policies of a run",
        epilog="The fields of the environment may be set, as in train.",
        add_help=False,
    )
    evaluate.add_argument("run_dir", type=Path, help="directory of a run")
    evaluate.add_argument("--episodes", type=count, default=100, help="episodes of each seed (default 100)")
    evaluate.add_argument("--seed", type=int, metavar="N", help="that seed of the run only")
    evaluate.add_argument("--json", action="store_true", help="print JSON instead of a table")
    evaluate.add_argument("--video", type=Path, metavar="DIR", help="record an MP4 file for each seed")
    evaluate.add_argument("-h", "--help", action=_FieldsHelp, nargs=0, const="env", help="show this, and the fields")
    _add_no_cache(evaluate)
    evaluate.set_defaults(command=_evaluate)

    doctor = commands.add_parser("doctor", help="show versions, devices and extras, and test the installation")
    doctor.add_argument("--determinism", action="store_true", help="train twice for a moment on each loop and compare")
    doctor.set_defaults(command=_doctor)
    return parser


def _add_no_cache(command: argparse.ArgumentParser) -> None:
    command.add_argument("--no-cache", action="store_true", help="compile anew, and keep nothing for later starts")


def _use_cache(options: argparse.Namespace) -> None:
    """Lets this process use programs that earlier ones compiled, unless it was told not to."""
    if not options.no_cache:
        from ddpg_jax.xla.compilation_cache import enable_compilation_cache

        enable_compilation_cache()


def _train(options: argparse.Namespace, overrides: list[str]) -> int:
    if options.help:
        from ddpg_jax.runs.loggers.progress import SafeConsole

        SafeConsole().print(options.parser.format_help() + fields_help(), **_PLAIN)
        return 0
    if options.checkpoint_every is not None:
        overrides = [*overrides, "--checkpoint.every", options.checkpoint_every]
    if options.resume == "auto" and options.run_dir is None:
        raise ConfigError("--resume auto needs --run-dir: the directory that an earlier start may have left")
    config = parse_config(options.config, overrides)
    from ddpg_jax.runs.loggers.progress import SafeConsole

    console = SafeConsole()
    shown: dict[str, Any] = {
        "overwrite": options.overwrite,
        "console": None if options.quiet else console,
        "quiet": True,
    }
    alone = options.coordinator is None and options.num_processes is None and options.process_id is None
    if not (options.distributed or alone):
        raise ConfigError("--coordinator, --num-processes and --process-id have an effect with --distributed only")
    if options.distributed:
        run = _train_distributed(config, options, shown)
    else:
        _use_cache(options)
        from ddpg_jax.training.train import train

        again = {"resume": options.resume or "never", "init_from": options.init_from}
        run = train(config, options.run_dir, tune_process=True, **again, **shown)
    _show(console, run, "process-*/metrics.jsonl" if options.distributed else "metrics.jsonl")
    return 0


def _config(options: argparse.Namespace, overrides: list[str]) -> int:
    from ddpg_jax.config.load import dump_toml

    text = dump_toml(parse_config(options.config, overrides))
    with suppress(BrokenPipeError):  # who reads it has read enough
        print(text, end="", flush=True)
    return 0


def _presets(options: argparse.Namespace, words: list[str]) -> int:
    if words:
        raise ConfigError(f"presets takes no fields, but got {' '.join(words)}")
    from ddpg_jax.cli.tables import presets_table
    from ddpg_jax.runs.loggers.progress import SafeConsole

    SafeConsole().print(presets_table())
    return 0


def _show(console: Console, run: Run, record: str) -> None:
    """The table of a run that came to its end, and its files."""
    from ddpg_jax.cli.tables import training_table

    console.print(training_table(run.result))
    _show_files(console, run.directory, ("learning_curve.png", "result.json", "checkpoints/best.safetensors", record))


def _show_files(console: Console, directory: Path, names: Sequence[str]) -> None:
    """The files that are there, one a line, so that a terminal breaks none of them."""
    for name in names:
        if any(directory.glob(name)):
            console.print(f"{directory}/{name}", **_PLAIN)


def _resume(options: argparse.Namespace, words: list[str]) -> int:
    overrides = parse_overrides_strict(words)
    from ddpg_jax.runs.directory import RunDirectory
    from ddpg_jax.runs.loggers.progress import SafeConsole

    console = SafeConsole()
    shown = None if options.quiet else console
    if RunDirectory(options.run_dir).sweep.is_file():
        if overrides or options.step is not None or options.into is not None or options.level != "exact":
            raise ConfigError("a sweep goes on as it was: resume takes no fields, --from or --run-dir for it")
        from ddpg_jax.training.sweep.run import resume_sweep

        _use_cache(options)
        return _show_sweep(console, resume_sweep(options.run_dir, shown))
    from ddpg_jax.training.train import resume_run

    _use_cache(options)
    where = {"step": options.step, "into": options.into, "level": options.level}
    run = resume_run(options.run_dir, tune_process=True, console=shown, quiet=True, **where, **overrides)
    _show(console, run, "metrics.jsonl")
    return 0


def _verify(options: argparse.Namespace, words: list[str]) -> int:
    if words:
        raise ConfigError(f"verify takes no fields, but got {' '.join(words)}")
    from ddpg_jax.cli.verify import verify
    from ddpg_jax.runs.loggers.progress import SafeConsole

    return verify(options.run_dir, SafeConsole())


def _train_distributed(config: Config, options: argparse.Namespace, shown: dict[str, Any]) -> Run:
    if options.run_dir is None:
        raise ConfigError("--distributed needs --run-dir: all processes write into one directory")
    if options.init_from is not None:
        raise ConfigError("--init-from has no effect with --distributed: begin the seeds of each process by themselves")
    from ddpg_jax.training.distributed import join, train_distributed

    join(options.coordinator, options.num_processes, options.process_id)
    return train_distributed(config, options.run_dir, resume=options.resume or "never", **shown)


def _reproduce(options: argparse.Namespace, words: list[str]) -> int:
    if words:
        raise ConfigError(f"reproduce takes no fields, but got {' '.join(words)}")
    from ddpg_jax.cli.reproduce import reproduce
    from ddpg_jax.runs.loggers.progress import SafeConsole

    return reproduce(options.bundle, SafeConsole())


def _sweep(options: argparse.Namespace, words: list[str]) -> int:
    overrides = parse_overrides_strict(words)
    if options.resume == "auto" and options.run_dir is None:
        raise ConfigError("--resume auto needs --run-dir: the directory that an earlier start may have left")
    from ddpg_jax.training.sweep.grid import load_sweep

    sweep = load_sweep(options.sweep, overrides)
    from ddpg_jax.runs.loggers.progress import SafeConsole
    from ddpg_jax.training.sweep.run import run_sweep

    _use_cache(options)
    console = SafeConsole()
    shown: dict[str, Any] = {"overwrite": options.overwrite, "console": None if options.quiet else console}
    return _show_sweep(console, run_sweep(sweep, options.run_dir, resume=options.resume or "never", **shown))


def _show_sweep(console: Console, run: SweepRun) -> int:
    """The ranking of a sweep and its files; returns the exit code, and says how it goes on if it was interrupted."""
    from ddpg_jax.cli.tables import ranking_table

    console.print(ranking_table(run.result))
    _show_files(console, run.directory, ("ranking.png", "best.toml", "result.json", "metrics.jsonl"))
    if not run.result["complete"]:
        tell(f"ddpg-jax: interrupted; to go on: {resume_command(run.directory)}")
        return Interrupted.exit_code
    return 0


def _evaluate(options: argparse.Namespace, words: list[str]) -> int:
    overrides = parse_overrides_strict(words)
    from ddpg_jax.cli.evaluate import evaluate

    _use_cache(options)
    chosen = {"seed": options.seed, "video": options.video, "as_json": options.json}
    return evaluate(options.run_dir, options.episodes, overrides=overrides, **chosen)


class _FieldsHelp(argparse.Action):
    """Shows the help of a command with the fields of one section."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        from ddpg_jax.runs.loggers.progress import SafeConsole

        SafeConsole().print(parser.format_help() + fields_help(only=str(self.const)), **_PLAIN)
        parser.exit()


def _doctor(options: argparse.Namespace, words: list[str]) -> int:
    if words:
        raise ConfigError(f"doctor takes no arguments, but got {' '.join(words)}")
    from ddpg_jax.cli.doctor import examine, examine_determinism

    return examine_determinism() if options.determinism else examine()
