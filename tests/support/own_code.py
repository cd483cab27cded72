"""A module, a loss and a function that makes the module, in a file that changes."""

from __future__ import annotations

import importlib
import linecache
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = """
from torch import nn
from torch.nn import functional


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(108, 3)

    def forward(self, images):
        return self.linear(images.flatten(1))


def weigh(logits, targets):
    return functional.cross_entropy(logits, targets)


def make():
    return Own()
"""
LOSS = ("return functional", "return 2 * functional")
MODULE = ("images.flatten(1)", "images.flip(3).flatten(1)")
MAKER = ("return Own()", "return nn.Sequential(Own())")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The file ``own_code.py``, imported."""
    (tmp_path / "own_code.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module("own_code")
    del sys.modules["own_code"]


def rewrite(own: ModuleType, before: str, after: str) -> None:
    """Change the file, and import it again."""
    Path(str(own.__file__)).write_text(SOURCE.replace(before, after))
    linecache.checkcache()
    importlib.invalidate_caches()
    importlib.reload(own)
