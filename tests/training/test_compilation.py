import dataclasses
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

from lamina import Net, Recipe, Training, load_data
from lamina.errors import RecipeError
from lamina.nets import BatchNorm, Conv2d, Dropout, Flatten, GlobalMaxPool, Output
from lamina.training import compilation
from lamina.training.compilation import COMPILER, Compilation, choose_compilation
from lamina.training.model import build_model

NORMED = Net(Conv2d(4, 3), BatchNorm(), Dropout(0.3), Flatten(), Output())

TRAIN_BOTH = """
import torch
from lamina import Net, Recipe, Training, load_data
from lamina.nets import BatchNorm, Flatten, Linear, Output, ReLU

net = Net(Flatten(), Linear(8), BatchNorm(), ReLU(), Output())
images = load_data("shapes").train.take(range(64))
recipes = [Recipe(epochs=2, batch_size=32, optimizer="sgd", compile=choice) for choice in ("off", "on")]
plain, compiled = (Training(net, images, recipe, device="cpu") for recipe in recipes)
for one, other in zip(list(plain), list(compiled), strict=True):
    assert abs(one.train_loss - other.train_loss) < 1e-5
for name, weight in plain.model.state_dict().items():
    assert torch.allclose(weight, compiled.model.state_dict()[name], atol=1e-5), name
assert compiled._compute is not compiled.model
print("alike")
"""


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="there is no C++ compiler here")
def test_a_compiled_net_learns_the_same():
    # In a process of its own: torch's compiler cannot see through the type checks that the tests put on every function.
    done = subprocess.run([sys.executable, "-c", TRAIN_BOTH], capture_output=True, text=True, check=False)
    assert done.stdout == "alike\n", done.stderr


def test_without_a_compiler_a_person_is_told_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(os.environ, "PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(RecipeError) as refused:
        Training(Net(Flatten(), Output()), load_data("shapes").train, Recipe(compile="on"), device="cpu")
    assert str(refused.value) == (
        f"compile was 'on', which takes a C++ compiler, but {COMPILER} is not on the PATH. "
        "Install it (Debian and Ubuntu: apt install g++), or leave compile off."
    )


def test_a_single_epoch_has_no_pictures_that_grow(monkeypatch, tmp_path):
    monkeypatch.setitem(os.environ, "PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    net = Net(Conv2d(4, 3), GlobalMaxPool(), Output())
    recipe = Recipe(epochs=1, grow_from_fraction=0.5, compile="on")
    with pytest.raises(RecipeError, match=r"^compile was 'on', which takes a C\+\+ compiler"):
        Training(net, load_data("shapes").train, recipe, device="cpu")


def test_auto_leaves_a_short_training_alone_and_trying_it_moves_nothing():
    images = load_data("shapes").train.take(range(64))
    recipe = Recipe(epochs=2, batch_size=32, seed=3)
    tried, plain = (
        Training(NORMED, images, dataclasses.replace(recipe, compile=choice), device="cpu")
        for choice in ("auto", "off")
    )
    assert tried.compilation == Compilation("off", "a training of 0 s is too short to repay compiling")
    assert tried.recipe.compile == "off"  # so that a run that goes on does not measure again
    list(tried), list(plain)
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(weight, tried.model.state_dict()[name]), name


def test_auto_without_a_compiler_goes_on_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setitem(os.environ, "PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compilation, "SHORTEST_SECONDS", 0.0)
    model = build_model(NORMED, load_data("shapes").train, Recipe())
    forward, choice = choose_compilation("auto", model, lambda forward: None, steps=1)
    assert forward is model
    assert choice == Compilation("off", f"there is no C++ compiler: {COMPILER} is not on the PATH")


MEASURE = """
import torch
from lamina import Net, Recipe, Training, load_data
from lamina.nets import BatchNorm, Flatten, Linear, Output, ReLU
from lamina.training import compilation

compilation.SHORTEST_SECONDS = 0.0
net = Net(Flatten(), Linear(8), BatchNorm(), ReLU(), Output())
images = load_data("shapes").train.take(range(64))
recipes = [Recipe(epochs=2, batch_size=32, optimizer="sgd", compile=choice) for choice in ("off", "auto")]
plain, measured = (Training(net, images, recipe, device="cpu") for recipe in recipes)
list(plain), list(measured)
for name, weight in plain.model.state_dict().items():
    assert torch.allclose(weight, measured.model.state_dict()[name], atol=1e-5), name
assert measured.recipe.compile == measured.compilation.value
assert (measured._compute is measured.model) == (measured.compilation.value == "off")
print(measured.compilation)
"""


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="there is no C++ compiler here")
def test_auto_times_both_forms_of_a_step_and_takes_the_faster():
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=False)
    told = re.fullmatch(r"(on|off) \(compiled, forward and backward run at (\d+\.\d\d)× the speed\)\n", done.stdout)
    assert told, done.stdout + done.stderr
    assert (float(told[2]) >= 1.1) == (told[1] == "on") or told[2] == "1.10"  # the reason tells it rounded


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="there is no C++ compiler here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, where it loads its compiler
@pytest.mark.parametrize(("compiled_seconds", "expected", "gain"), [(0.002, "on", 5), (0.0095, "off", 1.05)])
def test_auto_compiles_where_steps_are_clearly_faster(monkeypatch, compiled_seconds, expected, gain):
    monkeypatch.setattr(compilation, "SHORTEST_SECONDS", 0.0)
    model = build_model(NORMED, load_data("shapes").train, Recipe())
    clock = [0.0]
    monkeypatch.setattr(compilation.time, "perf_counter", lambda: clock[0])

    def try_step(forward):
        clock[0] += 0.01 if forward is model else compiled_seconds

    forward, choice = choose_compilation("auto", model, try_step, steps=100)
    assert choice == Compilation(expected, f"compiled, forward and backward run at {gain:.2f}× the speed")
    assert (forward is model) == (expected == "off")


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="there is no C++ compiler here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_auto_goes_on_where_compiling_fails(monkeypatch):
    monkeypatch.setattr(compilation, "SHORTEST_SECONDS", 0.0)
    model = build_model(NORMED, load_data("shapes").train, Recipe())

    def try_step(forward):
        if forward is not model:
            raise RuntimeError("Python.h: no such file\nand much more")

    assert choose_compilation("auto", model, try_step, steps=100) == (
        model, Compilation("off", "compiling failed: Python.h: no such file")
    )  # fmt: skip


def test_a_trial_that_fails_leaves_all_as_it_was():
    training = Training(NORMED, load_data("shapes").train.take(range(64)), Recipe(batch_size=32), device="cpu")
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}

    def fail(pixels):
        training.model(pixels)
        raise RuntimeError("the compiler has no room")

    with pytest.raises(RuntimeError, match="no room"):
        training._try_step(fail)
    for name, tensor in training.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_growing_pictures_are_not_compiled():
    model = build_model(NORMED, load_data("shapes").train, Recipe())
    _, choice = choose_compilation("auto", model, lambda forward: None, steps=100, is_growing=True)
    assert choice == Compilation("off", "pictures that grow would be compiled at each size")
    with pytest.raises(RecipeError) as refused:
        choose_compilation("on", model, lambda forward: None, steps=100, is_growing=True)
    assert str(refused.value) == (
        "compile was 'on', but grow_from_fraction shows pictures of many sizes, each of which would be compiled. "
        "Set compile to 'off', or grow_from_fraction to 0."
    )
