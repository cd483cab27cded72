"""A data set larger than memory is mapped, trained on and evaluated without being copied."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="how a process's memory is limited differs"
)

# Nothing is allocated for the holes in these files; to read them makes pages of zeros.
BUILD = """
import numpy as np
from pathlib import Path
from lamina.data.cache import load_cached, map_pixels, split_images
from lamina.data import Dataset, Images

def build(folder, count={count}, side={side}):
    shape = (count, side, side, 3)
    train = count * 9 // 10
    with (folder / "pixels").open("wb") as file:
        some = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), np.uint8)
        file.seek((count - train) * side * side * 3)  # the training images come last
        file.write(some.tobytes())
        file.truncate(count * side * side * 3)
    names, sizes = tuple(str(n) for n in range(count)), np.full((count, 2), side, np.int32)
    pixels, targets = map_pixels(folder / "pixels", shape), np.arange(count) % 2
    digests = np.arange(2 * count).view(np.uint8).reshape(count, 16)  # without reading the pixels
    whole = Images(pixels, targets, ("a", "b"), names, "train", sizes, digests=digests)
    return Dataset("large", "0", **split_images(whole, [count - train, 0, train]))

def read_memory(what):
    return int(Path("/proc/self/status").read_text().split(what + ":")[1].split()[0]) * 1024

before = read_memory("RssAnon")
data = load_cached("large", "key", "state", build)
loaded = read_memory("RssAnon") - before
"""

# Limited is what a process may write to. The mapping is in it already, unread, and so is what
# libraries import late.
TRAIN = """
import resource
import torch
from lamina import Net, Recipe, Training, evaluate
from lamina.nets import AvgPool2d, Flatten, Output

def train_and_evaluate(train, test):
    augmentation = dict(flip="alternating", translate_px=2, cutout_px=20)
    recipe = Recipe(
        epochs=1, batch_size=50, precision="fp32", normalization="channel", **augmentation
    )
    training = Training(Net(AvgPool2d(28), Flatten(), Output()), train, recipe)
    list(training)
    evaluate(training.model, train)
    return evaluate(training.model, test)

torch.set_num_threads(1)
train_and_evaluate(data.train.take(range(100)), data.test.take(range(100)))
resource.setrlimit(resource.RLIMIT_DATA, (read_memory("VmData") + {limit}, resource.RLIM_INFINITY))
images = train_and_evaluate(data.train, data.test).images
print(data.train.pixels.nbytes // {limit}, loaded < {limit}, images)
"""


def run_script(script: str, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "LAMINA_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )


def test_a_set_of_several_times_the_memory_is_trained_on(cache: Path) -> None:
    """This fails with a copy of the pixels in any of four places.

    These are ``torch.from_numpy(images.pixels).clone()`` in ``Training``, ``file.read()`` in place
    of the map in the cache's ``map_pixels``, all images as one block in ``_channel_statistics``,
    and ``np.ascontiguousarray(pixels[:]).copy()`` in ``predict_logits``.
    """
    script = BUILD.format(count=3000, side=112) + TRAIN.format(limit=22 * 2**20)
    ran = run_script(script, cache)
    assert (ran.returncode, ran.stdout) == (0, "4 True 300\n"), ran.stderr


def test_a_set_larger_than_all_memory_is_loaded(cache: Path) -> None:
    """Linux refuses a copy-on-write map, as numpy asks for it, of more than memory and swap."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    count = 2 * memory_bytes // (2048 * 2048 * 3)
    script = (
        BUILD.format(count=count, side=2048) + "print(len(data.train), data.test.pixels[-1].max())"
    )
    ran = run_script(script, cache)
    assert (ran.returncode, ran.stdout) == (0, f"{count * 9 // 10} 0\n"), ran.stderr


def test_mapped_images_do_not_count_for_each_run_of_a_study(tmp_path):
    with (tmp_path / "images").open("wb") as file:
        file.truncate(500_000_000)
    script = f"""
import numpy as np
from lamina.studies.forks import count_fitting
alone = count_fitting()
images = np.memmap({str(tmp_path / "images")!r}, mode="r")
images.max()
print(alone, count_fitting())
"""
    done = run_script(script, tmp_path)
    assert done.returncode == 0, done.stderr
    alone, mapped = map(int, done.stdout.split())
    assert mapped > 0.8 * alone


def test_a_score_of_many_classes_needs_no_memory_for_each_class_and_image(tmp_path):
    script = """
from pathlib import Path
import torch
from lamina.evaluation.scores import measure
from lamina.training.task import Columns

def read_peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

images, classes = 20_000, 400
truth = torch.arange(images)[:, None] % classes == torch.arange(classes)
columns = Columns(truth, truth.roll(1, dims=1) | truth)
few = Columns(columns.scores[:, :2], columns.chosen[:, :2])
measure("balanced_accuracy", few, truth[:, :2])
before = read_peak()
measure("balanced_accuracy", columns, truth)
print((read_peak() - before) // 10**6)
"""
    done = run_script(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 20  # in MB; influences for each class and image are 64 MB
