"""Own functions and modules are compared, ablated and tuned as named experiments."""

from __future__ import annotations

import pytest
from torch import nn
from torch.nn.functional import cross_entropy

from lamina import Parts, Recipe, Variant, compare
from lamina.errors import LaminaError, RunError
from lamina.evaluation.difference_sketch import sketch_differences
from lamina.runs.start import as_net_choice
from lamina.studies.ablation import remove_parts
from lamina.studies.comparison import Plan, plan_study
from lamina.studies.experiment_text import find_source, make_experiment
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


def test_equal_functions_are_refused_and_other_lambdas_are_not(tmp_path):
    one = Variant("one", LINEAR, parts=Parts(schedule=lambda done: 1 - done))
    two = Variant("two", LINEAR, parts=Parts(schedule=lambda done: 1 - done**2))
    same = Variant("same", LINEAR, parts=one.parts)
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
    assert 'role="img"' in figure and comparison.headline().split(":")[0] in figure
    assert ">0.0 points</text>" in figure  # the unit, at a number that is always drawn
    assert '<a> "b"' not in comparison._repr_html_()
    assert figure in comparison._repr_html_()
    places = [float(part.split("%")[0]) for part in figure.split('cx="')[1:]]
    assert len(places) == 2 and all(0 < place < 100 for place in places)
    order = sorted(comparison.differences) == list(comparison.differences)
    assert (sorted(places) == places) == order
