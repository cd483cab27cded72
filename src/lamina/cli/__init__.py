"""The command line: a file a command, found by name and loaded alone, so that ``lamina --help`` is quick."""

from __future__ import annotations

import io
import sys
import time

STARTED = time.perf_counter()
"""When the process began, as near as Python can tell: all that lamina loads comes after."""

COMMANDS = {
    "train": "train a net and judge it",
    "resume": "go on with a run where it stopped, exactly",
    "verify": "train the first epochs of a run again: are the weights the same?",
    "evaluate": "judge a run's model on a data set",
    "predict": "say what is on pictures, by a run's model",
    "summary": "a net's layers, shapes, parameters and multiply-adds",
    "reproduce": "the article's two nets: what it claims beside what is measured",
    "runs": "what has been trained, one line a run",
    "data": "what is in a data set: splits, classes, counts, problems",
}

USAGE = """usage: lamina COMMAND ...

Image classifiers from stacked layers.

commands:
{commands}

`lamina COMMAND --help` tells more. To begin with:
  lamina train cnn --data shapes
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status is 0 done, 2 wrong input, 130 or 143 interrupted, 1 a defect of lamina's."""
    for stream in (sys.stdout, sys.stderr):
        # A name that this terminal cannot show must not end a training.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        lines = (f"  {name:<11}{meaning}" for name, meaning in COMMANDS.items())
        print(USAGE.format(commands="\n".join(lines)), end="")
        return 0
    if given[0] == "--version":
        from lamina import __version__

        print(f"lamina {__version__}")
        return 0

    from lamina.errors import LaminaError, suggest
    from lamina.text import escape

    name = given[0]
    if name not in COMMANDS:
        print(f"lamina: there is no command {name!r}. {suggest(name, COMMANDS)}", file=sys.stderr)
        return 2
    from importlib import import_module

    from lamina.cli.loading import loading

    try:
        with loading():
            command = import_module(f"lamina.cli.{name}")
        status: int = command.run(given[1:])
        sys.stdout.flush()
    except LaminaError as error:
        print(f"lamina: {escape(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lamina: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader went away, as `lamina runs | head -1` does: there is nobody left to tell.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status
