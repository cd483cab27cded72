"""What the process of the server predicts with, without a server."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lamina import Recipe, load_data, load_run, start_run
from lamina.cli import main
from lamina.data import Preparation
from lamina.deploy.confidence_rule import ConfidenceRule
from lamina.deploy.serve import inference
from lamina.errors import DataError
from lamina.evaluation.calibration import Calibration, Threshold
from lamina.evaluation.outputs import Outputs
from support.commands import run_well
from support.runs import DATA, NET
from support.servers import save_untrained


def test_training_images_that_are_loaded_later_are_found(tmp_path, monkeypatch):
    for place in range(20):
        folder = tmp_path / "photos" / ("cat" if place % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (12 * place, 0, 0)).save(folder / f"{place}.png")
    data = load_data(tmp_path / "photos", Preparation(size_px=8))
    run = start_run(data, NET, Recipe(epochs=1, batch_size=2), runs_dir=tmp_path)
    for _ in run.iter_train(data=data):
        pass
    run = load_run(run.path)
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "empty"))
    served = inference.Served("pets", run, run.predictor(device="cpu"), ConfidenceRule())
    monkeypatch.setattr(inference, "SERVED", [served])
    file = tmp_path / "photos/cat/1.png"
    (answer,) = inference.respond("similar", 0, [file.read_bytes()])
    assert answer["status"] == 404
    assert answer["problem"].endswith("Load them there with lamina similar RUN IMAGE.")
    assert main(["similar", str(run.path), str(file)]) == 0  # as the message says
    (answer,) = inference.respond("similar", 0, [file.read_bytes()])
    assert answer["searched"] == len(data.train)


def test_a_run_without_a_coverage_is_named(runs_with_val, tmp_path):
    run = load_run(runs_with_val["alarm"])
    targets = run.outputs["val"].targets[:12]
    few = replace(DATA.train, targets=targets, target_names=("a?",))
    small = save_untrained(tmp_path, "small", few)
    val = run.outputs["val"]
    small.folder.save_outputs([Outputs("val", val.logits[:12], val.targets[:12], val.names[:12])])
    aimed = Calibration("val", 12, (), "recall=0.95", (Threshold("a?", 0.4, 6, 6, 6),))
    small.folder.save_calibration(aimed)
    labels = replace(DATA.train, targets=np.ones((12, 2), bool), target_names=("wet", "old"))
    labels.targets[::2] = False
    several = save_untrained(tmp_path, "labels", labels)
    paths = {"small": str(small.path), "labels": str(several.path)}
    served = inference.open_runs(paths, "cpu", 0.8)
    (warned, fitted), (without,) = (value.remarks for value in served)
    assert warned.startswith(
        f"{small.path}: warning: --coverage is 80 %, but val has only 12 images, so as few as"
    )
    assert fitted.startswith(f"{small.path}: coverage: 80 %, fitted to 12 val images")
    assert without.startswith(
        f"{several.path} is multi-label; lamina serves it without prediction sets"
    )
    first, second = (value.describe() for value in served)
    assert first["coverage_interval"][0] < 0.7
    assert second["coverage_interval"] is None
    assert (first["calibrated"], first["calibrated_on"], first["thresholds_on"]) == (
        False,
        None,
        "12 val images",
    )
    with pytest.raises(
        DataError, match=re.escape(f"--coverage is 0.99, but {small.path} has only 12 val images")
    ):
        inference.open_runs(paths, "cpu", 0.99)


def test_predict_rejects_no_alarm_and_says_so(runs_with_val, tmp_path):
    run = runs_with_val["alarm"]
    Image.new("RGB", (6, 6)).save(tmp_path / "one.png")
    printed = run_well("predict", run, tmp_path / "one.png", "--confidence-threshold", "0.99")
    (threshold,) = load_run(run).task.cutoffs
    assert printed.stdout.splitlines()[1].split("\t")[1].startswith("yes ")
    assert (
        f"yes is never rejected, because the threshold of {100 * threshold:.2f} % for yes was"
        " chosen" in printed.stderr
    )
