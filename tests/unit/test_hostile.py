"""Nothing that lamina opens can run code."""

from __future__ import annotations

import io
import os
import pickle
import re
import tarfile
from pathlib import Path

import pytest

import lamina
from lamina.data import load_data
from lamina.errors import DataError

SOURCE = Path(lamina.__file__).parent
LOADERS = re.compile(
    r"^ *(?:import|from) (?:_?pickle|marshal|shelve|dill|cloudpickle|joblib)\b"
    r"|(?<!safetensors\.)\btorch\.(?:hub\.|jit\.)?load\("
    r"|\bexec_module\("
    r"|\ballow_pickle=(?!False)",
    re.MULTILINE,
)
"""What could run code that it reads, beyond what ruff's rules S refuse in the source."""


def test_only_known_files_use_what_could_run_code():
    found = {}
    for file in SOURCE.rglob("*.py"):
        uses = {use.strip() for use in LOADERS.findall(file.read_text(encoding="utf-8"))}
        if uses:
            found[str(file.relative_to(SOURCE))] = uses
    assert found == {
        # Calls that a server writes to its own process
        "deploy/serve/predicting.py": {"import pickle"},
        # An error that the process itself has raised
        "studies/forks.py": {"import pickle"},
        # A file whose digest is known, with weights_only
        "training/pretrained.py": {"torch.load("},
        # A file.py that the user names on the command line
        "cli/net_argument.py": {"exec_module("},
    }


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_pickled_official_archive_runs_nothing(tmp_path, cache):
    touched = tmp_path / "touched"
    path = tmp_path / "cifar-10-python.tar.gz"
    data = pickle.dumps({b"label_names": Call(os.system, f"touch {touched}")}, 2)
    with tarfile.open(path, "w:gz") as archive:
        for name in ("batches.meta", "data_batch_1", "test_batch"):
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with pytest.raises(DataError, match=r"which may run code\. Use cifar-10-binary\.tar\.gz"):
        load_data(str(path))
    assert not touched.exists()
    assert not list(cache.glob("*/pixels"))
