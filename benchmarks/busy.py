r"""Training on a busy machine: speed by threads, and accuracy within a time limit.

Two tables:

- **Speed**: images per second of nets with one and two threads, in turns, and the multiply-adds of
  a step, beside ``--beside`` other trainings. Decides when a second thread pays.
- **Trials**: ``lamina train --data FOLDER --time TIME``, beside trainings of ``cnn-s`` with two
  threads each: median, worst and number of results below scikit-learn's SVC on the same pixels. A
  command that leaves no model within two minutes counts as 0 %. The folders are those of
  small_sets.py, one for each turn. ``--checkout`` names another copy of the repository whose lamina
  is tried.

    python benchmarks/busy.py speed --nets mlp,cnn-s
    python benchmarks/busy.py trials --cases 5x100@20s --beside 0,1,2 --turns 10 --json busy.json
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import tyro
from processes import append_row
from rich.console import Console
from rich.table import Table
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from small_sets import Case, read_pixels, write_case

from lamina import Dataset, Images, Training, load_data, load_net, zoo
from lamina.data.load import resize_images
from lamina.targets import SINGLE_LABEL
from lamina.training.recipe import fit_recipe
from lamina.training.threads import computing_with

HERE = Path(__file__).resolve().parent.parent
MAIN = "import sys; from lamina.cli import main; sys.exit(main())"
THREADS = (1, 2)
SECONDS = 1.0  # of steps, for each measurement of speed
WARM_UP_STEPS = 3
MOST_SECONDS = 120.0  # of a command, which is stopped then


@dataclasses.dataclass(frozen=True)
class Trial:
    """One command: SVC's score and its own, from 0 to 1 (0 without a model)."""

    checkout: str
    case: str
    beside: int
    turn: int
    svc: float
    score: float
    seconds: float
    detail: str


def start_lamina(words: list[str], checkout: Path, **environment: str) -> subprocess.Popen[str]:
    """Start the command of a checkout, with its JSON on a pipe."""
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *words, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**inherited, "PYTHONPATH": str(checkout / "src"), **environment},
    )


@contextmanager
def training_beside(count: int) -> Iterator[None]:
    """Other trainings with two threads each, from their first steps to the end of the block."""
    words = ["train", "cnn-s", "--data", "cifar10", "--epochs", "1000"]
    with tempfile.TemporaryDirectory() as place:
        others = []
        try:
            for number in range(count):
                command = [*words, "--runs-dir", f"{place}/{number}", "--save-every", "1h"]
                others.append(start_lamina(command, HERE, OMP_NUM_THREADS="2"))
            for other in others:
                assert other.stdout is not None
                while json.loads(other.stdout.readline()).get("what") != "recipe":
                    pass
                time.sleep(5)  # until its first steps
            yield
        finally:
            for other in others:
                other.kill()
                other.wait()


def try_lamina(folder: Path, limit: str, seed: int, checkout: Path) -> tuple[float, float, str]:
    """Score, seconds and net of a command with an empty cache."""
    with tempfile.TemporaryDirectory() as place:
        words = ["train", "--data", str(folder), "--time", limit, "--seed", str(seed)]
        began = time.perf_counter()
        process = start_lamina(
            [*words, "--runs-dir", f"{place}/runs"], checkout, LAMINA_CACHE=f"{place}/cache"
        )
        try:
            output, errors = process.communicate(timeout=MOST_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return 0.0, MOST_SECONDS, "stopped"
        seconds = time.perf_counter() - began
    if process.returncode:
        return 0.0, seconds, (errors.strip().splitlines() or ["failed"])[-1]
    events = [json.loads(line) for line in output.splitlines()]
    threads = [event["value"] for event in events if event.get("what") == "threads"]
    result = events[-1]
    net = f"{result['net']} {result['size_px']} px, threads {', '.join(threads) or 'all'}"
    return result["test_accuracy"], seconds, net


def run_trials(
    case_text: str, counts: list[int], turns: int, checkout: Path, data: Dataset
) -> Iterator[Trial]:
    """Try a case, such as ``5x100@20s``, beside so many trainings, in each turn other images."""
    size, _, limit = case_text.partition("@")
    classes, a_class = map(int, size.split("x"))
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place, str(turn)) for turn in range(turns)]
        svc = []
        for turn, folder in enumerate(folders):
            case = Case("classes", classes * a_class, classes, 32, limit, turn)
            write_case(case, data, folder, is_held_out=False)
            svc.append(fit_svc(folder))
        for count in counts:
            with training_beside(count):
                for turn, folder in enumerate(folders):
                    result = try_lamina(folder, limit, turn, checkout)
                    yield Trial(str(checkout), case_text, count, turn, svc[turn], *result)


def fit_svc(folder: Path) -> float:
    """The accuracy of scikit-learn's SVC on standardized pixels."""
    x_train, y_train = read_pixels(folder / "train")
    model = make_pipeline(StandardScaler(), SVC()).fit(x_train, y_train)
    return float(model.score(*read_pixels(folder / "test")))


def tabulate_trials(trials: list[Trial]) -> Table:
    table = Table(
        "checkout", "case", "beside", "median %", "worst %", "below SVC", "median s", "longest s"
    )
    keys = [(trial.checkout, trial.case, trial.beside) for trial in trials]
    for key in dict.fromkeys(keys):
        own = [trial for trial, of in zip(trials, keys, strict=True) if of == key]
        scores = [100 * trial.score for trial in own]
        seconds = [trial.seconds for trial in own]
        below = sum(trial.score < trial.svc for trial in own)
        table.add_row(
            *map(str, key),
            f"{statistics.median(scores):.1f}",
            f"{min(scores):.1f}",
            f"{below} of {len(own)}",
            f"{statistics.median(seconds):.1f}",
            f"{max(seconds):.1f}",
        )
    return table


def trials(
    cases: str = "5x100@20s",
    beside: str = "0,1,2",
    turns: int = 10,
    checkout: Path = HERE,
    json_path: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Train within a time limit beside other trainings.

    Args:
        cases: classes x images per class @ time limit, separated by commas.
        beside: numbers of other trainings, separated by commas.
        turns: number of trials of each.
        checkout: copy of the repository whose lamina is tried.
        json_path: file for the rows, one JSON object per line.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the other trainings, too
    data = load_data("cifar10")
    rows: list[Trial] = []
    for case in cases.split(","):
        counts = [int(count) for count in beside.split(",")]
        for row in run_trials(case, counts, turns, checkout, data):
            rows.append(row)
            print(row, flush=True)
            if json_path is not None:
                append_row(json_path, row)
    Console(width=120).print(tabulate_trials(rows))


def make_training(name: str, images: Images) -> tuple[Training, int]:
    """A training of ``NET[/SIDE[/IMAGES]]``, and the multiply-adds of a step."""
    net_name, *sizes = name.split("/")
    side_px = int(sizes[0]) if sizes else 32
    net = load_net(net_name)
    images = resize_images(images, side_px)
    fitted = int(sizes[1]) if len(sizes) > 1 else 50_000
    recipe = fit_recipe(zoo.load_recipe(net_name), fitted, side_px, SINGLE_LABEL)
    batch = min(recipe.batch_size, len(images))
    recipe = dataclasses.replace(recipe, batch_size=batch, epochs=1000, start_size_fraction=0.0)
    training = Training(net, images, recipe, steps_per_record=1)
    return training, batch * net.with_outputs(10).multiply_adds(images.shape)


def time_steps(training: Training, threads: int) -> float:
    """Images per second in about ``SECONDS`` of warm steps."""
    with computing_with(threads):
        ends = []
        for _ in training:
            ends.append(time.perf_counter())
            if len(ends) > WARM_UP_STEPS + 1 and ends[-1] - ends[WARM_UP_STEPS] > SECONDS:
                break
    steps = len(ends) - 1 - WARM_UP_STEPS
    return steps * training.recipe.batch_size / (ends[-1] - ends[WARM_UP_STEPS])


def speed(
    nets: str = "mlp,mlp/16,mlp-l,cnn-s/16/450,cnn-s/32/450,cnn-s,cnn,photo-s/96",
    beside: int = 0,
    turns: int = 5,
) -> None:
    """Measure images per second with one and two threads.

    Args:
        nets: NET[/SIDE[/IMAGES]], separated by commas; the recipe is fitted to so many images.
        beside: number of other trainings.
        turns: number of measurements of each.
    """
    images = load_data("cifar10").train.take_evenly(2000)
    table = Table("net", "million multiply-adds", "1 thread, images/s", "2 threads", "2 ÷ 1")
    with training_beside(beside):
        for name in nets.split(","):
            training, work = make_training(name, images)
            rates: dict[int, list[float]] = {threads: [] for threads in THREADS}
            for _ in range(turns):
                for threads in THREADS:
                    rates[threads].append(time_steps(training, threads))
            medians = [statistics.median(rates[threads]) for threads in THREADS]
            cells = [f"{median:,.0f}" for median in medians]
            table.add_row(name, f"{work / 1e6:,.0f}", *cells, f"{medians[1] / medians[0]:.2f}")
            print(name, f"{work / 1e6:,.0f}", *cells, flush=True)
    print(f"beside {beside}; torch {torch.__version__}, Python {sys.version.split()[0]}")
    Console(width=120).print(table)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"speed": speed, "trials": trials})
