"""Own functions and modules are compared, ablated and tuned."""

from __future__ import annotations

import json
from functools import partial

import pytest
from torch import nn
from torch.nn.functional import cross_entropy

from lamina import Parts, Recipe, Variant, ablate, compare, load_run, tune
from lamina.errors import LaminaWarning, RunError
from lamina.studies import finals
from lamina.studies.study import read_study
from support.runs import DATA
from support.searches import noise_with_val

LINEAR = "Flatten(), Output(),epochs=1,batch_size=10"


def linear():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))


def halve(logits, targets):
    return cross_entropy(logits, targets) / 2


def test_own_functions_and_modules_are_tuned(tmp_path, monkeypatch):
    monkeypatch.setattr(finals, "FINALISTS", 1)
    data = noise_with_val(20)
    ask = partial(
        tune,
        data=data,
        over={"lr": "0.01,0.02"},
        trials=2,
        name="study",
        runs_dir=tmp_path,
        progress=False,
    )

    def make():
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))

    own = Variant("own", make, Recipe(epochs=1), Parts(loss=halve))
    study = ask(own)
    assert "own" in [finalist.name for finalist in study.result.finalists]
    runs = [load_run(path).record.parts for path in study.path.glob("trial-*")]
    assert [{*parts} for parts in runs] == [{"loss"}] * 2
    assert ask(own).result == study.result
    other = Variant("own", make, Recipe(epochs=1), Parts(loss=lambda logits, targets: logits.sum()))
    with pytest.raises(RunError, match=r"already exists, with different settings: parts, code"):
        ask(other)


def test_own_functions_are_compared_and_stored_by_name(tmp_path):
    own = Variant("halved", linear, Recipe(epochs=1, batch_size=10), Parts(loss=halve))
    ask = partial(compare, data=DATA, seeds=2, runs_dir=tmp_path, name="s", progress=False)
    comparison = ask(own, LINEAR)
    assert (comparison.a, comparison.b) == ("halved", LINEAR)
    runs = [load_run(path).record for path in sorted((tmp_path / "s").glob("*-seed0"))]
    assert [{*run.parts} for run in runs] == [{"loss"}, set()]
    settings = read_study(tmp_path / "s")["settings"]
    assert {*settings["code"]} == {"loss of halved", "net of halved"}
    assert ask(own, LINEAR) == comparison


def test_an_unnamed_study_of_own_functions_is_new(tmp_path):
    own = Variant("own", LINEAR, parts=Parts(loss=halve))
    for _ in range(2):
        compare(own, LINEAR, DATA, seeds=2, runs_dir=tmp_path, progress=False)
    assert len(list(tmp_path.glob("study-*"))) == 2


def test_a_lambda_is_compared_by_its_name_with_a_warning(tmp_path):
    ask = partial(compare, b=LINEAR, data=DATA, seeds=2, runs_dir=tmp_path, progress=False)
    variants = [
        Variant("own", LINEAR, parts=Parts(schedule=lambda done: 1 - done)) for _ in range(2)
    ]
    comparison = ask(variants[0], name="s")
    with pytest.warns(LaminaWarning, match=r"^lamina cannot notice changes of schedule of own"):
        assert ask(variants[1], name="s") == comparison


def test_an_ablation_shows_each_part_in_text_and_in_a_notebook(tmp_path):
    whole = Variant("own", "Flatten(), Linear(4), ReLU(), Output(),epochs=1", parts=Parts(halve))
    result = ablate(
        whole, DATA, without=["ReLU", "loss"], seeds=2, runs_dir=tmp_path, progress=False
    )
    names = ["without ReLU", "without loss halve"]
    assert [comparison.a for comparison in result.comparisons] == names
    assert str(result).startswith("own: ") and all(name in str(result) for name in names)
    shown = result._repr_html_()
    assert shown.count("<circle") == 4 and "<table>" in shown
    assert json.loads(json.dumps(result.to_json()))["diverged"] == []
