from __future__ import annotations

import dataclasses
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from lamina.data import Preparation
from lamina.errors import LaminaWarning, RunError
from lamina.evaluation.evaluating import evaluate
from lamina.files import check_name
from lamina.nets import BatchNorm, Conv2d, Flatten, Net, Output, ReLU
from lamina.runs.record import FORMAT, OwnModule, resume_command
from lamina.runs.run import find_runs, list_runs, load_run
from lamina.runs.start import create_folder
from lamina.training.checkpoint import pack_tensors
from lamina.training.loop import Training
from lamina.training.model import build_model
from support.runs import DATA, RECIPE, begin_run, edit_json, refuses
from support.trainings import finish


def own_module() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 3))


def test_what_to_type_to_resume_quotes_spaces(record):
    own = dataclasses.replace(record, net=None, own_module=OwnModule("/my nets/net.py", "make"))
    assert (
        resume_command(Path("runs/a b"), own)
        == "lamina resume 'runs/a b' --net '/my nets/net.py:make'"
    )
    assert resume_command(Path("runs/a"), record) == "lamina resume runs/a"


def test_a_record_says_what_was_trained_where_and_how(record, training):
    assert record.net == training.model.net
    assert record.recipe == RECIPE
    assert record.task == training.model.task
    assert record.in_shape == (3, 6, 6)
    assert record.parameters == 4 * 27 + 4 + 8 + 4 * 16 * 3 + 3
    assert dataclasses.astuple(record.data) == (
        "photos/pets",
        "pets",
        "abc123",
        dataclasses.astuple(Preparation(size_px=6)),
    )
    assert record.versions["torch"] == torch.__version__
    assert record.machine.threads == torch.get_num_threads()
    assert record.machine.processor
    assert (record.device.value, record.precision.value) == ("cpu", "fp32")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", record.created)


def test_a_run_is_read_as_it_was_written(run):
    assert load_run(run.path) == run
    assert run.path.name == "first"
    values = json.loads((run.path / "run.json").read_text())
    assert values["format"] == FORMAT
    assert values["net"] == run.record.net.text()
    assert values["recipe"]["seed"] == 7


def test_a_record_of_an_own_module_is_read_as_it_was_written(tmp_path, record):
    own = dataclasses.replace(record, net=None, own_module=OwnModule("my net.py", "build"))
    assert load_run(create_folder(tmp_path, own)).record == own


def test_names_are_the_date_the_net_and_the_first_free_number(tmp_path, record):
    today = record.created[:10]
    names = [create_folder(tmp_path, record).name for _ in range(3)]
    assert names == [f"{today}-tiny-1", f"{today}-tiny-2", f"{today}-tiny-3"]
    odd = dataclasses.replace(record, net_name="../my net")
    assert create_folder(tmp_path, odd) == tmp_path / f"{today}-my-net-1"


def test_runs_created_at_once_never_share_a_folder(tmp_path, record):
    barrier = threading.Barrier(8)

    def create(_: int) -> Path:
        barrier.wait()
        return create_folder(tmp_path / "runs", record)

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(create, range(8)))
    assert len(set(paths)) == 8
    assert all(load_run(path).record == record for path in paths)


def test_a_name_that_is_taken_is_rejected_and_the_run_left_alone(run, record):
    before = (run.path / "run.json").read_bytes()
    resume = f"lamina resume {run.path} (in Python, load_run({str(run.path)!r}).train())"
    with refuses(
        f"The run {run.path} already exists. Resume it with {resume}, choose another name, or"
        " delete that folder."
    ):
        create_folder(run.path.parent, record, "first")
    assert (run.path / "run.json").read_bytes() == before


NO_NAMES = [
    *("", ".", "..", "../out", "a/b", "a\\b", ".hidden", "a\nb", "C:name", "a*", "~", "a ", " a"),
    *("a.", "-a", "con", "NUL.txt", "com1"),
]


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_no_folder_has_everywhere_is_rejected(name, tmp_path, record):
    with refuses(
        f'name is {name!r}; a run name must be one line without / \\ : * ? " < > | or ~, not start'
        " with a dot, dash or space, not end with a dot or space, and not be a device such as con."
        " Use first-try."
    ):
        create_folder(tmp_path / "runs", record, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["a", "first-try", "année 2", "a.b", "console", "_x", "com", "é" * 100]
)
def test_other_names_are_accepted(name):
    check_name(name)


def test_a_folder_that_cannot_be_made_is_rejected(tmp_path, record):
    (tmp_path / "file").touch()
    with refuses(
        f"Cannot write a run to {tmp_path}/file/runs: Not a directory. Choose another folder with"
        " --runs-dir (in Python, runs_dir)."
    ):
        create_folder(tmp_path / "file" / "runs", record)


def test_a_loaded_model_gives_the_same_logits_bit_for_bit(run, training):
    run.folder.save_model(training.model)
    loaded = load_run(run.path).load_model()
    batch = torch.from_numpy(DATA.test.pixels)
    with torch.inference_mode():
        assert torch.equal(loaded(batch), training.model.eval()(batch))
    assert not loaded.training
    assert (loaded.net, loaded.task) == (training.model.net, training.model.task)
    assert sorted(file.name for file in run.path.iterdir()) == [
        ".lock",
        "model.safetensors",
        "run.json",
    ]


def test_an_own_module_is_loaded_into_a_body_of_the_caller(tmp_path):
    tied = own_module()
    tied.append(nn.Linear(3, 3, bias=False)).append(nn.Linear(3, 3, bias=False))
    tied[3].weight = tied[2].weight
    own = OwnModule("my_net.py", "build")
    begun = begin_run(tied, DATA, RECIPE, net_name="my_net", origin=own, runs_dir=tmp_path)
    run = load_run(begun.path)
    training = finish(Training(tied, DATA.train, RECIPE))
    run.folder.save_model(training.model)
    with refuses(
        f"{run.path} was trained with your own code, which the run does not store. "
        "Pass it again with --net my_net.py:build."
    ):
        run.load_model()
    body = own_module().append(nn.Linear(3, 3, bias=False)).append(nn.Linear(3, 3, bias=False))
    batch = torch.from_numpy(DATA.test.pixels)
    with torch.inference_mode():
        assert torch.equal(
            load_run(run.path, module=body).load_model()(batch), training.model.eval()(batch)
        )


def test_a_run_with_its_own_net_takes_no_other(run):
    with refuses(
        f"{run.path} contains its net, tiny. Leave out module (on the command line, --net)."
    ):
        load_run(run.path, module=own_module()).load_model()


def test_an_own_module_without_a_name_is_named_by_its_file():
    assert str(OwnModule("my_net.py", "")) == "--net my_net.py"


def test_missing_weights_are_named(run):
    with refuses(
        f"{run.path}/model.safetensors is missing; the run has not saved weights yet, or has lost"
        f" them. Train it with load_run('{run.path}').train() (on the command line, lamina resume"
        f" {run.path})."
    ):
        run.load_model()


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95 a pickle", b"\xff" * 64])
def test_weights_that_are_no_safetensors_are_rejected(content, run):
    file = run.path / "model.safetensors"
    file.write_bytes(content)
    remedy = f"Restore it from a copy, or write it again with lamina resume {run.path}"
    with pytest.raises(
        RunError, match=f"^{re.escape(str(file))} is damaged: .*{re.escape(remedy)}$"
    ):
        run.load_model()


def test_weights_of_another_net_are_rejected_by_name_and_shape(run):
    wider = Net(Conv2d(5, kernel_size=3), BatchNorm(), ReLU(), Flatten(), Output())
    run.folder.save_model(build_model(wider, DATA.train, RECIPE))
    with refuses(
        f"{run.path}/model.safetensors does not fit the net: body.0.bias has shape (5,), expected"
        " (4,). Pass the net that was trained, or restore the file from a copy."
    ):
        run.load_model()
    without_norm = Net(Conv2d(4, kernel_size=3), ReLU(), Flatten(), Output())
    run.folder.save_model(build_model(without_norm, DATA.train, RECIPE))
    with refuses(
        f"{run.path}/model.safetensors does not fit the net: body.1.bias has shape none, expected"
        " (4,). Pass the net that was trained, or restore the file from a copy."
    ):
        run.load_model()


def test_a_report_is_read_as_it_was_written(run, training):
    assert run.report is None
    report = evaluate(training.model, DATA.test)
    run.folder.save_report(report)
    assert run.report == report


def test_a_damaged_report_is_named(run, training):
    run.folder.save_report(evaluate(training.model, DATA.test))
    file = run.path / "report.json"
    edit_json(file, loss="low")
    with refuses(
        f"{file}: The report is damaged: report.loss must be a number, got 'low'. Evaluate the"
        " model again."
    ):
        _ = run.report


def test_a_mistyped_run_suggests_one_beside_it(run):
    with refuses(f"No run named frist in {run.path.parent}. Did you mean first?"):
        load_run(run.path.parent / "frist")


def test_a_name_that_is_too_long_is_no_run():
    with pytest.raises(RunError, match=r"^No run named x{300} in this folder or runs"):
        load_run("x" * 300)


def test_a_mistyped_run_among_many_names_only_some(run, record):
    for number in range(60):
        create_folder(run.path.parent, record, f"{number}")
    with pytest.raises(RunError, match=r"Choose from: 0, 1, .* and 11 more\.$"):
        load_run(run.path.parent / "zzz")


def test_a_run_is_found_by_its_name_in_runs(run, monkeypatch):
    """Also beside a folder of that name which is no run, as of the data it was trained on."""
    monkeypatch.chdir(run.path.parent.parent)
    runs_dir = Path(run.path.parent.name)
    Path("first").mkdir()
    assert load_run("first", runs_dir=runs_dir).path == runs_dir / "first"
    with refuses(f"No run named frist in this folder or {runs_dir}. Did you mean first?"):
        load_run("frist", runs_dir=runs_dir)
    monkeypatch.chdir(run.path.parent)
    assert load_run("first").path == Path("first")


def test_a_damaged_run_does_not_stop_the_listing(tmp_path, record):
    assert find_runs(tmp_path / "runs") == ([], {})
    newer = load_run(
        create_folder(
            tmp_path, dataclasses.replace(record, created="2026-02-01T00:00:00+00:00"), "a"
        )
    )
    older = load_run(
        create_folder(
            tmp_path, dataclasses.replace(record, created="2026-01-01T00:00:00+00:00"), "b"
        )
    )
    (tmp_path / "plots").mkdir()
    (tmp_path / "notes.txt").touch()
    assert find_runs(tmp_path) == ([older, newer], {})
    for name in ("damaged", ".hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{")
    runs, problems = find_runs(tmp_path)
    assert runs == [older, newer]
    assert list(problems) == [tmp_path / "damaged"]
    with pytest.warns(LaminaWarning, match="Skipped a damaged run: .*/damaged/run.json is damaged"):
        assert list_runs(tmp_path) == [older, newer]


def test_a_checkpoint_is_read_as_it_was_saved(run, training):
    assert run.folder.read_checkpoint() is None
    checkpoint = training.checkpoint()
    run.folder.save_checkpoint(checkpoint)
    found = run.folder.read_checkpoint()
    assert found.standing == checkpoint.standing
    assert found.tensors.keys() == checkpoint.tensors.keys()
    assert all(
        torch.equal(found.tensors[name], tensor) for name, tensor in checkpoint.tensors.items()
    )


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (
            lambda file: file.write_bytes(file.read_bytes()[:-9] + bytes(9)),
            "its digest does not match its content",
        ),
        (
            lambda file: file.write_bytes(pack_tensors({}, {"steps_done": 1})),
            (
                "checkpoint lacks the field 'steps_per_epoch'; its fields are steps_done,"
                " steps_per_epoch, images, loss, correct, seconds, start_loss,"
                " start_norm, optimizer, knots"
            ),
        ),
    ],
    ids=["overwritten", "other values"],
)
def test_a_damaged_checkpoint_is_named_with_its_remedy(damage, why, run, training):
    run.folder.save_checkpoint(training.checkpoint())
    file = run.path / "state.safetensors"
    damage(file)
    with refuses(
        f"{file} is damaged: {why}. Restore it from a copy, or delete it and history.jsonl "
        "and start over with lamina resume."
    ):
        run.folder.read_checkpoint()


def test_a_run_is_shown_though_its_record_is_gone(run):
    shown = repr(run)
    run.folder.record_file.unlink()
    assert repr(run) == shown
    with refuses(f"{run.folder.record_file} does not exist. Check the path, or restore the file."):
        run.folder.read_record()


def test_what_a_kill_left_of_a_new_run_does_not_take_its_name(tmp_path, record):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "splits.json").write_text("{}")
    (tmp_path / "first" / ".run.json.0a1b2c3d").write_text("{")
    assert find_runs(tmp_path) == ([], {})
    assert load_run(create_folder(tmp_path, record, "first")).record == record


def test_a_folder_with_other_files_is_not_taken(tmp_path, record):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="first already exists"):
        create_folder(tmp_path, record, "first")
