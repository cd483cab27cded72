"""Nothing that lamina opens can run code: in its source, and while it works."""

from __future__ import annotations

import ast
import dataclasses
import io
import os
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import lamina
from lamina.data import load_data
from lamina.errors import DataError, RunError
from lamina.files import lock_folder
from support import forking
from support.images import write_images
from support.runs import start

SOURCE = Path(lamina.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
UNPICKLING = {
    "pickle",
    "_pickle",
    "cPickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "dbm",
}
RUNNING = {"eval", "exec", "compile", "__import__"}
LOADING = {
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "torch.package.PackageImporter",
    "yaml.load",
    "os.system",
    "os.popen",
}


def find_dangers(tree: ast.AST) -> Iterator[str]:
    """What in a file's source could run what it reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                f"import {name.name}"
                for name in node.names
                if name.name.partition(".")[0] in UNPICKLING
            )
        elif (
            isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in UNPICKLING
        ):
            yield f"from {node.module} import"
        elif isinstance(node, ast.Call):
            yield from find_dangerous_call(node)


def find_dangerous_call(node: ast.Call) -> Iterator[str]:
    function = node.func
    if isinstance(function, ast.Name) and function.id in RUNNING:
        yield f"{function.id}()"
    if isinstance(function, ast.Attribute):
        if ast.unparse(function) in LOADING:
            yield f"{ast.unparse(function)}()"
        if function.attr == "exec_module":
            yield "exec_module()"
    for keyword in node.keywords:
        is_false = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        if keyword.arg in ("allow_pickle", "shell") and not is_false:
            yield f"{keyword.arg}="


@pytest.mark.parametrize(
    ("text", "danger"),
    [
        ("import pickle", "import pickle"),
        ("from shelve import open", "from shelve import"),
        ("eval(x)", "eval()"),
        ("torch.load(f)", "torch.load()"),
        ("torch.jit.load(f)", "torch.jit.load()"),
        ("np.load(f, allow_pickle=True)", "allow_pickle="),
        ("np.load(f, allow_pickle=flag)", "allow_pickle="),
        ("subprocess.run(c, shell=True)", "shell="),
    ],
)
def test_the_search_finds_what_it_is_for(text, danger):
    assert list(find_dangers(ast.parse(text))) == [danger]


@pytest.mark.slow
def test_nothing_in_the_source_unpickles_or_evaluates_but_what_is_known():
    found = {
        str(file.relative_to(SOURCE)): dangers
        for file in FILES
        if (dangers := sorted(set(find_dangers(ast.parse(file.read_text(encoding="utf-8"))))))
    }
    assert found == {
        "__main__.py": ["exec()"],  # of an empty string
        "data/sources/cifar.py": [
            "import pickle"
        ],  # for the restricted unpickler alone, as the next test has it
        "deploy/web/torch_process.py": [
            "import pickle"
        ],  # for calls that a server writes to its own process
        "studies/forks.py": ["import pickle"],  # of an error that the process itself has raised
        "training/pretrained.py": [
            "torch.load()"
        ],  # of a file whose digest is known, with weights_only
        "cli/net_argument.py": [
            "exec_module()"
        ],  # a file.py that the user names on the command line
    }


def test_pickle_is_used_for_the_restricted_unpickler_alone():
    tree = ast.parse((SOURCE / "data" / "sources" / "cifar.py").read_text(encoding="utf-8"))
    uses = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"
    ]
    assert {use.attr for use in uses} == {"_Unpickler", "STOP"}
    (unpickler,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and "pickle._Unpickler" in map(ast.unparse, node.bases)
    )
    assert "find_class" in {
        item.name for item in unpickler.body if isinstance(item, ast.FunctionDef)
    }


# An audit hook sees every name that any unpickler looks up, wherever it is called from.
AUDITED = """
import sys
found = []
from lamina.cli import main
from lamina.data.sources import cifar
import lamina.drawing, torch._dynamo
def audit(event, arguments):
    if event == "pickle.find_class":
        found.append(arguments)
sys.addaudithook(audit)
source, image = sys.argv[1:]
net = "Flatten(), Linear(4), ReLU(), Output()"
statuses = [
    main(["train", net, "--data", source, "--epochs", "1", "--name", "run"]),
    main(["train", "--start-from", "runs/run@1", "--epochs", "2"]),
    main(["reproduce", "runs/run"]),
    main(["evaluate", "runs/run"]),
    main(["predict", "runs/run", image]),
    main(["runs", "--diff", "runs/run", "runs/run"]),
]
print(statuses, found)
"""


@pytest.mark.slow
def test_no_command_unpickles_anything(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", 12)
    arguments = [str(tmp_path / "images"), str(tmp_path / "images" / "dark" / "0.png")]
    done = forking.run(*arguments, code=AUDITED)
    assert done.stdout.splitlines()[-1:] == ["[0, 0, 0, 0, 0, 0] []"], done.stderr


@pytest.mark.skipif(os.name == "nt", reason="few accounts of Windows may make links")
@pytest.mark.parametrize(
    "name", [".lock", ".owner", "history.jsonl", "run.json", "state.safetensors"]
)
def test_a_link_in_a_run_is_refused_before_anything_is_written_through_it(name, tmp_path):
    run, training = start(tmp_path)
    run.folder.save_checkpoint(training.checkpoint())
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).symlink_to(mine)
    with pytest.raises(RunError) as refused, lock_folder(run.path):
        pass
    assert (
        str(refused.value)
        == f"{run.path / name} is a link to {mine}, and training would overwrite its target."
        " Replace the link with the file itself, or delete the link."
    )
    assert mine.read_text() == "mine"
    assert (run.path / name).is_symlink()


@pytest.mark.skipif(os.name == "nt", reason="few accounts of Windows may make links")
def test_a_link_that_comes_while_a_run_is_trained_is_not_written_through(tmp_path):
    run, training = start(tmp_path)
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    record = run.record
    with lock_folder(run.path):
        for name in ("history.jsonl", "run.json", "model.safetensors", "state.safetensors"):
            (run.path / name).unlink(missing_ok=True)
            (run.path / name).symlink_to(mine)
        with pytest.raises(OSError, match=r"history\.jsonl"):
            run.folder.history.append({"epoch": 1})
        run.folder.save_model(training.model)
        run.folder.save_checkpoint(training.checkpoint())
        run.folder.write_record(dataclasses.replace(record, net_name="other"))
    assert mine.read_text() == "mine"


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_malicious_official_archive_runs_nothing_and_writes_nothing(tmp_path, cache):
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
