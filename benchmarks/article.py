"""The article's own scripts and lamina, in turns: seconds per epoch, whole process, test accuracy.

The MLP is trained by the article's complete script. The article has no complete script for the CNN,
so the benchmark puts the class CNN into the MLP's script, with ten epochs and without flattening
the images. Only the source of the images changes: torchvision.datasets.CIFAR10 reads the arrays
that LAMINA_CIFAR10 points to. The transform and the DataLoader stay.

The clock measures the article's loop over epochs and lamina's ``train_seconds``, which is training
alone. It also measures both processes from the command to the line with the final test accuracy,
and to the exit.

    python benchmarks/article.py --net mlp --turns 3 --json article.json
"""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from PIL import Image
from processes import run_process, train_by_lamina
from rich.console import Console
from rich.table import Table

from lamina import load_data
from lamina.data import Dataset, Images

ARTICLE = Path(
    os.environ.get("LAMINA_ARTICLE") or Path(__file__).parents[2] / "shared" / "article.md"
)
EPOCHS = {"mlp": 5, "cnn": 10}

PREPARATION = """\
import time

import numpy as np
import torch
import torchvision


class ImagesFromFile(torchvision.datasets.CIFAR10):
    def __init__(self, root, train, download, transform):
        torchvision.datasets.VisionDataset.__init__(self, root, transform=transform)
        split = "train" if train else "test"
        with np.load({arrays_file!r}) as arrays:
            self.data, self.targets = arrays[split + "_pixels"], arrays[split + "_targets"].tolist()


torchvision.datasets.CIFAR10 = ImagesFromFile
torch.manual_seed({seed})

"""


@dataclasses.dataclass(frozen=True)
class Row:
    """One training of one of the article's nets.

    Attributes:
        who: "article" or "lamina".
        net: "mlp" or "cnn".
        seed: seed of all random numbers.
        epochs: number of epochs.
        epochs_seconds: time of all epochs.
        printed_seconds: from the command to the printed test accuracy.
        process_seconds: from the command to the exit.
        test_accuracy: a fraction, after the last epoch.
    """

    who: str
    net: str
    seed: int
    epochs: int
    epochs_seconds: float
    printed_seconds: float
    process_seconds: float
    test_accuracy: float


def extract_script(article: str, net: str) -> str:
    """Extract the script for ``net`` from the article; raise ValueError if a part is missing."""
    blocks = re.findall(r"^```python\n(.*?)^```", article, re.MULTILINE | re.DOTALL)
    script = _only(
        [block for block in blocks if "for epoch in range(num_epochs):" in block], "training script"
    )
    if net == "mlp":
        return script
    cnn = _only([block for block in blocks if "class CNN(nn.Module):" in block], "class CNN")
    script = script.replace(_class_source(script, "MLP"), _class_source(cnn, "CNN"))
    script = _replace(
        script, "MLP(input_size, hidden_size, num_classes)", "CNN(num_classes)", times=1
    )
    return _replace(script, "images.reshape(-1, input_size)", "images", times=2)


def instrument_script(script: str, arrays_file: Path, seed: int, epochs: int) -> str:
    """Set the script's images, seed and number of epochs, and time its loop over epochs."""
    script = _replace(script, "num_epochs = 5\n", f"num_epochs = {epochs}\n", times=1)
    loop = "for epoch in range(num_epochs):\n"
    script = _replace(script, loop, f"epochs_start = time.perf_counter()\n{loop}", times=1)
    end = "## Test the model\n"
    script = _replace(
        script,
        end,
        f"print('Epochs took', time.perf_counter() - epochs_start, 's')\n{end}",
        times=1,
    )
    return PREPARATION.format(arrays_file=str(arrays_file), seed=seed) + script


def _only(blocks: Sequence[str], what: str) -> str:
    if len(blocks) != 1:
        raise ValueError(
            f"expected one code block with the {what} in the article, found {len(blocks)}"
        )
    return blocks[0]


def _class_source(source: str, name: str) -> str:
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return "\n".join(source.splitlines()[node.lineno - 1 : node.end_lineno])
    raise ValueError(f"expected a class {name} in the article's code, found none")


def _replace(script: str, old: str, new: str, *, times: int) -> str:
    if script.count(old) != times:
        raise ValueError(
            f"expected {old!r} {times} times in the article's script, found it {script.count(old)}"
            " times"
        )
    return script.replace(old, new)


def train_by_script(script: Path, net: str, seed: int, epochs: int) -> Row:
    """Run the article's instrumented script and parse its output."""
    # unbuffered, so that each line has its time
    finished = run_process([sys.executable, "-u", str(script)])
    printed: dict[str, tuple[float, float]] = {}
    for line, line_seconds in zip(finished.lines, finished.line_seconds, strict=True):
        if found := re.fullmatch(
            r"(Epochs took|Accuracy of the network on the 10000 test images:) (\S+) [s%]", line
        ):
            printed[found[1].split()[0]] = float(found[2]), line_seconds
    if len(printed) < 2:
        output = "\n".join(finished.lines)
        raise ValueError(
            f"expected the script to print its seconds and its accuracy, but it printed:\n{output}"
        )
    (seconds, _), (percent, printed_seconds) = printed["Epochs"], printed["Accuracy"]
    return Row(
        "article", net, seed, epochs, seconds, printed_seconds, finished.seconds, percent / 100
    )


def train_with_lamina(data: str, runs: Path, net: str, seed: int, epochs: int) -> Row:
    """Run ``lamina train`` with the article's recipe and return its result."""
    options = {
        "--recipe": "article",
        "--data": data,
        "--seed": seed,
        "--epochs": epochs,
        "--runs-dir": runs,
    }
    training = train_by_lamina(net, options)
    result = training.result
    seconds = result["train_seconds"], result["printed_seconds"], training.seconds
    return Row("lamina", net, seed, epochs, *seconds, result["test_accuracy"])


def write_images(data: Dataset, path: Path) -> None:
    """Write both splits to one file, for processes without lamina."""
    train, test = data.train, test_split(data)
    np.savez(
        path,
        train_pixels=train.pixels,
        train_targets=train.targets,
        test_pixels=test.pixels,
        test_targets=test.targets,
    )


def write_subset(data: Dataset, count: int, folder: Path) -> Path:
    """Write about ``count`` images of each split to class folders, for a quick trial."""
    for split, images in (("train", data.train), ("test", test_split(data))):
        for index in range(0, len(images.targets), max(1, len(images.targets) // count)):
            path = folder / split / images.target_names[images.targets[index]] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.pixels[index]).save(path)
    return folder


def test_split(data: Dataset) -> Images:
    if data.test is None:
        raise ValueError(f"{data.name} has no test split; use data that has one")
    return data.test


def compare(rows: Sequence[Row]) -> Table:
    """Tabulate medians over the turns, and the article's seconds divided by lamina's."""
    table = Table("net", "median of", "article", "lamina", "article ÷ lamina")
    for net in dict.fromkeys(row.net for row in rows):
        article, lamina = (
            [row for row in rows if (row.net, row.who) == (net, who)]
            for who in ("article", "lamina")
        )
        for what, value in (
            ("seconds per epoch", lambda row: row.epochs_seconds / row.epochs),
            ("seconds to the printed accuracy", lambda row: row.printed_seconds),
            ("seconds, whole process", lambda row: row.process_seconds),
        ):
            seconds = [statistics.median(map(value, side)) for side in (article, lamina)]
            table.add_row(
                net, what, *(f"{s:.2f}" for s in seconds), f"{seconds[0] / seconds[1]:.1f}"
            )
        accuracies = [
            statistics.median(row.test_accuracy for row in side) for side in (article, lamina)
        ]
        table.add_row(net, "test accuracy", *(f"{accuracy:.2%}" for accuracy in accuracies), "")
    return table


def main(
    article: Path = ARTICLE,
    net: Literal["mlp", "cnn", "both"] = "both",
    turns: int = 3,
    seeds: int = 3,
    epochs: int | None = None,
    images: int | None = None,
    json_path: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Train the article's nets with its own scripts and with lamina, in turns.

    Args:
        article: Markdown file of the article.
        net: net to train.
        turns: number of trainings of each net by each side; turn t has seed t modulo `seeds`.
        seeds: number of different seeds.
        epochs: number of epochs; by default 5 for the MLP and 10 for the CNN.
        images: approximate number of training and of test images; for a quick trial without
            meaningful results.
        json_path: file for the results, one JSON object per line.
    """
    text = article.read_text(encoding="utf-8")
    scripts = {name: extract_script(text, name) for name in (EPOCHS if net == "both" else [net])}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arrays_file, runs, source = folder / "images.npz", folder / "runs", "cifar10"
        data = load_data(source)
        if images is not None:
            source = str(write_subset(data, images, folder / "subset"))
            data = load_data(source)
        write_images(data, arrays_file)
        # In turns, so that a slow minute of the machine affects both sides.
        for turn in range(turns):
            for net_name, script in scripts.items():
                seed, count = turn % seeds, epochs or EPOCHS[net_name]
                path = folder / f"article-{net_name}.py"
                path.write_text(
                    instrument_script(script, arrays_file, seed, count), encoding="utf-8"
                )
                rows.append(train_by_script(path, net_name, seed, count))
                rows.append(train_with_lamina(source, runs, net_name, seed, count))
    Console().print(compare(rows))
    if json_path is not None:
        json_path.write_text(
            "".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in rows), encoding="utf-8"
        )


if __name__ == "__main__":
    tyro.cli(main)
