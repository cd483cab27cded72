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
        # The restricted unpickler
        "data/sources/cifar.py": {"import pickle"},
        # Calls that a server writes to its own process
        "deploy/web/torch_process.py": {"import pickle"},
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


def test_a_malicious_official_archive_runs_nothing(tmp_path, cache):
    touched = tmp_path / "touched"
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in (
            "batches.meta",
            *(f"data_batch_{number}" for number in range(1, 6)),
            "test_batch",
        ):
            data = pickle.dumps({b"label_names": Call(os.system, f"touch {touched}")}, 2)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with pytest.raises(
        DataError, match=r"batches\.meta is rejected: its pickle asks for posix\.system, which is"
    ):
        load_data(str(path))
    assert not touched.exists()
    assert not list(cache.glob("*/pixels.npy"))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"name": "../data_batch_1"}, "has '..' in its path"),
        ({"name": "/data_batch_1"}, "has an absolute path"),
        (
            {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0},
            "is a link, a device or a sparse file",
        ),
        (
            {"type": tarfile.LNKTYPE, "linkname": "other", "size": 0},
            "is a link, a device or a sparse file",
        ),
        ({"size": 2**25}, "brings the archive over a compression of 200:1"),
    ],
)
def test_a_hostile_official_archive_is_refused(change, fault, tmp_path, cache, monkeypatch):
    monkeypatch.setattr("lamina.data.sources.archive.ARRAY_FLOOR_BYTES", 2**20)
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        names = ["batches.meta", "data_batch_1"]
        for name in names:
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            for field, value in change.items() if name == names[-1] else ():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(DataError) as refused:
        load_data(str(path))
    assert f"{path} is rejected: its member " in str(refused.value)
    assert fault in str(refused.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cifar-10-python.tar.gz"]
