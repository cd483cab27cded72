"""What predictions, trainings and servers load before they begin."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lamina.runs.run import Run
from support.runs import DATA
from support.servers import save_untrained

SLOW = {
    "torchmetrics",
    "torchvision",
    "captum",
    "matplotlib",
    "scipy",
    "sympy",
    "pandas",
    "polars",
    "sklearn",
}


@pytest.fixture
def untrained_run(workplace: Path) -> Run:
    """A run that can predict, and one.png beside it."""
    Image.new("RGB", (6, 6)).save(workplace / "one.png")
    return save_untrained(workplace, "untrained", DATA.train)


def run_script(script: str, *words: Path) -> tuple[list[set[str]], str]:
    """The modules that a new interpreter has loaded at each ``report()``, and what it prints."""
    ran = subprocess.run(
        [sys.executable, "-c", REPORT + script, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = [line for line in ran.stderr.splitlines() if line.startswith("[")]
    return [set(json.loads(line)) for line in lines], ran.stdout


def list_packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


REPORT = """
import json, sys
from lamina.cli import main

def report():
    print(json.dumps(list(sys.modules)), file=sys.stderr)

def run(*words):
    assert main(list(words)) == 0
    report()

"""
# Wide enough for the layers to be in bf16 where the machine multiplies in it.
PREDICT_AND_TRAIN = """
run("predict", sys.argv[1], sys.argv[2])
net = "Flatten(), Linear(2000), ReLU(), Output()"
run("train", net, "--epochs", "1", "--data", sys.argv[3])
"""


def test_predicting_and_training_import_only_what_they_use(
    untrained_run: Run, workplace: Path, image_set: Path
) -> None:
    words = (untrained_run.path, workplace / "one.png", image_set)
    (predicting, training), printed = run_script(PREDICT_AND_TRAIN, *words)
    assert "torch" in predicting
    assert not list_packages(predicting) & SLOW
    assert printed.startswith("image\tpredicted")
    # the compilers that torch has
    assert not training & {"torch._dynamo", "torch.fx.experimental.symbolic_shapes", "sympy"}


SERVE = """
import lamina.deploy.serve.app
import lamina.deploy.studio.routes
report()
"""


def test_servers_do_without_torch() -> None:
    (serving,), _ = run_script(SERVE)
    assert "torch" not in serving
