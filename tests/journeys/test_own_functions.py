"""Own functions and modules are compared, ablated and tuned."""

from __future__ import annotations

import json
from functools import partial

import pytest
from torch import nn
from torch.nn.functional import cross_entropy

from lamina import Parts, Recipe, Variant, ablate, compare, load_run, tune
from lamina.errors import RunError
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
    monkeypatch.setattr(finals, "PLANS", ((2, 2, 2),))
    data = noise_with_val(20)
    ask = partial(
        tune, data=data, over={"lr": "0.01,0.02"}, trials=2, runs_dir=tmp_path, progress=False
    )

    def make():
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))

    own = Variant("own", make, Recipe(epochs=1), Parts(loss=halve))
    study = ask(own)
    assert "own" in [finalist.name for finalist in study.result.finalists]
    runs = [load_run(path).record.parts for path in study.path.glob("trial-*")]
    assert [{*parts} for parts in runs] == [{"loss"}] * 2
    assert ask(own).path == study.path
    other = Variant("own", make, Recipe(epochs=1), Parts(loss=lambda logits, targets: logits.sum()))
    with pytest.raises(RunError, match=r"already exists, with different settings: parts, code"):
        ask(other, name=study.path.name)


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


def test_a_study_whose_function_was_changed_is_refused(tmp_path):
    ask = partial(compare, data=DATA, seeds=2, runs_dir=tmp_path, name="s", progress=False)

    def make(factor):
        def loss(logits, targets):
            return factor * cross_entropy(logits, targets)

        return Variant("own", LINEAR, parts=Parts(loss=loss))

    comparison = ask(make(2), LINEAR)
    assert ask(make(2), LINEAR) == comparison
    with pytest.raises(RunError, match=r"^The code of loss of own has changed since .*/s began\."):
        ask(make(3), LINEAR)
    unnamed = partial(ask, name=None)
    unnamed(make(3), LINEAR)
    unnamed(make(4), LINEAR)  # a new study
    assert len(list(tmp_path.glob("*-study-*"))) == 2


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
