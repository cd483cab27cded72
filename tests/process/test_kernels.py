"""The C functions in processes of their own: without them, many calls, and a sanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lamina
from support import forking
from support.built_kernels import load

SOURCES = Path(lamina.__file__).parent / "kernels"
MEASURE = """
import resource, sys, torch
from lamina.kernels.library import load_kernels
from torch import nn
from lamina.kernels.norm_act import NormAct
layers = [nn.MaxPool2d(2), nn.BatchNorm2d(33), nn.ReLU()]
joined = NormAct(layers, load_kernels())
x = torch.randn(2, 33, 9, 9).contiguous(memory_format=torch.channels_last).requires_grad_()
for step in range(11_000):
    if step == 1_000:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    joined(x).sum().backward()
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown * (1 if sys.platform == "darwin" else 1024))
"""


def test_ten_thousand_calls_leak_nothing() -> None:
    load()
    result = forking.run(code=MEASURE)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 10_000 * 100  # a lost buffer has 1,300 bytes


def test_without_the_library_torch_computes_the_layers(tmp_path: Path) -> None:
    shutil.copytree(
        SOURCES.parent, tmp_path / "lamina", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    # a library that another version of lamina compiled
    (tmp_path / "lamina" / "kernels" / "native.abi3.so").touch()
    program = (
        "from lamina import *; from lamina.kernels.library import find_kernels;"
        " print(find_kernels().reason);"
        " images = load_data('shapes').train.take(range(50));"
        " print(len(list(Training(load_net('cnn'), images, Recipe(epochs=1)))))"
    )
    # A new interpreter draws all shapes, which must not be taken for the few of the tests.
    cache = tmp_path / "cache"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "LAMINA_CACHE": str(cache)}
    environment.pop("LAMINA_KERNELS", None)
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "lamina was installed without its C functions\n1\n", result.stderr


@pytest.mark.nightly  # gcc compiles all C functions; their numbers are tested on each change
def test_no_function_leaves_its_buffers_or_the_standard(tmp_path: Path) -> None:
    load()
    if (compiler := shutil.which("gcc")) is None:
        pytest.skip("no gcc: apt-get install gcc")
    program, driver = str(tmp_path / "program"), str(Path(__file__).with_name("sanitized.c"))
    flags = [
        "-std=c11",
        "-O0",
        "-g",
        "-Wall",
        "-Wextra",
        "-Wconversion",
        "-Werror",
        "-Wno-psabi",
        "-ffp-contract=off",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover",
        f"-I{SOURCES}",
    ]
    built = subprocess.run(
        [compiler, *flags, "-o", program, driver, "-lm"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "cannot find" in built.stderr:
        pytest.skip("gcc has no library for -fsanitize=address,undefined")
    assert not built.stderr
    result = subprocess.run([program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(" calls\n")
