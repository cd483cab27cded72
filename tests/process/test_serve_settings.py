"""Options of ``lamina serve``, and the runs' thresholds."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lamina import load_run
from lamina.cli import main
from lamina.runs.record import OwnModule
from support import forking
from support.images import encode
from support.runs import DATA, change_record
from support.servers import Server, fits, save_untrained, serving

IMAGES = [encode(np.full((6, 6, 3), level, np.uint8)) for level in (0, 90, 180, 255)]


@pytest.fixture(scope="module")
def named_server(runs_with_val: dict[str, Path]) -> Iterator[Server]:
    with serving(*runs_with_val.values()) as started:
        yield started


def predict(run: Path, image: bytes, folder: Path, capsys: pytest.CaptureFixture[str]) -> dict:
    (folder / "one.png").write_bytes(image)
    assert main(["predict", str(run), str(folder / "one.png"), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_predictions_use_the_runs_thresholds(named_server, runs_with_val, tmp_path, capsys):
    (threshold,) = load_run(runs_with_val["alarm"]).task.cutoffs
    document = named_server.ask("/openapi.json").values
    schema = document["components"]["schemas"]["Prediction"]
    for image in IMAGES:
        answer = named_server.ask("/v1/predict?model=alarm", image).values
        assert fits(answer, schema, document)
        expected = predict(runs_with_val["alarm"], image, tmp_path, capsys)
        assert answer["predicted"] == expected["predicted"]
        rows = {row["class"]: row for row in answer["predictions"]}
        assert rows["yes"]["threshold"] == pytest.approx(threshold, rel=1e-6)
        assert "threshold" not in rows["no"]
        assert answer["predicted"] == ("yes" if rows["yes"]["probability"] > threshold else "no")
        numbers = named_server.ask("/v1/predict?model=size", image).values
        assert fits(numbers, schema, document)
        expected = predict(runs_with_val["size"], image, tmp_path, capsys)
        values = {row["name"]: row["value"] for row in numbers["predictions"]}
        assert values == expected["predicted"]


def test_the_server_says_what_it_was_told(named_server):
    given = named_server.ask("/v1/model").values
    assert given["limit_bytes"] == 10_000_000
    alarm, size = given["models"]
    assert [alarm["model"], size["model"]] == ["alarm", "size"]
    assert (alarm["aim"], alarm["calibrated_on"]) == (
        "recall=0.95",
        "out-of-fold predictions of 100 train images",
    )
    assert alarm["thresholds_on"] == alarm["calibrated_on"]
    assert (size["aim"], size["calibrated_on"], size["thresholds_on"]) == ("", None, None)
    document = named_server.ask("/openapi.json").values
    schema = document["components"]["schemas"]["Model"]
    assert all(fits(model, schema, document) for model in (alarm, size))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none"], "No run named none in this folder or runs."),
        (["OWN"], "OWN uses a custom module, and lamina never runs code that a run names."),
    ],
)
def test_what_the_process_of_the_server_refuses_is_one_message(tmp_path, words, message):
    run = save_untrained(tmp_path, "run", DATA.train)
    own = save_untrained(tmp_path, "own", DATA.train)
    change_record(own, net=None, own_module=OwnModule("mine.py", ""))

    def fill(text: str) -> str:
        return text.replace("RUN", str(run.path)).replace("OWN", str(own.path))

    command = ["serve", *map(fill, words), "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with forking.start(*command, cwd=tmp_path, forks_python=True, **pipes) as process:
        printed, errors = process.communicate()
    assert (process.returncode, printed) == (2, "")
    assert errors.startswith(f"lamina: {fill(message)}")
    assert len(errors.splitlines()) == 1
