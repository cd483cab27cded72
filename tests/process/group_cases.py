"""What may happen to one of three processes, each in its own folder; a script for tests.

In the end rank 1 dies, and the others say so.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lamina import Dataset, Epoch, Recipe, Step, Training, load_data, start_run
from lamina.cli import main as run_lamina
from lamina.errors import DataError, RunError
from lamina.runs.run import Run
from lamina.runs.stored import share_run
from lamina.training import rendezvous
from lamina.training.events import Rewind
from lamina.training.group import Group, join_group

RECIPE = Recipe(epochs=4, batch_size=50, lanes=4)
NET = "Flatten(), Linear(20), ReLU(), Output()"
TRAIN = ("--data", "shapes", "--epochs", "2", "--batch-size", "1000")


class Poisoned(nn.Module):
    """Gives NaN in one process: in the second epoch's first step, and when that is repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.passes = nn.Linear(3 * 32 * 32, 10), 0

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        self.passes += self.training
        is_bad = 3 <= self.passes <= 4 and os.environ["RANK"] == "1"
        return torch.relu(self.linear(inputs.flatten(1)) * (float("nan") if is_bad else 1.0))


def train_and_catch_warnings(
    run: Run, data: Dataset | None, group: Group, **arguments: Any
) -> list[str]:
    """Train a run to its end; what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in run.iter_train(data=data, group=group, **arguments):
            pass
    return [str(warning.message) for warning in caught]


def type_command(*words: str) -> tuple[int, str]:
    """The exit status of a training of all processes, and what this one printed."""
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        return run_lamina(["train", *words]), printed.getvalue()


def main() -> None:
    """Print a JSON list, with an object for each process, by the leader."""
    torch.set_num_threads(1)
    rendezvous.ABSENT_SECONDS = 8.0  # the test waits for as long
    shapes = load_data("shapes")
    data = replace(shapes, train=shapes.train.take(range(100)), test=shapes.test.take(range(10)))
    found: dict[str, Any] = {
        "too few lanes": type_command("mlp", *TRAIN),
        "a time": type_command("mlp", "--data", "shapes", "--lanes", "4", "--time", "20s"),
        "flipped": type_command("flipped.py", *TRAIN, "--lanes", "3", "--name", "flipped"),
    }
    with join_group() as group:
        place = Path(f"machine-{group.rank}")
        place.mkdir()
        os.chdir(place)

        shared = start_run(NET, data, RECIPE, name="shared", group=group)
        train_and_catch_warnings(shared, data, group)
        found["has the run"] = shared.path.exists()
        if group.is_leader:  # as on a machine that was started as another rank
            shutil.move(shared.path, Path("..") / "machine-1" / "moved")
        group.wait()
        try:
            share_run("moved", group)
        except RunError as error:
            found["misplaced"] = str(error)

        steps = []
        for event in Training(
            nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), shapes.train, RECIPE, group=group
        ):
            steps.append(event.step if isinstance(event, Step) else -1)
            if len(steps) == 3:
                break
            if group.rank == 1:
                group.interrupt()
        found["stopped"] = [step - steps[0] + 1 for step in steps]

        run = start_run(Poisoned(), data, replace(RECIPE, epochs=2), name="poisoned", group=group)
        events = list(run.iter_train(data=data, group=group, rewind_on_nan=True))
        found["rewound"] = next(event.reason for event in events if isinstance(event, Rewind))
        assert {event.epoch for event in events if isinstance(event, Epoch)} == {1, 2}

        other = shapes.train.take(range(100 + group.rank))
        try:
            train_and_catch_warnings(run, Dataset.from_images(other), group)
        except DataError as error:
            found["other data"] = str(error)
        everyone = [json.loads(text) for text in group.gather(json.dumps(found).encode())]
        if group.is_leader:
            sys.stdout.write(json.dumps(everyone) + "\n")
            sys.stdout.flush()

        group.wait()
        if group.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        signal.signal(signal.SIGTERM, lambda *_: None)  # as a training does
        group.wait()


if __name__ == "__main__":
    main()
