"""The commands of `ddpg-jax`, by their names at the end.

Nothing heavy is imported before a command needs it, and jax only after the configuration has been found right.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from ddpg_jax.cli.arguments import (
    find_options,
    parse_config,
    parse_overrides_strict,
    split_overrides,
)
from ddpg_jax.cli.failures import describe, no_device
from ddpg_jax.cli.parser import CommandFn, make_parser
from ddpg_jax.cli.show import show_run
from ddpg_jax.cli.streams import flush_streams, prepare_streams, tell
from ddpg_jax.config.plugins import allow_imports, import_plugins
from ddpg_jax.config.wording import command_line
from ddpg_jax.errors import ConfigError, DdpgJaxError, Interrupted, StorageError, printable
from ddpg_jax.training.signals import StopRequest

if TYPE_CHECKING:
    from ddpg_jax.config.schema import Config
    from ddpg_jax.training.run import Run

INTERRUPTED = 130


def program() -> NoReturn:
    """The program `ddpg-jax`: ends the process with the exit code of `main`.

    An abort skips the interpreter's own end: an interrupt may leave jaxlib's threads compiling, and these crash the
    process (SIGSEGV, not 130) once what they use is freed. A stop skips it too, as it would wait for an evaluation that
    runs on a device; but for jobs of several processes, which take leave of each other there.
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
    if code == INTERRUPTED or (code == Interrupted.exit_code and "--distributed" not in sys.argv):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        flush_streams()
        os._exit(int(code or 0))
    flush_streams()
    raise SystemExit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    0 done, 2 configuration, 3 environment, 4 numbers not finite, 5 storage, 75 interrupted and resumable, 130 aborted
    by a second Ctrl-C.
    """
    parser = make_parser(_COMMANDS)
    words, overrides = split_overrides(sys.argv[1:] if arguments is None else arguments, find_options(parser))
    options = parser.parse_args(words)
    command: CommandFn = options.command
    if command not in (_train, _resume, _sweep):
        StopRequest.leave_to_system()
    try:
        with command_line(), allow_imports(getattr(options, "allow_imports", False)):
            import_plugins(getattr(options, "plugin", ()))
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


def _use_cache(options: argparse.Namespace) -> None:
    """Lets this process use programs that earlier ones compiled, unless it was told not to."""
    if not options.no_cache:
        from ddpg_jax.xla.compilation_cache import enable_compilation_cache

        enable_compilation_cache()


def _train(options: argparse.Namespace, overrides: list[str]) -> int:
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
    if options.distributed and options.until is not None:
        raise ConfigError("--until has no effect with --distributed: leave it out")
    if options.distributed:
        run = _train_distributed(config, options, shown)
    else:
        _use_cache(options)
        from ddpg_jax.training.train import train

        again = {"resume": options.resume or "never", "init_from": options.init_from}
        if options.until is not None:
            return _train_until(config, options, again | shown)
        run = train(config, options.run_dir, tune_process=True, **again, **shown)
    show_run(console, run, "process-*/metrics.jsonl" if options.distributed else "metrics.jsonl")
    return 0


def _train_until(config: Config, options: argparse.Namespace, how: dict[str, Any]) -> int:
    """Trains up to a step, saves, and ends well; does nothing where it was there before."""
    from ddpg_jax.training.train import train
    from ddpg_jax.training.until import check_until, has_reached, stop_at

    check_until(config, options.until)
    _require_resume(options)
    if has_reached(options.run_dir, options.until):
        return 0
    try:
        train(config, options.run_dir, tune_process=True, callbacks=(stop_at(options.until),), **how)
    except Interrupted:
        if not has_reached(options.run_dir, options.until):
            raise
    return 0


def _require_resume(options: argparse.Namespace) -> None:
    """Refuses `--until` where the same command would not go on later."""
    if options.run_dir is None or options.resume is None:
        raise ConfigError("--until needs --run-dir and --resume auto: the same command goes on later")


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


def _resume(options: argparse.Namespace, words: list[str]) -> int:
    overrides = parse_overrides_strict(words)
    from ddpg_jax.runs.directory import RunDirectory
    from ddpg_jax.runs.loggers.progress import SafeConsole

    console = SafeConsole()
    shown = None if options.quiet else console
    from ddpg_jax.training.search.run import is_search_directory

    if is_search_directory(options.run_dir):
        from ddpg_jax.cli.search import resume_search

        return resume_search(options, overrides)
    if RunDirectory(options.run_dir).sweep.is_file():
        if overrides or options.step is not None or options.into is not None or options.level != "exact":
            raise ConfigError("a sweep goes on as it was: resume takes no fields, --from or --run-dir for it")
        from ddpg_jax.cli.sweep import show_sweep
        from ddpg_jax.training.sweep.run import resume_sweep

        _use_cache(options)
        return show_sweep(console, resume_sweep(options.run_dir, shown, tune_process=True))
    from ddpg_jax.training.train import resume_run

    _use_cache(options)
    where = {"step": options.step, "into": options.into, "level": options.level}
    run = resume_run(options.run_dir, tune_process=True, console=shown, quiet=True, **where, **overrides)
    show_run(console, run, "metrics.jsonl")
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
    from ddpg_jax.config.load import read_toml
    from ddpg_jax.training.search.file import is_search
    from ddpg_jax.training.sweep.grid import load_sweep

    if options.engine is not None or is_search(read_toml(options.sweep)):
        if options.until is not None:
            raise ConfigError("--until has no effect on a search: give the steps as shares in stop.rungs")
        from ddpg_jax.cli.search import search

        return search(options, overrides)
    if options.dry_run:
        raise ConfigError("--dry-run has an effect with --engine, or with a file that has [search] or [engine]")
    if options.until is not None:
        _require_resume(options)
    sweep = load_sweep(options.sweep, overrides)
    from ddpg_jax.cli.sweep import show_sweep
    from ddpg_jax.runs.loggers.progress import SafeConsole
    from ddpg_jax.training.sweep.run import run_sweep

    _use_cache(options)
    console = SafeConsole()
    shown: dict[str, Any] = {"overwrite": options.overwrite, "console": None if options.quiet else console}
    how: dict[str, Any] = {"resume": options.resume or "never", "until": options.until, "tune_process": True}
    run = run_sweep(sweep, options.run_dir, **how, **shown)
    return show_sweep(console, run, sweep.configs[0], options.until)


def _sweep_status(options: argparse.Namespace, words: list[str]) -> int:
    if words:
        raise ConfigError(f"sweep-status takes no fields, but got {' '.join(words)}")
    from ddpg_jax.cli.sweep_status import show_status

    return show_status(options.run_dir, options.watch)


def _sync(options: argparse.Namespace, words: list[str]) -> int:
    if words:
        raise ConfigError(f"sync takes no fields, but got {' '.join(words)}")
    from ddpg_jax.cli.sync import sync
    from ddpg_jax.runs.loggers.progress import SafeConsole

    return sync(options.run_dir, options.to, SafeConsole())


def _evaluate(options: argparse.Namespace, words: list[str]) -> int:
    overrides = parse_overrides_strict(words)
    from ddpg_jax.cli.evaluate import evaluate

    _use_cache(options)
    chosen = {"which": options.which, "seed": options.seed, "video": options.video, "as_json": options.json}
    return evaluate(options.run_dir, options.episodes, window_gap=options.window_gap, overrides=overrides, **chosen)


def _compare(options: argparse.Namespace, words: list[str]) -> int:
    if words:
        raise ConfigError(f"compare takes no fields, but got {' '.join(words)}")
    from ddpg_jax.cli.compare import compare

    named = {"groups": options.group, "peers": options.peer, "targets": options.target, "scales": options.normalize}
    return compare(options.runs, options.out, diverged=options.diverged, **named)


def _export(options: argparse.Namespace, words: list[str]) -> int:
    overrides = parse_overrides_strict(words)
    from ddpg_jax.runs.export.forms import check_forms

    forms = check_forms([word.strip() for word in options.to.split(",") if word.strip()])
    from ddpg_jax.cli.export import export

    _use_cache(options)
    chosen: dict[str, Any] = {"which": options.which, "seed": options.seed, "forms": forms}
    return export(options.run_dir, **chosen, out=options.out, overwrite=options.overwrite, overrides=overrides)


def _doctor(options: argparse.Namespace, words: list[str]) -> int:
    if words:
        raise ConfigError(f"doctor takes no arguments, but got {' '.join(words)}")
    if options.engine is not None:
        from ddpg_jax.training.search.engines.examine import PROBLEM, examine_engine

        lines = examine_engine(options.engine)
        print(printable("\n".join(lines), lines=True))
        return ConfigError.exit_code if any(line.startswith(PROBLEM) for line in lines) else 0
    from ddpg_jax.cli.doctor import examine, examine_determinism

    return examine_determinism() if options.determinism else examine()


_COMMANDS: dict[str, CommandFn] = {
    "train": _train,
    "config": _config,
    "presets": _presets,
    "resume": _resume,
    "verify": _verify,
    "reproduce": _reproduce,
    "sweep": _sweep,
    "sweep-status": _sweep_status,
    "sync": _sync,
    "evaluate": _evaluate,
    "compare": _compare,
    "export": _export,
    "doctor": _doctor,
}
