"""Wrong calls in Python, each with its error message: the snapshot ``wrong_calls.txt``.

``python tests/test_wrong_calls.py`` writes the messages again for the calls that the file holds.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import torch
from torch import nn

import lamina
from lamina import Dataset, Images, Recipe, load_run, nets, start_run
from lamina.deploy import exported_model
from lamina.errors import LaminaError
from lamina.insight import attribution, folds, similarity, units
from lamina.nets import Flatten, Net, Output

SNAPSHOT = Path(__file__).with_name("wrong_calls.txt")
PROMPT = ">>> "


def make_names() -> dict[str, Any]:
    """Names that the calls may use: arrays, a data set, a net, and a trained run in ``runs``."""
    x = np.random.default_rng(0).integers(0, 255, (12, 8, 8, 3), np.uint8)
    y = np.arange(12) % 3
    train, test = Images.from_arrays(x, y), Images.from_arrays(255 - x, y, split="test")
    data, net = Dataset.from_images(train, test=test), Net(Flatten(), Output())
    start_run(net, data, Recipe(epochs=1), name="first", device="cpu").train(progress=False)
    run = load_run("runs/first")
    model, predictor = run.load_model(), run.predictor(device="cpu")
    own = {"x": x, "y": y, "train": train, "test": test, "data": data, "NET": net, "run": run}
    modules = (lamina, nets, exported_model, attribution, similarity, folds, units)
    public = {
        name: getattr(module, name)
        for module in modules
        for name in getattr(module, "__all__", dir(module))
    }
    return (
        public
        | own
        | {
            "model": model,
            "predictor": predictor,
            "np": np,
            "torch": torch,
            "nn": nn,
            "lamina": lamina,
        }
    )


def show_message(call: str, names: dict[str, Any]) -> str:
    try:
        found = eval(call, names)
    except LaminaError as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:
        return f"not an error for people: {type(error).__name__}: {error}"
    return f"no error: {repr(found)[:80]}"


def show_all(calls: list[str], folder: Path) -> str:
    """The calls with their messages; headings and empty lines as they are."""
    with contextlib.chdir(folder):
        names = make_names()
        return "".join(
            (
                f"{line}\n{show_message(line.removeprefix(PROMPT), names)}\n"
                if line.startswith(PROMPT)
                else f"{line}\n"
            )
            for line in calls
        )


def list_calls() -> list[str]:
    return [
        line
        for line in SNAPSHOT.read_text("utf-8").splitlines()
        if not line or line.startswith(("#", PROMPT))
    ]


def test_every_wrong_call_gets_its_message(tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    shown = show_all(list_calls(), tmp_path)
    assert shown == SNAPSHOT.read_text("utf-8")
    assert not re.search("^no(t an)? error", shown, re.MULTILINE)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["first"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        SNAPSHOT.write_text(show_all(list_calls(), Path(made)), "utf-8")
