"""The source of your own functions and modules is recorded, and a change is a warning."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType

import pytest
from torch.nn import functional

from lamina import Epoch, Parts, load_run, start_run
from lamina.cli import main
from lamina.errors import LaminaWarning
from lamina.training.custom import digest_source
from support.own_code import LOSS, MODULE, SOURCE, rewrite
from support.runs import DATA, RECIPE


def begin(own: ModuleType, folder: Path) -> Path:
    """A run of one epoch of two, with the module and the loss."""
    parts = Parts(loss=own.weigh)
    run = start_run(DATA, own.Own(), RECIPE, parts=parts, runs_dir=folder, name="run")
    events = run.iter_train()
    next(event for event in events if isinstance(event, Epoch))
    events.close()
    return run.path


def test_unchanged_code_resumes_without_a_warning(own, tmp_path):
    path = begin(own, tmp_path)
    run = load_run(path, module=own.Own(), parts=Parts(loss=own.weigh))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run.train(data=DATA, progress=False) is not None


def test_a_changed_function_is_a_warning_when_training_resumes(own, tmp_path):
    path = begin(own, tmp_path)
    rewrite(own, *LOSS)
    run = load_run(path, module=own.Own(), parts=Parts(loss=own.weigh))
    with pytest.warns(LaminaWarning, match=r"^the source of loss, own_code\.weigh, has changed"):
        run.train(data=DATA, progress=False)


def test_a_changed_module_is_a_warning_when_it_is_loaded(own, tmp_path):
    path = begin(own, tmp_path)
    rewrite(own, *MODULE)
    with pytest.warns(LaminaWarning, match="^the code of Own has changed since"):
        run = load_run(path, module=own.Own())
    assert run.predictor().probabilities(DATA.test.pixels).shape == (12, 3)
    with pytest.warns(LaminaWarning, match="^the code of Own has changed since"):
        start_run(DATA, own.Own(), start_from=path, parts=Parts(loss=own.weigh), runs_dir=tmp_path)


def test_a_changed_file_is_a_warning_of_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = SOURCE.replace("108, 3", "192, 10").partition("def weigh")[0]
    Path("own.py").write_text(code)
    words = ["--data", "shapes", "--size", "8", "--epochs", "1", "--name", "own"]
    assert main(["train", "own.py", *words]) == 0
    assert "has changed" not in capsys.readouterr().err
    Path("own.py").write_text(code.replace("images.flatten", "images.flip(3).flatten"))
    assert main(["evaluate", "own", "--net", "own.py"]) == 0
    assert "own.py has changed since runs/own was started with it" in capsys.readouterr().err


def test_only_text_of_its_own_has_a_digest():
    assert digest_source(begin) != digest_source(rewrite) != ""
    assert digest_source(lambda done: done) == ""
    assert digest_source(functional.linear) == ""  # built in
    assert digest_source() == ""
