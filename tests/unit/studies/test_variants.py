"""Own functions and modules are compared, ablated and tuned as named experiments."""

from __future__ import annotations

import json
from functools import partial

import pytest
from torch import nn
from torch.nn.functional import cross_entropy

from lamina import Parts, Recipe, Variant, ablate, compare, load_run
from lamina.errors import LaminaError, RunError
from lamina.evaluation.difference_sketch import sketch_differences
from lamina.runs.start import as_net_choice
from lamina.studies.ablation import find_settings, remove_parts
from lamina.studies.comparison import Plan, plan_study
from lamina.studies.experiment_text import find_source, make_experiment
from lamina.studies.study import read_study
from support.runs import DATA

LINEAR = "Flatten(), Output(),epochs=1,batch_size=10"


def halve(logits, targets):
    return cross_entropy(logits, targets) / 2


def fall(done):
    return 1 - done


def linear():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))


def plan(folder, *variants):
    sources = [find_source(variant, folder) for variant in variants]
    named = [(source.title, make_experiment(source, DATA, as_net_choice)[0]) for source in sources]
    return plan_study(folder, None, named, Plan())


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


def test_equal_functions_are_refused_and_other_lambdas_are_not(tmp_path):
    one = Variant("one", LINEAR, parts=Parts(schedule=lambda done: 1 - done))
    two = Variant("two", LINEAR, parts=Parts(schedule=lambda done: 1 - done**2))
    same = Variant("same", LINEAR, parts=Parts(schedule=lambda done: 1 - done))
    assert list(plan(tmp_path, one, two).experiments) == ["one", "two"]
    with pytest.raises(RunError, match=r"^one and same are the same net with the same recipe"):
        plan(tmp_path, one, same)
    with pytest.raises(RunError, match=r"^Two different experiments are called one\. .*one-2"):
        plan(tmp_path, one, Variant("one", LINEAR, parts=two.parts))
    modules = [Variant(name, net) for name, net in (("a", linear), ("b", lambda: linear()))]
    assert list(plan(tmp_path, *modules).experiments) == ["a", "b"]


def test_a_metric_of_ones_own_is_refused_with_advice(tmp_path):
    parts = Parts(metrics={"doubt": lambda logits, targets: logits.mean()})
    own = [Variant(name, LINEAR + ",lr=" + name, parts=parts) for name in ("0.1", "0.2")]
    assert len(plan(tmp_path, *own).experiments) == 2  # compared by the accuracy
    recipe = Recipe(epochs=1, metric="doubt")
    with pytest.raises(LaminaError, match=r"value of each image to lamina\.compare_scores"):
        plan(tmp_path, Variant("a", "mlp", recipe, parts), Variant("b", "cnn", recipe, parts))


def test_an_ablation_puts_functions_and_settings_of_lamina_back(tmp_path):
    parts = Parts(loss=halve, schedule=fall)
    source = find_source(Variant("own", "cnn:best", parts=parts), tmp_path)
    whole, _ = make_experiment(source, DATA, as_net_choice)
    plain, _ = make_experiment(find_source("cnn:best", tmp_path), DATA, as_net_choice)
    names = ["loss", "loss+schedule"]
    (first, rest), (both, none), (last, same) = remove_parts(source, whole, names)
    assert (first, both) == ("without loss halve", "without loss halve and schedule fall")
    assert (last, same) == ("own", whole)
    assert [*rest.parts.functions()] == ["schedule"]
    assert rest.recipe.schedule == "constant"
    assert none.parts.functions() == {}
    assert none.recipe == plain.recipe.__class__(**vars(plain.recipe) | {"metric": "accuracy"})
    assert find_settings(whole, source)[:2] == ["loss", "schedule"]


def test_an_ablation_shows_each_part_in_text_and_in_a_notebook(tmp_path):
    whole = Variant("own", "Flatten(), Linear(4), ReLU(), Output(),epochs=1", parts=Parts(halve))
    result = ablate(
        whole, DATA, without=["ReLU"], each=True, seeds=2, runs_dir=tmp_path, progress=False
    )
    names = ["without ReLU", "without loss halve"]
    assert [comparison.a for comparison in result.comparisons] == names
    assert str(result).startswith("own: ") and all(name in str(result) for name in names)
    shown = result._repr_html_()
    assert shown.count("<circle") == 4 and "<table>" in shown
    assert json.loads(json.dumps(result.to_json()))["diverged"] == []


def test_a_figure_has_alternative_text_and_escapes_names(tmp_path):
    comparison = compare(
        Variant('<a> "b"', LINEAR, parts=Parts(halve)),
        LINEAR,
        DATA,
        seeds=2,
        runs_dir=tmp_path,
        progress=False,
    )
    figure = sketch_differences([comparison])
    assert 'role="img"' in figure and comparison.words.split(":")[0] in figure
    assert '<a> "b"' not in comparison._repr_html_()
    assert figure in comparison._repr_html_()
    places = [float(part.split("%")[0]) for part in figure.split('cx="')[1:]]
    assert len(places) == 2 and all(0 < place < 100 for place in places)
    order = sorted(comparison.differences) == list(comparison.differences)
    assert (sorted(places) == places) == order
