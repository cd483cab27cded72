"""Small runs of each kind of target, trained in a moment, for pages and cards about them."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from lamina.data import Dataset, Images
from lamina.nets import Conv2d, GlobalAvgPool, Net, Output, ReLU
from lamina.runs.run import Run
from lamina.runs.start import start_run
from lamina.training.recipe import Recipe
from support.runs import finish_run

NET = Net(Conv2d(4, 3), ReLU(), GlobalAvgPool(), Output())
HOSTILE = "<script>alert(1)</script>"
NAMES = {
    "single-label": (HOSTILE, "b | *bold* [x](http://example.com)", "c\n---\nlicense: \u202emit"),
    "multi-label": (HOSTILE, "wet: yes"),
    "binary": (HOSTILE,),
    "regression": (HOSTILE, "degrees"),
}


def make_hostile_images(
    kind: str, count: int, split: str, names: tuple[str, ...] | None = None, side_px: int = 12
) -> Images:
    """Noise, brighter where the first target is; some predictions of a net are wrong."""
    generator = np.random.default_rng(len(split))
    names = names or NAMES[kind]
    classes = generator.integers(0, len(names) if kind == "single-label" else 2, count)
    targets = {
        "single-label": lambda: classes.astype(np.int64),
        "multi-label": lambda: np.stack([classes > 0, generator.random(count) > 0.5], axis=1),
        "binary": lambda: classes > 0,
        "regression": lambda: np.stack([classes, generator.random(count)], axis=1).astype(
            np.float32
        ),
    }[kind]()
    noise = generator.integers(0, 150, (count, side_px, side_px, 3))
    pixels = np.clip(noise + 20 * classes[:, None, None, None], 0, 255).astype(np.uint8)
    files = tuple(f"{split}/{HOSTILE}{row}.png" for row in range(count))
    return Images(pixels, targets, names, files, split)


def make_dataset(kind: str, *splits: str) -> Dataset:
    parts = {split: make_hostile_images(kind, 90, split) for split in splits}
    return Dataset("pets & co", "abc", make_hostile_images(kind, 90, "train"), **parts)


def train_briefly(folder: Path, dataset: Dataset, net: Net | nn.Module = NET) -> Run:
    recipe = Recipe(epochs=6, batch_size=15, lr=0.01)
    return finish_run(start_run(dataset, net, recipe, runs_dir=folder))


class Outline(HTMLParser):
    """The elements, attributes and texts of a page; fails where they are not nested."""

    EMPTY = frozenset({"meta", "img", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)

    def find(self, tag: str, name: str) -> list[str]:
        return [value for own, key, value in self.attributes if (own, key) == (tag, name)]


@pytest.fixture(scope="session")
def report_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Run, Dataset]]:
    """For each kind of target a run with val and test, and its data."""
    found = {}
    for kind in NAMES:
        dataset = make_dataset(kind, "val", "test")
        found[kind] = train_briefly(tmp_path_factory.mktemp(kind), dataset), dataset
    return found
