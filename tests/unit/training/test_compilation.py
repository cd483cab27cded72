import os
import shutil

import pytest

from lamina import Net, Recipe, Training, load_data
from lamina.errors import RecipeError
from lamina.nets import Conv2d, Flatten, GlobalMaxPool, Output
from lamina.training.forward import find_compiler
from support import forking

TRAIN_BOTH = """
import torch
from lamina import Epoch, Net, Recipe, Training, load_data
from lamina.nets import BatchNorm, Flatten, Linear, Output, ReLU

net = Net(Flatten(), Linear(8), BatchNorm(), ReLU(), Output())
images = load_data("shapes").train.take(range(64))
recipes = [
    Recipe(epochs=2, batch_size=32, optimizer="sgd", compile=choice) for choice in (False, True)
]
plain, compiled = (Training(net, images, recipe, device="cpu") for recipe in recipes)
epochs = [
    [event for event in training if isinstance(event, Epoch)] for training in (plain, compiled)
]
for one, other in zip(*epochs, strict=True):
    assert abs(one.train_loss - other.train_loss) < 1e-5
for name, weight in plain.model.state_dict().items():
    assert torch.allclose(weight, compiled.model.state_dict()[name], atol=1e-5), name
assert compiled._forward._compute is not compiled.model
assert compiled._forward._kernels is None
print("alike")
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(find_compiler()) is None, reason="no C++: apt-get install g++")
def test_a_compiled_net_learns_the_same():
    # In a process of its own: torch's compiler cannot see through the type checks that the tests
    # put on every function. Without other threads, it starts no processes to compile in.
    environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    done = forking.run(code=TRAIN_BOTH, environment=environment)
    assert done.stdout == "alike\n", done.stderr


@pytest.mark.slow
def test_without_a_compiler_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(os.environ, "PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(RecipeError) as rejected:
        Training(
            Net(Flatten(), Output()), load_data("shapes").train, Recipe(compile=True), device="cpu"
        )
    assert (
        str(rejected.value)
        == f"compile is True, but the C++ compiler {find_compiler()} is not on the PATH. "
        "Install it (Debian and Ubuntu: apt install g++), or set compile to False."
    )


def test_a_single_epoch_has_no_progressive_resizing(monkeypatch, tmp_path):
    monkeypatch.setitem(os.environ, "PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    net = Net(Conv2d(4, 3), GlobalMaxPool(), Output())
    recipe = Recipe(epochs=1, start_size_fraction=0.5, compile=True)
    with pytest.raises(RecipeError, match=r"^compile is True, but the C\+\+ compiler"):
        Training(net, load_data("shapes").train, recipe, device="cpu")


def test_progressive_resizing_is_not_compiled():
    net, recipe = (
        Net(Conv2d(4, 3), GlobalMaxPool(), Output()),
        Recipe(start_size_fraction=0.5, compile=True),
    )
    with pytest.raises(RecipeError) as rejected:
        Training(net, load_data("shapes").train, recipe, device="cpu")
    assert (
        str(rejected.value)
        == "compile is True and start_size_fraction is 0.5; the net would be compiled again for"
        " each image size. Set compile to False or start_size_fraction to 0."
    )
