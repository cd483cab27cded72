"""What differs between two runs is printed, and nothing else."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lamina.evaluation.evaluating import evaluate
from lamina.kernels.library import find_kernels
from lamina.nets import Flatten, Linear, Net, Output, Tanh
from lamina.runs.differences import Difference, compare_records, compare_runs, find_changes
from lamina.runs.record import OwnModule
from lamina.runs.run import load_run
from lamina.runs.start import create_folder
from support.runs import DATA, NET, RECIPE, start
from support.trainings import follow


def finish(folder, recipe=RECIPE, net=NET):
    run, training = start(folder, recipe, net)
    for epoch in follow(training):
        row = epoch.to_json()
        run.folder.append_row(
            {name: row[name] for name in ("event", "epoch", "train_loss", "train_seconds", "lr")}
        )
    run.folder.save_report(evaluate(training.model, DATA.test))
    return run


def test_runs_of_the_same_recipe_differ_in_nothing(tmp_path):
    assert compare_runs(finish(tmp_path).folder, finish(tmp_path).folder) == []


def test_recipe_net_and_results_are_reported(tmp_path):
    first = finish(tmp_path)
    second = finish(
        tmp_path,
        dataclasses.replace(RECIPE, lr=0.01, epochs=1),
        Net(Flatten(), Linear(5), Output()),
    )
    found = {
        difference.what: (difference.first, difference.second)
        for difference in compare_runs(first.folder, second.folder)
    }
    assert found["net, layer 2"] == ("Linear(4)", "Linear(5)")
    assert found["net, layer 4"] == ("Output(units=3)", "–")
    assert found["recipe.lr"] == ("0.001", "0.01")
    assert found["recipe.epochs"] == found["epochs trained"] == ("2", "1")
    assert found["parameters"] == ("451", "563")
    assert {"last epoch.train_loss", "last epoch.lr", "report.test_loss"} <= found.keys()
    assert not any("second" in what or what in ("command", "created", "name") for what in found)
    assert not found.keys() & {"last epoch.epoch", "last epoch.epochs"}  # which have a row


def test_software_machine_threads_precision_and_data_are_reported(tmp_path):
    run = finish(tmp_path)
    record = run.record
    machine = dataclasses.replace(
        record.machine, threads=64, flags="avx amx_bf16", processor="Other"
    )
    other = dataclasses.replace(
        record,
        net=Net(Flatten(), Linear(4), Tanh(), Output(units=3)),
        data=dataclasses.replace(record.data, fingerprint="def"),
        precision=dataclasses.replace(record.precision, value="bf16", reason="measured 3.1"),
        versions=record.versions | {"torch": "1.0"},
        machine=machine,
    )
    base = dataclasses.replace(record, machine=dataclasses.replace(record.machine, flags="avx sse"))
    first, second = (load_run(create_folder(tmp_path, changed)) for changed in (base, other))
    assert compare_runs(first.folder, second.folder) == [
        Difference("net, layer 3", "ReLU()", "Tanh()"),
        Difference("data.fingerprint", "abc123", "def"),
        Difference("precision", "fp32", "bf16"),
        Difference("versions.torch", torch.__version__, "1.0"),
        Difference("machine.processor", record.machine.processor, "Other"),
        Difference("machine.flags.sse", "yes", "–"),
        Difference("machine.threads", str(torch.get_num_threads()), "64"),
        Difference("machine.flags.amx_bf16", "–", "yes"),
    ]


def test_what_says_nothing_is_not_reported(tmp_path):
    """Empty values are as good as missing ones, and shares of classes follow from the images."""
    record = start(tmp_path)[0].record
    task = dataclasses.replace(record.task, shares=(0.5, 0.25, 0.25))
    own = dataclasses.replace(record, net=None, own_module=OwnModule("", "Own"), task=task)
    names = [difference.what for difference in compare_records(record, own)]
    assert names == [*(f"net, layer {place}" for place in range(1, 5)), "own_module.name"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"threads": 64}, [Difference("machine.threads", "64", str(torch.get_num_threads()))]),
        ({"cores": 64}, []),  # says nothing of the arithmetic
    ],
)
def test_what_has_changed_since_a_run_is_reported(changes, expected, tmp_path):
    run, _ = start(tmp_path)
    record = dataclasses.replace(
        run.record, machine=dataclasses.replace(run.record.machine, **changes)
    )
    assert find_changes(record) == expected


def test_other_kernels_than_those_of_the_run_are_reported(monkeypatch, tmp_path):
    run, _ = start(tmp_path)
    level = find_kernels().level
    assert run.record.versions["kernels"] == level
    monkeypatch.setenv("LAMINA_KERNELS", "off")
    assert find_changes(run.record) == [Difference("versions.kernels", level, "off")] * (
        level != "off"
    )
