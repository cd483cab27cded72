"""Experiments are read from text, runs and variants, and settings that do not exist are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import nn

from lamina import Parts, Recipe, Variant, load_recipe, start_run
from lamina.cli.options import StudyOptions
from lamina.cli.study_session import find_sources
from lamina.errors import LaminaError, RecipeError, RunError
from lamina.nets import Flatten, Net, Output
from lamina.runs.start import NetChoice, as_net_choice
from lamina.studies.experiment import Candidate, Request, fit_experiment
from lamina.studies.experiment_text import (
    Source,
    find_source,
    make_experiment,
    parse_experiment,
)
from support.runs import DATA, NET, RECIPE


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("cnn", ("cnn", None, {})),
        ("cnn:best", ("cnn", "best", {})),
        ("cnn:best,lr=0.01", ("cnn", "best", {"lr": 0.01})),
        ("cnn, lr=1, batch-size = 50", ("cnn", None, {"lr": 1.0, "batch_size": 50})),
        (
            "timm:resnet18.a1_in1k:default,lr=1e-3",
            ("timm:resnet18.a1_in1k", "default", {"lr": 0.001}),
        ),
        (
            "Conv2d(2, kernel_size=3), Flatten(), Output(),flip=random",
            ("Conv2d(2, kernel_size=3), Flatten(), Output()", None, {"flip": "random"}),
        ),
        ("nets.py:small,class_weights=true", ("nets.py:small", None, {"class_weights": True})),
        ("runs/pets,gradient_clip=none", ("runs/pets", None, {"gradient_clip": None})),
        ("cnn,aim=recall=0.95", ("cnn", None, {"aim": "recall=0.95"})),
        ("cnn,extra", ("cnn,extra", None, {})),
    ],
)
def test_text_is_a_net_a_recipe_and_settings(text, parts):
    assert parse_experiment(text) == parts
    assert parse_experiment(Source(*parts).title) == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cnn,lrr=0.1", "In 'cnn,lrr=0.1', lrr is not a setting of a recipe. Did you mean lr?"),
        ("cnn,lr=fast", "In 'cnn,lr=fast', lr must be a number of at least 0, got 'fast'."),
        ("cnn,epochs=0.5", "In 'cnn,epochs=0.5', epochs must be a whole number"),
        ("cnn,flip=rnadom", "Did you mean random?"),
        (
            "cnn,metric=acuracy",
            "'acuracy', which is not a metric of lamina. Did you mean accuracy?",
        ),
        ("cnn,lr=1,lr=2", "'cnn,lr=1,lr=2' has two values of lr. Leave out one of them."),
    ],
)
def test_a_setting_that_does_not_exist_or_fit_is_named(text, message):
    with pytest.raises(RecipeError) as error:
        parse_experiment(text)
    assert message in str(error.value)


def test_a_run_a_study_and_a_net_are_found_by_name(tmp_path):
    run = start_run(DATA, NET, RECIPE, name="first,lr=1", runs_dir=tmp_path)
    assert find_source("first,lr=1", tmp_path).origin.path == run.path
    path = run.path.rename(tmp_path / "first")
    changed = find_source("first,lr=0.5", tmp_path)
    assert (changed.title, changed.values) == (f"{path},lr=0.5", {"lr": 0.5})
    experiment, _ = make_experiment(changed, DATA, as_net_choice)
    assert (experiment.net.net, experiment.recipe.lr) == (NET.with_outputs(3), 0.5)
    (tmp_path / "cv").mkdir()
    (tmp_path / "cv" / "study.json").write_text("{}")
    path.rename(tmp_path / "cv" / "fold-1")
    with pytest.raises(RunError, match=r"cv is a study\. Use one of its runs, such as .*cv/fold-1"):
        find_source("cv", tmp_path)
    (tmp_path / "cv" / "fold-1").rename(tmp_path / "cv" / "final")  # as of a cross-validation
    assert find_source("cv,lr=0.5", tmp_path).title == f"{tmp_path / 'cv' / 'final'},lr=0.5"
    with pytest.raises(RunError, match=r"There is no run or net 'cnnn'\. Did you mean cnn\?"):
        find_source("cnnn,lr=0.5", tmp_path)


def test_a_variant_has_a_name_a_recipe_and_own_functions(tmp_path):
    recipe = Recipe(epochs=3, lr=0.5)
    parts = Parts(loss=nn.CrossEntropyLoss())
    source = find_source(Variant("mine", Net(Flatten(), Output()), recipe, parts), tmp_path)
    assert source.title == "mine"
    assert source.is_changed
    experiment, _ = make_experiment(source, DATA, as_net_choice)
    assert (experiment.recipe, experiment.parts) == (recipe, parts)
    article = find_source(Variant("article", "cnn", "article"), tmp_path)
    assert make_experiment(article, DATA, as_net_choice)[0].recipe == load_recipe("cnn", "article")
    best = find_source(Variant("best", "cnn:best,lr=0.5"), tmp_path)
    assert (best.origin, best.recipe, best.values) == ("cnn", "best", {"lr": 0.5})


def test_own_functions_replace_settings_of_a_named_recipe_alone(tmp_path):
    smooth = replace(load_recipe("cnn", "best"), label_smoothing=0.2)
    choice = NetChoice("mine", Net(Flatten(), Output()), {"smooth": smooth})
    parts = Parts(loss=nn.CrossEntropyLoss())
    named, _ = fit_experiment(Request(choice, "smooth", parts=parts), DATA)
    assert (named.recipe.label_smoothing, named.parts) == (0.0, parts)
    plain, _ = fit_experiment(Request(choice, smooth, parts=parts), DATA)
    assert plain.recipe == smooth  # which training refuses
    with pytest.raises(
        RecipeError, match=r"label_smoothing is 0\.2, but one of your own parts replaces it"
    ):
        Candidate.of(plain).time()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "cnn"), "name is ''; it must be one line"),
        (("mine", "cnn", 1), "recipe must be a Recipe"),
        (("mine", "cnn", None, 1), "parts must be your own functions"),
        (("mine", "cnn:best", "article"), "mine has two recipes"),
    ],
)
def test_a_variant_that_does_not_fit_is_refused(tmp_path, arguments, message):
    with pytest.raises(LaminaError, match=message):
        find_source(Variant(*arguments), tmp_path)


def test_a_run_with_own_functions_is_repeated_with_them_alone(tmp_path):
    parts = Parts(loss=nn.CrossEntropyLoss())
    run = start_run(DATA, NET, RECIPE, parts=parts, name="first", runs_dir=tmp_path)
    with pytest.raises(RunError, match=r"pass your own functions, as in Variant"):
        make_experiment(find_source(run, tmp_path), DATA, as_net_choice)
    source = find_source(Variant("again", run, parts=parts), tmp_path)
    assert make_experiment(source, DATA, as_net_choice)[0].parts == parts


def test_a_folder_with_parentheses_is_a_run(tmp_path):
    folder = tmp_path / "Dropbox (Personal)" / "net.py"
    run = start_run(DATA, NET, RECIPE, name="first", runs_dir=folder)
    for source in (run.path, str(run.path), "first"):
        assert find_source(source, folder).origin.path == run.path
    assert find_source(f"{run.path},lr=0.5", folder).values == {"lr": 0.5}
    with pytest.raises(RunError, match="There is no run in"):
        find_source(folder / "second", folder)


def test_the_device_of_a_command_is_no_part_of_a_name(tmp_path):
    run = start_run(DATA, NET, RECIPE, name="first,lr=1", runs_dir=tmp_path)
    options = StudyOptions(runs_dir=tmp_path, device="cpu")
    (source, net) = find_sources(["first,lr=1", "cnn,device=cuda"], options)
    assert (source.origin.path, source.values) == (run.path, {"device": "cpu"})
    assert (net.origin, net.values) == ("cnn", {"device": "cuda"})
