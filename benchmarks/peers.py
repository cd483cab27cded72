"""The article's nets trained by lamina and other libraries: seconds per epoch, total, accuracy.

Every library has a script in benchmarks/peer/, run by the Python of another virtual environment.
All get the same layers, the same images as arrays in memory, the same batch size, and Adam with the
same learning rate. The scripts use their library in the plain way and avoid what costs time: no
worker processes, validation, logs or checkpoints. Names that end in "-bf16" use the library's own
mixed precision, as lamina's ``--precision auto`` does where it is faster. "lamina-fp32" is lamina
in float32, for a comparison in the same number format.

The results are the median of the epochs after the first, which compiles and warms up, and the whole
process. The accuracy shows that all train the same thing.

    python -m venv /tmp/peers && /tmp/peers/bin/pip install -r benchmarks/peers-requirements.txt
    python benchmarks/peers.py --python /tmp/peers/bin/python --turns 3 --json peers.json
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import tyro
from article import write_images, write_subset
from peer.assignment import Assignment
from processes import append_row, run_process, train_by_lamina
from rich.console import Console
from rich.table import Table

from lamina import load_data
from lamina.errors import LaminaError

SCRIPTS = Path(__file__).parent / "peer"
BATCH_SIZE = 100


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another library: its script, the modules that it imports, and its environment."""

    script: str
    modules: tuple[str, ...]
    nets: tuple[str, ...] = ("mlp", "cnn")
    precision: str = "fp32"
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


KERAS_ON_JAX = Peer("with_keras.py", ("keras", "jax"), environment={"KERAS_BACKEND": "jax"})
KERAS_ON_TORCH = Peer("with_keras.py", ("keras", "torch"), environment={"KERAS_BACKEND": "torch"})
LIGHTNING = Peer("with_lightning.py", ("lightning",))
PEERS = {
    "keras-jax": KERAS_ON_JAX,
    "keras-torch": KERAS_ON_TORCH,
    "lightning": LIGHTNING,
    "skorch": Peer("with_skorch.py", ("skorch",)),
    "scikit-learn": Peer("with_sklearn.py", ("sklearn",), nets=("mlp",)),
    "fastai": Peer("with_fastai.py", ("fastai",)),
    "keras-jax-bf16": dataclasses.replace(KERAS_ON_JAX, precision="bf16"),
    "keras-torch-bf16": dataclasses.replace(KERAS_ON_TORCH, precision="bf16"),
    "lightning-bf16": dataclasses.replace(LIGHTNING, precision="bf16"),
}
LAMINA = {"lamina": "auto", "lamina-fp32": "fp32"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One training of one of the article's nets."""

    who: str
    net: str
    seed: int
    epoch_seconds: tuple[float, ...]
    process_seconds: float
    test_accuracy: float

    @property
    def warm_epoch_seconds(self) -> float:
        """Median of the epochs after the first."""
        return statistics.median(self.epoch_seconds[1:])


def find_obstacle(python: Path, peer: Peer) -> str | None:
    """The reason why that Python cannot run the library; ``None`` if it can."""
    probe = [str(python), "-c", "; ".join(f"import {module}" for module in peer.modules)]
    tried = subprocess.run(
        probe, capture_output=True, text=True, env={**os.environ, **peer.environment}
    )
    if tried.returncode == 0:
        return None
    reason = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
    return (
        "not installed"
        if reason.startswith("ModuleNotFoundError")
        else f"cannot be imported: {reason}"
    )


def train_with_peer(name: str, python: Path, assignment: Assignment) -> Row:
    peer = PEERS[name]
    assignment = dataclasses.replace(assignment, precision=peer.precision)
    finished = run_process(
        [str(python), str(SCRIPTS / peer.script), *assignment.words()], peer.environment
    )
    result = json.loads(finished.lines[-1])
    seconds = tuple(result["epoch_seconds"])
    return Row(
        name, assignment.net, assignment.seed, seconds, finished.seconds, result["test_accuracy"]
    )


def train_with_lamina(name: str, data: str, runs: Path, assignment: Assignment) -> Row:
    options = {
        "--recipe": "article",
        "--data": data,
        "--runs-dir": runs,
        "--epochs": assignment.epochs,
        "--batch-size": assignment.batch_size,
        "--seed": assignment.seed,
        "--precision": LAMINA[name],
    }
    training = train_by_lamina(assignment.net, options)
    seconds = tuple(epoch["train_seconds"] for epoch in training.epochs)
    return Row(
        name,
        assignment.net,
        assignment.seed,
        seconds,
        training.seconds,
        training.result["test_accuracy"],
    )


def compare(rows: Sequence[Row], net: str) -> Table:
    """Tabulate medians over the turns, and their ratio to lamina's, fastest first."""
    table = Table(title=net)
    table.add_column("who", no_wrap=True)
    for head in ("epoch s", "÷ lamina", "process s", "÷ lamina", "test accuracy"):
        table.add_column(head, justify="right", no_wrap=True)
    medians = {
        who: _medians(rows, net, who)
        for who in dict.fromkeys(row.who for row in rows if row.net == net)
    }
    epoch, process, _ = medians["lamina"]
    for who, (epoch_seconds, process_seconds, accuracy) in sorted(
        medians.items(), key=lambda item: item[1][0]
    ):
        table.add_row(
            who,
            f"{epoch_seconds:.2f}",
            f"{epoch_seconds / epoch:.2f}",
            f"{process_seconds:.1f}",
            f"{process_seconds / process:.2f}",
            f"{accuracy:.2%}",
        )
    return table


def tell_fastest(rows: Sequence[Row]) -> list[str]:
    """Compare lamina with the fastest library, and with the fastest in fp32, for each net."""
    lines = []
    for net in dict.fromkeys(row.net for row in rows):
        epoch = {row.who: _medians(rows, net, row.who)[0] for row in rows if row.net == net}
        sides = (
            ("lamina", "fastest library", PEERS),
            ("lamina", "fastest library in fp32", _peers_in_fp32()),
        )
        if "lamina-fp32" in epoch:
            sides = (*sides, ("lamina-fp32", "fastest library in fp32", _peers_in_fp32()))
        for who, what, names in sides:
            peers = [name for name in names if name in epoch]
            if peers:
                fastest = min(peers, key=epoch.__getitem__)
                lines.append(
                    f"{net}: {who} is {epoch[fastest] / epoch[who]:.2f}× as fast as {fastest}, the"
                    f" {what}"
                )
    return lines


def _peers_in_fp32() -> list[str]:
    return [name for name, peer in PEERS.items() if peer.precision == "fp32"]


def _medians(rows: Sequence[Row], net: str, who: str) -> tuple[float, float, float]:
    side = [row for row in rows if (row.net, row.who) == (net, who)]
    return (
        statistics.median(row.warm_epoch_seconds for row in side),
        statistics.median(row.process_seconds for row in side),
        statistics.median(row.test_accuracy for row in side),
    )


def main(
    python: Path,
    nets: str = "mlp,cnn",
    peers: str = ",".join(PEERS),
    turns: int = 3,
    epochs: int = 3,
    images: int | None = None,
    json_path: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Train the article's nets with other libraries and with lamina, in turns.

    Args:
        python: Python with the other libraries, see benchmarks/peers-requirements.txt.
        nets: nets, separated by commas.
        peers: libraries, separated by commas.
        turns: number of trainings of each net by each library; turn t has seed t.
        epochs: number of epochs; the first is not counted.
        images: approximate number of training and of test images; for a quick trial without
            meaningful results.
        json_path: file for the results, one JSON object per line.
    """
    wanted, wanted_nets = split_names(peers, PEERS), split_names(nets, ("mlp", "cnn"))
    if epochs < 2:
        raise SystemExit(
            f"--epochs is {epochs}; it must be at least 2, because the first is not counted. Use"
            " --epochs 3."
        )
    absent: dict[str, str] = {}
    for name in wanted:
        if reason := find_obstacle(python, PEERS[name]):
            absent[name] = reason
    rows: list[Row] = []

    def keep(row: Row) -> None:
        rows.append(row)
        tell(row)
        if json_path is not None:
            append_row(json_path, row)

    if json_path is not None:
        json_path.write_text("")
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        source, data = "cifar10", load_data("cifar10")
        if images is not None:
            source = str(write_subset(data, images, folder / "subset"))
            data = load_data(source)
        arrays_file = folder / "images.npz"
        write_images(data, arrays_file)
        # In turns, so that a slow minute of the machine affects every library.
        for turn in range(turns):
            for net in wanted_nets:
                assignment = Assignment(net, arrays_file, epochs, BATCH_SIZE, turn, "fp32")
                for name in LAMINA:
                    keep(train_with_lamina(name, source, folder / "runs", assignment))
                for name in wanted:
                    if name in absent or net not in PEERS[name].nets:
                        continue
                    try:
                        keep(train_with_peer(name, python, assignment))
                    except subprocess.CalledProcessError as error:
                        absent[name] = (
                            f"failed on {net} with exit status {error.returncode}; its output is"
                            " above"
                        )
    for net in wanted_nets:
        Console().print(compare(rows, net))
    for line in (*tell_fastest(rows), *(f"{name}: {reason}" for name, reason in absent.items())):
        print(line)


def tell(row: Row) -> None:
    print(
        f"{row.net} seed {row.seed} {row.who}: epochs"
        f" {', '.join(f'{s:.2f}' for s in row.epoch_seconds)} s, process {row.process_seconds:.1f}"
        f" s, test accuracy {row.test_accuracy:.2%}",
        file=sys.stderr,
    )


def split_names(text: str, known: Collection[str]) -> list[str]:
    """Split comma-separated names; exit with a message if one is unknown."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise SystemExit(f"Unknown name {name!r}; choose from {', '.join(known)}.")
    return names


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except LaminaError as error:
        raise SystemExit(str(error)) from None
