"""The examples of docs/howto/extend.md: alone, resumed, and in two processes."""

from __future__ import annotations

import contextlib
import linecache
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lamina import Recipe, Step, load_run, start_run
from lamina.data import Dataset
from lamina.data.sources.drawn import draw_shapes
from lamina.nets import Dropout, Flatten, Linear, Net, Output, ReLU
from lamina.training.custom import Parts
from support.groups import run_group
from support.runs import digests

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "extend.md"
BLOCKS = [
    block.replace('load_data("shapes")', "load_data(FEW)")
    for block in re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
]
EXAMPLES = {
    "focal": {"loss": "focal"},
    "mixup": {"augment": "mixup", "loss": "mixed_loss"},
    "student": {"augment": "add_teacher", "loss": "distillation"},
    "slower": {"optimizer": "slower_below"},
}
NET = Net(Flatten(), Linear(8), ReLU(), Dropout(0.5), Output())
IN_PROCESSES = """
from lamina import Net, Parts, Recipe, load_run, start_run
from lamina.nets import Dropout, Flatten, Linear, Output, ReLU
from lamina.training.group import join_group

EXAMPLES = {examples}
NET = Net(Flatten(), Linear(8), ReLU(), Dropout(0.5), Output())
if __name__ == "__main__":
    with join_group():
        for name, parts in EXAMPLES.items():
            own = {{part: globals()[function] for part, function in parts.items()}}
            recipe = Recipe(epochs=1, batch_size=100, lanes=4, precision="fp32")
            run = start_run(data, NET, recipe, parts=Parts(**own), runs_dir=RUNS, name=name)
            run.train(progress=False)
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The names of docs/howto/extend.md, after all its code has run in an empty folder."""
    folder = tmp_path_factory.mktemp("extend")
    train = draw_shapes("shapes", "train", 400, seed=3)
    test = draw_shapes("shapes", "test", 100, seed=4)
    np.savez(
        folder / "few.npz",
        x_train=train.pixels,
        y_train=train.targets,
        x_test=test.pixels,
        y_test=test.targets,
    )
    names: dict[str, Any] = {"__name__": "page", "FEW": str(folder / "few.npz")}
    with contextlib.chdir(folder):
        for number, block in enumerate(BLOCKS):
            file = f"{PAGE.name}-{number}"
            linecache.cache[file] = (len(block), None, block.splitlines(keepends=True), file)
            exec(compile(block, file, "exec", dont_inherit=True), names)  # the page's own code
    names["folder"] = folder
    yield names


def test_the_page_runs_and_its_runs_are_whole(page: dict[str, Any]) -> None:
    runs = {
        path.name: load_run(path)
        for path in sorted((page["folder"] / "runs").iterdir())
        if (path / "run.json").exists()
    }
    assert set(runs) == {*EXAMPLES, "metrics", "doubt", "many"}
    for name, parts in EXAMPLES.items():
        assert runs[name].record.parts == {
            part: f"page.{function}" for part, function in parts.items()
        }
        assert len(runs[name].folder.read_epochs()) == 2
    metrics = runs["metrics"].report
    assert metrics.metrics["accuracy"] <= metrics.metrics["top_2"] <= 1


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_has_at_most_fifteen_lines(name: str) -> None:
    block = next(block for block in BLOCKS if f'name="{name}"' in block)
    lines = [
        line
        for line in block.splitlines()
        if line.strip() and not line.startswith(("import", "from"))
    ]
    assert len(lines) <= 15


@pytest.mark.parametrize("name", ["mixup", "slower"])
def test_random_numbers_and_an_optimizer_resume_to_the_bit(
    name: str, page: dict[str, Any], tmp_path: Path
) -> None:
    own = Parts(**{part: page[function] for part, function in EXAMPLES[name].items()})
    train = page["data"].train
    small = Dataset("small", "abc", train=train.take_evenly(100))
    recipe = Recipe(epochs=2, batch_size=10, optimizer="sgd", lr=0.05, precision="fp32")
    straight, stopped = (
        start_run(small, NET, recipe, runs_dir=tmp_path, parts=own) for _ in range(2)
    )
    straight.train(progress=False)
    for event in stopped.iter_train():
        if isinstance(event, Step) and event.epoch == 2 and event.step == 5:
            break  # what is saved is all that is left of it, as after a kill
    again = load_run(stopped.path, parts=own)
    again.train(data=small, progress=False)
    assert digests(again) == digests(straight)


def test_two_processes_give_the_same_weights_as_one(page: dict[str, Any], tmp_path: Path) -> None:
    calls = r"^(run = |run\.train|start_run\(|load_run\(\").*\n"
    definitions = "\n".join(re.sub(calls, "", block, flags=re.MULTILINE) for block in BLOCKS[:4])
    teacher = page["folder"] / "runs" / "focal"
    definitions = definitions.replace('load_run("focal")', f"load_run({str(teacher)!r})")
    program = f"{definitions}\n{IN_PROCESSES.format(examples=EXAMPLES)}"
    runs = tmp_path / "runs2"
    code = f"FEW, RUNS = {page['FEW']!r}, {str(runs)!r}\n{program}"
    for process in run_group(2, code=code):
        assert process.status == 0, process.errors
    names = {"__name__": "__main__", "FEW": page["FEW"], "RUNS": tmp_path / "runs1"}
    exec(compile(program, "own", "exec"), names)
    found = {name: digests(load_run(runs / name)) for name in EXAMPLES}
    assert found == {name: digests(load_run(tmp_path / "runs1" / name)) for name in EXAMPLES}
    assert len({tuple(one) for one in found.values()}) == len(EXAMPLES)
