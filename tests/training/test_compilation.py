import os
import shutil
import subprocess
import sys

import pytest

from lamina import Net, Recipe, Training, load_data
from lamina.errors import RecipeError
from lamina.nets import Flatten, Output
from lamina.training.compilation import COMPILER

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
