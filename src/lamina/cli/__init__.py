"""The command line: a command's options are in ``cli/options``, and what it does in ``cli``, loaded only to run it."""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
import time

STARTED = time.perf_counter()  # when the process began, before anything large is imported

GROUPS = {
    "data": {
        "data": "inspect a data set: splits, classes, counts, problems, wrong labels, near-duplicates",
    },
    "train": {
        "train": "train a net and evaluate it",
        "resume": "resume a run exactly where it stopped",
        "reproduce": "retrain the first epochs of a run and compare the weights",
    },
    "evaluate": {
        "evaluate": "evaluate a run's model on a data set",
        "runs": "list the runs, or compare two",
        "report": "write one self-contained page about a run, or a model card",
    },
    "use": {
        "predict": "predict the class, labels or numbers of images with a run's model",
        "export": "export a run's model to a file for other programs, with a numerical parity check",
        "serve": "serve models over HTTP, with a page to try them",
    },
    "inspect": {
        "inspect": "show what a run's net has learned, layer by layer and unit by unit",
        "explain": "show which pixels a run's predictions depend on, as maps over images",
        "summary": "list a net's layers, shapes, parameters and multiply-adds",
    },
}
COMMANDS = {name: meaning for commands in GROUPS.values() for name, meaning in commands.items()}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and give its exit status.

    0 done, 2 invalid input, 75 a process of several lost, 130 or 143 interrupted, 141 broken pipe, 1 a bug.
    """
    for stream in (sys.stdout, sys.stderr):
        # A character that this terminal cannot show must not end a training.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Python would search all that was imported for garbage before it ends: 0.6 seconds.
    atexit.register(gc.freeze)
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        _print_usage()
        return 0
    if given[0] == "--version":
        from lamina import __version__

        print(f"lamina {__version__}")
        return 0
    from lamina.errors import GroupError, LaminaError, LeaderError, suggest

    if given[0] not in COMMANDS:
        print(f"lamina: there is no command {given[0]!r}. {suggest(given[0], COMMANDS)}", file=sys.stderr)
        return 2
    rank = os.environ.get("RANK", "0") if "TORCHELASTIC_RUN_ID" in os.environ else "0"
    who = "lamina" if rank == "0" else f"lamina (rank {rank})"  # all processes meet most errors
    try:
        status = _run(given, is_quiet=rank != "0")
        sys.stdout.flush()
    except LeaderError:
        return 2
    except GroupError as error:
        print(f"{who}: {error}", file=sys.stderr)
        return 75  # sysexits.h's "try again": torchrun or a scheduler may start all of them anew
    except LaminaError as error:
        print(f"{who}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lamina: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # As in `lamina runs | head -1`. Python would complain when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


def _print_usage() -> None:
    print("usage: lamina COMMAND ...\n\nImage classifiers from stacked layers.")
    for group, commands in GROUPS.items():
        print(f"\n{group}:")
        for name, meaning in commands.items():
            print(f"  {name:<11}{meaning}")
    print("\n`lamina COMMAND --help` explains a command. To start:\n  lamina train cnn --data shapes")


def _run(words: list[str], *, is_quiet: bool) -> int:
    """Parse a command's options with its light half, then load and run its heavy half."""
    import signal
    import threading
    import warnings
    from importlib import import_module

    from lamina.cli.parsing import parse_options
    from lamina.cli.terminal import Terminal

    name, *arguments = words
    group = next(group for group, commands in GROUPS.items() if name in commands)
    # As Ctrl-C does, SIGTERM unwinds what runs, so that nothing incomplete is left behind.
    # torchrun's own processes end at once: while they wait for each other, no Python code runs.
    is_alone = "TORCHELASTIC_RUN_ID" not in os.environ and threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number)) if is_alone else None
    try:
        # The terminal shows warnings as its remarks; what it sets for that ends with the command.
        with warnings.catch_warnings():
            kind = getattr(import_module(f"lamina.cli.options.{group}_options"), f"{name.title()}Options")
            options = parse_options(kind, name, arguments)
            terminal = Terminal(as_json=options.json, command=("lamina", *words), is_quiet=is_quiet)
            status: int = import_module(f"lamina.cli.{name}").run(options, terminal)
            return status
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
