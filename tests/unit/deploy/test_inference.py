"""What the process of the server predicts with, without a server."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from lamina import load_run
from lamina.deploy.serve import inference
from lamina.evaluation.calibration import Calibration, Threshold
from support.commands import run_lamina
from support.runs import DATA
from support.servers import save_untrained


def test_a_run_with_thresholds_and_no_temperature_is_described(runs_with_val, tmp_path):
    run = load_run(runs_with_val["alarm"])
    targets = run.outputs["val"].targets[:12]
    few = replace(DATA.train, targets=targets, target_names=("a?",))
    small = save_untrained(tmp_path, "small", few)
    aimed = Calibration("val", 12, (), "recall=0.95", (Threshold("a?", 0.4, 6, 6, 6),))
    small.folder.save_calibration(aimed)
    (served,) = inference.open_runs({"small": str(small.path)}, "cpu")
    description = served.describe()
    assert (
        description["calibrated"],
        description["calibrated_on"],
        description["thresholds_on"],
    ) == (False, None, "12 val images")


def test_predict_does_not_reject_alarms(runs_with_val, tmp_path):
    run = runs_with_val["alarm"]
    Image.new("RGB", (6, 6)).save(tmp_path / "one.png")
    image = tmp_path / "one.png"
    done = run_lamina("predict", run, image, "--confidence-threshold", "0.99")
    (threshold,) = load_run(run).task.cutoffs
    assert done.returncode == 2
    assert f"The model predicts yes above {100 * threshold:.2f} %, but" in done.stderr
