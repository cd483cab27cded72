"""The command line: ``options`` has the options of all commands, and a module runs each command.

Help and messages about options must be fast, so a command's module, which may import torch, is
loaded only after its options are parsed.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from lamina.errors import GroupError, LaminaError, LeaderError, suggest

STARTED = time.perf_counter()  # before anything large is imported

GROUPS = {
    "data": {"data": "show what a data set contains; see also data labels and duplicates"},
    "train": {
        "studio": "build, train, look inside and compare in the browser",
        "train": "train a net, evaluate it, and save it as a run",
        "resume": "continue an interrupted run",
        "reproduce": "retrain the first epochs of a run and compare the weights",
    },
    "study": {
        "compare": "compare two runs or nets, with an interval and a verdict",
        "ablate": "measure how each part of a net or recipe changes the score",
        "tune": "search the settings of a recipe, or the sizes of a net",
    },
    "evaluate": {
        "evaluate": "evaluate a model on test images or another data set",
        "runs": "list runs, or compare two",
        "report": "write an HTML report or a model card",
    },
    "use": {
        "predict": "predict a class, labels or numbers for each image",
        "export": "export a model to ONNX, and check it",
        "serve": "serve models over HTTP, with a web page to try them",
    },
    "inspect": {
        "inspect": "show what the layers and units of a net have learned",
        "explain": "show which pixels a prediction depends on",
        "similar": "show the most similar training images, or save features",
        "summary": "list a net's layers, output shapes, parameters and multiply-adds",
    },
}
DATA_COMMANDS = ("labels", "duplicates")
COMMANDS = {name: meaning for commands in GROUPS.values() for name, meaning in commands.items()}
EXIT_STATUSES = {
    "0": "done",
    "1": "a bug in lamina",
    "2": ("invalid input; predict: some images are unreadable; reproduce: the weights differ"),
    "75": "one of several processes was lost; a scheduler may start all of them again",
    "130, 143": "interrupted (SIGINT, SIGTERM); training saves the run first",
    "141": "broken pipe: the program that read the output has ended",
}
COLLECT_AFTER = 100_000
"""Number of objects after which Python collects garbage: with its default, 700, it would do so many
times while torch's modules load."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status, one of ``EXIT_STATUSES``."""
    for stream in (sys.stdout, sys.stderr):
        # An unprintable character must not end training.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Otherwise Python spends 0.6 s at exit on collecting garbage among the imported modules.
    atexit.register(gc.freeze)
    words = sys.argv[1:] if arguments is None else arguments
    rank = "0"
    who = "lamina"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        rank = os.environ.get("RANK", "0")
    if rank != "0":
        who = f"lamina (rank {rank})"  # most errors occur in all processes
    try:
        status = _run(words, is_quiet=rank != "0")
        sys.stdout.flush()
        return status
    except LeaderError:
        return 2
    except LaminaError as error:
        failure = error
        status = 2
        if isinstance(error, GroupError):
            status = 75  # EX_TEMPFAIL of sysexits.h: torchrun or a scheduler may restart the group
    except KeyboardInterrupt:
        failure = LaminaError("interrupted")
        status = 130
    except BrokenPipeError:
        # As in `lamina runs | head -1`. Otherwise flushing stdout at exit fails.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # for closed folders and impossible paths; others are bugs
        if error.errno not in (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP):
            raise
        reason = f"{str(error.filename)[:100]}: {str(error.strerror).lower()}"
        failure = LaminaError(f"Cannot use {reason}. Check the path and its permissions.")
        status = 2
    print(f"{who}: {failure}", file=sys.stderr)
    if "--json" in words and rank == "0":
        values = {"event": "error", "error": str(failure), "kind": type(failure).__name__}
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(values | failure.to_json()), flush=True)
    return status


def _print_usage() -> None:
    print("usage: lamina COMMAND [OPTIONS]\n\nTrain image classifiers built from stacked layers.")
    for group, commands in GROUPS.items():
        print(f"\n{group}:")
        for name, meaning in commands.items():
            print(f"  {name:<11}{meaning}")
    print(
        "\nExample: lamina train --data photos --time 3m\nRun lamina COMMAND --help to see the"
        " options of a command, and lamina --version to see the version."
    )


def _run(words: list[str], *, is_quiet: bool) -> int:
    if not words or words[0] in ("-h", "--help"):
        _print_usage()
        return 0
    if words[0] == "--version":
        from lamina import __version__

        print(f"lamina {__version__}")
        return 0
    name, *arguments = words
    if name not in COMMANDS:
        raise LaminaError(f"Unknown command {name!r}. {suggest(name, COMMANDS)}")
    if name == "data":
        word = next((word for word in arguments if not word.startswith("-")), "")
        if word in DATA_COMMANDS:
            arguments.remove(word)
            name = f"data {word}"
    from importlib import import_module

    from lamina.cli.options import OPTIONS
    from lamina.cli.parsing import parse_options
    from lamina.cli.terminal import Terminal

    with _prepare_process():
        options = parse_options(OPTIONS[name], name, arguments)
        has_progress = getattr(options, "progress", False)
        if has_progress and not options.json:
            raise LaminaError(
                "--progress adds events to --json. Add --json, or leave out --progress."
            )
        terminal = Terminal(
            as_json=options.json,
            emits_progress=has_progress,
            command=("lamina", *words),
            is_quiet=is_quiet,
        )
        command: Any = import_module(f"lamina.cli.{name.replace(' ', '_')}")
        status: int = command.run(options, terminal)
        if terminal.problems:
            return 2
        return status


@contextlib.contextmanager
def _prepare_process() -> Iterator[None]:
    """Set how Python warns, collects garbage and ends, and restore it afterwards."""
    import signal
    import threading
    import warnings

    # SIGTERM unwinds the stack as Ctrl-C does, so that no incomplete files remain. The processes of
    # torchrun end at once instead: while they wait for each other, no Python code runs.
    is_alone = (
        "TORCHELASTIC_RUN_ID" not in os.environ
        and threading.current_thread() is threading.main_thread()
    )
    if is_alone:
        handler = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    thresholds = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER)
    try:
        with warnings.catch_warnings():  # the terminal prints warnings as remarks
            yield
    finally:
        gc.set_threshold(*thresholds)
        if is_alone:
            signal.signal(signal.SIGTERM, handler)
