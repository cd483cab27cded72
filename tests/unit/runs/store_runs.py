"""Make stored-runs.zip again, while the format of runs may still change.

From the first release on, the runs of every release are kept and must be loaded.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from lamina import Epoch, Preparation, Recipe, load_data, start_run

NET = "Conv2d(4, 3, stride=2), BatchNorm(), ReLU(), Flatten(), Linear(16), Dropout(0.2), Output()"
RECIPE = Recipe(
    epochs=3,
    batch_size=100,
    lr=0.003,
    flip="random",
    translate_px=1,
    label_smoothing=0.1,
)


def main(folder: Path) -> None:
    """Train a run to its end and another for one epoch, and pack both."""
    data = load_data("shapes", Preparation(size_px=16, val_fraction=0.1))
    runs_dir = folder / "runs"
    start_run(data, NET, RECIPE, name="finished", runs_dir=runs_dir).train()
    unfinished = start_run(data, NET, RECIPE, name="unfinished", runs_dir=runs_dir)
    for event in unfinished.iter_train():
        if isinstance(event, Epoch):
            break
    for lock in runs_dir.glob("*/.lock"):
        lock.unlink()
    shutil.make_archive(str(folder / "stored-runs"), "zip", runs_dir)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
