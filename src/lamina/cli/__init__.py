"""The command line: one file per command, imported only when it runs, so that ``lamina --help`` is fast."""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
import time

STARTED = time.perf_counter()
"""When the process began, before anything large is imported."""

COMMANDS = {
    "train": "train a net and evaluate it",
    "resume": "resume a run exactly where it stopped",
    "verify": "train the first epochs of a run again and compare the weights",
    "evaluate": "evaluate a run's model on a data set",
    "predict": "predict what is in pictures with a run's model",
    "inspect": "show what a run's net has learned, layer by layer and unit by unit",
    "explain": "show what a run's model bases its answers on, as maps over pictures",
    "export": "export a run's model to a file for other programs, proven to answer as the run does",
    "report": "write one self-contained page about a run, or a model card",
    "serve": "serve models over HTTP, with a page to try them",
    "summary": "list a net's layers, shapes, parameters and multiply-adds",
    "reproduce": "train the article's two nets and compare with its claims",
    "runs": "list the runs, or compare two",
    "data": "inspect a data set: splits, classes, counts, problems, wrong labels, near-duplicates",
}

USAGE = """usage: lamina COMMAND ...

Image classifiers from stacked layers.

commands:
{commands}

`lamina COMMAND --help` explains a command. To start:
  lamina train cnn --data shapes
"""


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
        lines = (f"  {name:<11}{meaning}" for name, meaning in COMMANDS.items())
        print(USAGE.format(commands="\n".join(lines)), end="")
        return 0
    if given[0] == "--version":
        from lamina import __version__

        print(f"lamina {__version__}")
        return 0

    from lamina.errors import GroupError, LaminaError, LeaderError, suggest

    name = given[0]
    if name not in COMMANDS:
        print(f"lamina: there is no command {name!r}. {suggest(name, COMMANDS)}", file=sys.stderr)
        return 2
    import warnings
    from importlib import import_module

    rank = os.environ.get("RANK", "0")  # torchrun's; all processes meet most errors
    who = "lamina" if rank == "0" else f"lamina (rank {rank})"
    try:
        # Each command's Terminal shows them; what it sets for that ends with the command.
        with warnings.catch_warnings():
            command = import_module(f"lamina.cli.{name}")
            status: int = command.run(given[1:])
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
