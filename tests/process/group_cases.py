"""What may happen to one of three processes, each in its own folder; a script for tests.

In the end rank 1 dies, and the others say so.
"""

import contextlib
import io
import json
import os
import signal
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lamina import Dataset, Recipe, Step, Training, load_data, start_run
from lamina.cli import main as run_lamina
from lamina.errors import DataError, NotFiniteError
from lamina.runs.run import Run
from lamina.training import group
from lamina.training.group import join_group

RECIPE = Recipe(epochs=4, batch_size=50, lanes=4)
NET = "Flatten(), Linear(20), ReLU(), Output()"
TRAIN = ("--data", "shapes", "--epochs", "2", "--batch-size", "100")


class Poisoned(nn.Module):
    """Gives NaN in the second epoch's first step, for one lane, and when that is repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.passes = nn.Linear(3 * 32 * 32, 10), 0

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        self.passes += self.training
        is_bad = 3 <= self.passes <= 4 and os.environ["RANK"] == "1"
        return torch.relu(self.linear(inputs.flatten(1)) * (float("nan") if is_bad else 1.0))


def train_and_catch_warnings(run: Run, data: Dataset | None) -> list[str]:
    """Train a run to its end; what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in run.iter_train(data=data):
            pass
    return [str(warning.message) for warning in caught]


def type_command(*words: str) -> tuple[int, str]:
    """The exit status of a training of all processes, and what this one printed."""
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        return run_lamina(["train", *words]), printed.getvalue()


def find_steps(data: Dataset) -> list[int]:
    """The steps of the events of a training that one process interrupts, from the first."""
    steps = []
    module = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    for event in Training(module, data.train, RECIPE):
        steps.append(event.step if isinstance(event, Step) else -1)
        if len(steps) == 3:
            break
        if group.rank() == 1:
            group.interrupt()
    return [step - steps[0] + 1 for step in steps]


def main() -> None:
    """Print a JSON list, with an object for each process, by the leader."""
    torch.set_num_threads(1)
    shapes = load_data("shapes")
    data = replace(shapes, train=shapes.train.take(range(100)), test=shapes.test.take(range(10)))
    seen: dict[str, Any] = {
        "too few lanes": type_command("mlp", *TRAIN),
        "a time": type_command("mlp", "--data", "shapes", "--lanes", "4", "--time", "20s"),
        "seeds": type_command("mlp", "--data", "shapes", "--lanes", "4", "--seeds", "2"),
        "flipped": type_command("flipped.py", *TRAIN, "--lanes", "3", "--name", "flipped"),
    }
    with join_group():
        place = Path(f"machine-{group.rank()}")
        place.mkdir()
        os.chdir(place)

        shared = start_run(data, NET, RECIPE, name="shared")
        train_and_catch_warnings(shared, data)
        seen["has the run"] = shared.path.exists()
        seen["stopped"] = find_steps(shapes)

        run = start_run(data, Poisoned(), replace(RECIPE, epochs=2), name="poisoned")
        try:
            train_and_catch_warnings(run, data)
        except NotFiniteError as error:
            seen["poisoned"] = str(error)

        other = shapes.train.take(range(100 + group.rank()))
        run = start_run(Dataset.from_images(other), NET, RECIPE, name="other")
        try:
            train_and_catch_warnings(run, None)
        except DataError as error:
            seen["other data"] = str(error)
        everyone = [json.loads(text) for text in group.gather(json.dumps(seen).encode())]
        if group.is_leader():
            sys.stdout.write(json.dumps(everyone) + "\n")
            sys.stdout.flush()

        group.gather(b"")
        if group.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        signal.signal(signal.SIGTERM, lambda *_: None)  # as a training does
        group.gather(b"")


if __name__ == "__main__":
    main()
