"""``start_run`` and ``Run.iter_train`` in a script, a thread or a notebook, resumed exactly."""

from __future__ import annotations

import dataclasses
import json
import threading

import numpy as np
import pytest
import torch
from torch import nn

from lamina import Epoch, Net, Recipe, Report, Step, evaluate, load_data, load_run, start_run
from lamina.data import Dataset, Images
from lamina.errors import DataError, LaminaWarning, RunError
from lamina.nets import BatchNorm, Conv2d, Dropout, Flatten, Linear, Output, ReLU
from lamina.runs.differences import find_changes
from lamina.runs.run import Run, make_training
from lamina.training.events import Resumed
from support.runs import DATA, NET, RECIPE, digests, refuses, train


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was trained without a break."""
    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path_factory.mktemp("straight"))
    run.train(progress=False)
    return run


@pytest.mark.parametrize(("stop", "again"), [(1, "same run"), (3, "read again"), (5, "same run")])
def test_a_loop_left_anywhere_ends_with_the_same_weights(stop, again, straight, tmp_path):
    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path)
    for count, _ in enumerate(run.iter_train(), start=1):
        if count == stop:
            break
    if again == "read again":
        run = load_run(run.path)
    for _ in run.iter_train(data=DATA):
        pass
    assert digests(run) == digests(straight)
    assert run.report.score == straight.report.score
    assert {file.name for file in run.path.iterdir()} == {
        file.name for file in straight.path.iterdir()
    }


def test_an_exception_in_the_loop_leaves_a_whole_run_and_no_lock(tmp_path):
    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path)
    with pytest.raises(ZeroDivisionError):
        for event in run.iter_train():
            if isinstance(event, Step) and event.epoch == 2:
                1 / 0  # noqa: B018
    assert run.folder.read_checkpoint().standing.steps_done == 4
    assert run.load_model().in_shape == (3, 6, 6)
    first = next(iter(run.iter_train()))
    assert first == Resumed(steps_done=4, epochs_done=1, epochs=2)


def test_events_come_after_saving_and_test_is_evaluated_once(tmp_path):
    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path, name="first")
    events = []
    for event in run.iter_train():
        if isinstance(event, Epoch):
            assert run.folder.read_epochs()[-1]["epoch"] == event.epoch
        events.append(type(event) if not isinstance(event, Report) else event.split)
    assert events == [Step, Step, Epoch, Step, Step, Epoch, "test"]
    assert run.report == evaluate_again(run)
    assert repr(run) == f"Run('{run.path}': net on pets, epochs 2/2, test {run.report.score})"
    html = Run(tmp_path / "<b>", run.record)._repr_html_()
    assert (
        f"<b>Run(&#39;{tmp_path}/&lt;b&gt;&#39;: net on pets, epochs 0/2, not finished)</b>" in html
    )
    assert run.report.headline() in run._repr_html_()
    assert run.history["epoch"].to_list() == [1, 2]


def test_val_is_evaluated_each_epoch_and_test_after_the_last(tmp_path):
    data = dataclasses.replace(DATA, val=dataclasses.replace(DATA.test.take(range(6)), split="val"))
    run = start_run(data, NET, RECIPE, runs_dir=tmp_path)
    reports = [event for event in run.iter_train() if isinstance(event, Report)]
    assert [report.split for report in reports] == ["val", "val", "test"]
    rows = run.folder.read_epochs()
    assert [row["val_accuracy"] for row in rows] == [report.score.value for report in reports[:2]]
    assert not any("test" in name for row in rows for name in row)
    without_test = start_run(dataclasses.replace(data, test=None), NET, RECIPE, runs_dir=tmp_path)
    reports = [event for event in without_test.iter_train() if isinstance(event, Report)]
    assert [report.split for report in reports] == ["val", "val", "val"]
    assert without_test.report == reports[-1]


def test_a_large_val_is_evaluated_after_fewer_epochs(tmp_path):
    # 12 training images make up for 7.2 of val
    many = DATA.test.take(np.arange(30, dtype=np.int64) % 12)
    data = dataclasses.replace(DATA, val=dataclasses.replace(many, split="val"))
    run = start_run(data, NET, dataclasses.replace(RECIPE, epochs=11), runs_dir=tmp_path)
    straight = train(run)
    assert [row["epoch"] for row in run.folder.read_epochs() if "val_accuracy" in row] == [
        5,
        10,
        11,
    ]
    other = start_run(data, NET, dataclasses.replace(RECIPE, epochs=11), runs_dir=tmp_path)
    for event in other.iter_train():
        if isinstance(event, Epoch) and event.epoch == 4:
            break
    assert train(other) == straight
    timeless = [
        [
            {name: value for name, value in row.items() if "second" not in name}
            for row in each.folder.read_epochs()
        ]
        for each in (run, other)
    ]
    assert timeless[0] == timeless[1]


def test_the_end_is_evaluated_exactly_and_epochs_as_trained(tmp_path):
    net = Net(Conv2d(8, kernel_size=3), BatchNorm(), ReLU(), Flatten(), Output())
    val = DATA.test.take(np.arange(120, dtype=np.int64) % 12)
    data = dataclasses.replace(DATA, train=val, val=dataclasses.replace(val, split="val"))
    reports = {}
    for precision in ("fp32", "bf16"):
        recipe = dataclasses.replace(RECIPE, precision=precision, epochs=1)
        run = start_run(data, net, recipe, runs_dir=tmp_path)
        reports[precision] = [event for event in run.iter_train() if isinstance(event, Report)]
        exact = evaluate(run.load_model(), data.val)
        assert (reports[precision][0].loss == exact.loss) == (precision == "fp32")
        assert reports[precision][0].loss == pytest.approx(exact.loss, rel=0.02)
        assert reports[precision][1].loss == evaluate(run.load_model(), data.test).loss


def test_a_training_left_after_its_last_epoch_is_evaluated(tmp_path):
    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path)
    for event in run.iter_train():
        if isinstance(event, Epoch) and event.epoch == event.epochs:
            break
    assert run.report is None
    weights = (run.path / "model.safetensors").read_bytes()
    events = list(load_run(run.path).iter_train(data=DATA))
    assert [type(event) for event in events[:-1]] == [Resumed]
    assert events[-1].split == "test"
    assert run.report == events[-1]
    assert (run.path / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("steps", [3, 4], ids=["after an epoch", "within one"])
def test_a_stopped_training_is_evaluated_and_can_go_on(steps, straight, tmp_path):
    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path)
    for count, _ in enumerate(run.iter_train(), start=1):
        if count == steps:
            break
    report = run.evaluate()
    assert report == run.report == evaluate_again(run)
    events = load_run(run.path).iter_train(data=DATA)
    assert next(events) == Resumed(steps_done=steps, epochs_done=1, epochs=2)
    assert [event.epoch for event in events if isinstance(event, Epoch)] == [2]
    assert digests(run) == digests(straight)
    assert run.report.score == straight.report.score


def test_a_report_goes_when_the_weights_that_it_is_about_do(tmp_path):
    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path)
    events = run.iter_train()
    assert [type(next(events)) for _ in range(3)] == [Step, Step, Epoch]
    events.close()
    run.evaluate()
    events = run.iter_train()
    assert [type(next(events)) for _ in range(3)] == [Resumed, Step, Step]
    events.close()
    assert run.report is None


def test_a_run_on_other_data_or_in_training_is_not_evaluated(tmp_path):
    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path)
    with pytest.raises(RunError, match=r"model\.safetensors is missing"):
        run.evaluate()
    events = run.iter_train()
    next(events)
    with pytest.raises(RunError, match="is being trained by another"):
        run.evaluate()
    events.close()
    with pytest.raises(RunError, match="pets has changed since"):
        run.evaluate(data=dataclasses.replace(DATA, fingerprint="def456"))


def evaluate_again(run: Run) -> Report:
    report = evaluate(run.load_model(), DATA.test)
    return dataclasses.replace(
        report, seconds=run.report.seconds, data_name=DATA.name, data_fingerprint=DATA.fingerprint
    )


def test_a_run_is_trained_by_one_loop_at_a_time(tmp_path):
    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path)
    loop = run.iter_train()
    next(loop)
    with refuses(
        f"{run.path} is being trained by another process, another thread or an open iterator. Wait"
        " until it finishes, or stop it (close() the iterator of run.iter_train())."
    ):
        next(run.iter_train())
    closer = threading.Thread(target=loop.close)
    closer.start()
    closer.join()
    assert len(train(run)) == 2


def own_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def test_an_own_module_is_copied_and_resumed(tmp_path):
    module = own_module()
    before = module[1].weight.clone()
    straight = start_run(DATA, module, RECIPE, runs_dir=tmp_path)
    expected = train(straight)
    assert torch.equal(module[1].weight, before)
    run = start_run(DATA, module, RECIPE, runs_dir=tmp_path)
    for event in run.iter_train():
        if isinstance(event, Epoch):
            break
    with pytest.raises(
        RunError, match=r"Pass it again with load_run\(path, module=Sequential\(…\)\)\."
    ):
        next(load_run(run.path).iter_train(data=DATA))
    for _ in load_run(run.path, module=own_module()).iter_train(data=DATA):
        pass
    assert digests(run) == expected
    predicted = run.predictor().probabilities(DATA.test.pixels)
    assert np.array_equal(predicted, straight.predictor().probabilities(DATA.test.pixels))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_run_of_a_gpu_continues_where_there_is_none(tmp_path):
    run = start_run(DATA, NET, RECIPE, runs_dir=tmp_path)
    file = run.path / "run.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"device": {"value": "cuda", "reason": "found"}}))
    run = load_run(run.path)
    with pytest.warns(
        LaminaWarning,
        match=r"^device was cuda and is now cpu; the last bits of the weights may differ",
    ):
        for _ in run.iter_train(data=DATA):
            pass
    assert load_run(run.path).record.device.value == "cuda"
    assert run.evaluate(data=DATA).score == run.report.score
    assert [change.what for change in find_changes(run.record)] == ["device"]
    assert make_training(run, DATA).device.value == "cpu"


def test_arrays_in_memory_have_to_be_given_again(tmp_path):
    images = Dataset("mine", "abc123", DATA.train)
    run = start_run(images, NET, RECIPE, runs_dir=tmp_path)
    assert len(train(run)) == 2
    with pytest.raises(DataError, match=r"was trained on arrays in memory\. Pass them again"):
        next(load_run(run.path).iter_train())


def test_images_are_predicted_as_a_table(image_set, tmp_path):
    run = start_run(
        load_data(image_set),
        Net(Flatten(), Output()),
        Recipe(epochs=10, lr=0.01),
        runs_dir=tmp_path / "runs",
    )
    train(run)
    (tmp_path / "broken.png").write_bytes(b"no image")
    table = run.predict([image_set / "test" / "dark", str(tmp_path / "*.png")])
    assert len(table) == 11
    assert {prediction.predicted for prediction in table[:10]} == {"dark"}
    lines = repr(table).splitlines()
    assert lines[0].split() == ["image", "predicted"]
    assert "0.png" in lines[1]
    assert " dark " in lines[1]
    assert "could not be read" in lines[-1]
    assert table._repr_html_().count("<img ") == 10
    assert len(run.predict(image_set / "test" / "dark" / "0.png")) == 1


def unlabelled(split: str, some: bool) -> Images:
    images = DATA.train
    targets = np.zeros((len(images), 2), dtype=bool)
    targets[::2, 0] = targets[::3, 1] = some
    return Images(images.pixels, targets, ("furry", "winged"), images.names, split)


def test_a_split_without_any_label_cannot_be_scored(tmp_path):
    splits = {
        "train": unlabelled("train", True),
        "val": unlabelled("val", False),
        "test": unlabelled("test", True),
    }
    run = start_run(
        Dataset("pets", "abc", **splits),
        Net(Flatten(), Linear(4), BatchNorm(), ReLU(), Output()),
        RECIPE,
        runs_dir=tmp_path,
    )
    with pytest.warns(
        LaminaWarning, match=r"^val cannot be scored: None of the val images has a label"
    ) as warned:
        run.train(progress=False)
    assert len(digests(run)) == 2
    assert len(warned) == 1
    assert run.report.split == "test"


def test_trainings_in_two_threads_give_the_weights_of_either(tmp_path):
    net = Net(Flatten(), Linear(50), ReLU(), Dropout(0.5), Output())

    def begin(name: str) -> Run:
        return start_run(
            DATA,
            net,
            Recipe(epochs=4, batch_size=2, precision="fp32"),
            runs_dir=tmp_path,
            name=name,
        )

    alone = train(begin("alone"))
    runs = [begin("first"), begin("second")]
    threads = [threading.Thread(target=run.train, kwargs={"progress": False}) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [digests(run) for run in runs] == [alone, alone]


def test_a_run_on_images_in_memory_alone_has_no_score(tmp_path):
    images = Images.from_arrays(DATA.train.pixels, DATA.train.targets, DATA.train.target_names)
    run = start_run(images, NET, RECIPE, runs_dir=tmp_path, name="arrays")
    assert "not finished" in repr(run)
    run.train(progress=False)
    assert "no score" in repr(run)
    assert "not finished" not in repr(load_run(run.path))
