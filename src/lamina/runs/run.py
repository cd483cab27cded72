"""``Run``: a folder of plain files that hold a training, its progress and its results.

They are ``run.json``, ``history.jsonl``, ``model.safetensors``, ``state.safetensors`` (the checkpoint),
``report.json``, ``answers.npz``, ``calibration.json`` and, where the splits were drawn, ``splits.json``. All but the
history, which only grows, are written under another name and renamed, so that none is ever incomplete. Nothing is
pickled or executed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lamina.data import Dataset
from lamina.data.images import Split
from lamina.errors import LaminaError, NetError, RunError, escape, plural, suggest
from lamina.evaluation.answers import REMEDY, Answers, pack_answers, unpack_answers
from lamina.evaluation.calibration import Calibration
from lamina.evaluation.pictures import find_pictures
from lamina.evaluation.predictor import Prediction, Predictor
from lamina.evaluation.reports import Report
from lamina.files import damaged, parse_object, read_bytes, write_atomically, write_json
from lamina.nets import Net
from lamina.runs.copies import bring_run
from lamina.runs.history import History, has_ended
from lamina.runs.keep import RunEvent, evaluate_run, train_run
from lamina.runs.record import RunRecord, lead_record, read_record, write_record
from lamina.runs.resume import pack_checkpoint, unpack_checkpoint
from lamina.targets import REGRESSION, SINGLE_LABEL, kind_of
from lamina.text import format_table, html_table
from lamina.training.checkpoint import Checkpoint
from lamina.training.device import choose_device
from lamina.training.group import ALONE, Group
from lamina.training.model import Model
from lamina.training.pretrained import TimmNet, import_timm
from lamina.training.task import Task
from lamina.training.tensors import read_tensors, write_tensors
from lamina.values import fields_to_json, from_json_values

SHOWN_ROWS = 50


class Predictions(list[Prediction]):
    """Predictions that print as a table."""

    def _rows(self) -> list[tuple[str, str]]:
        rows = [(prediction.name, describe(prediction)) for prediction in self[:SHOWN_ROWS]]
        return rows if len(self) <= SHOWN_ROWS else [*rows, (f"… {len(self) - SHOWN_ROWS:,} more", "")]

    def __repr__(self) -> str:
        return format_table(("image", "answer"), self._rows(), texts=2)

    def _repr_html_(self) -> str:
        return html_table(("image", "answer"), self._rows(), texts=2)


@dataclass(frozen=True)
class Run:
    """A run folder: where it is, and what its ``run.json`` held when it was read.

    Attributes:
        path: the folder.
        record: the content of ``run.json``.
        dataset: what it trains on, where this process has it.
        module: the user's own module as it was before the first step, where this process has it.
    """

    path: Path
    record: RunRecord
    dataset: Dataset | None = field(default=None, repr=False, compare=False)
    module: nn.Module | None = field(default=None, repr=False, compare=False)

    def iter_train(
        self,
        module: nn.Module | None = None,
        *,
        data: Dataset | str | Path | None = None,
        epochs: int | None = None,
        save_every_seconds: float = 60.0,
        rewind_on_nan: bool | None = None,
        on_diagnosis: str = "continue",
        group: Group = ALONE,
    ) -> Generator[RunEvent, None, None]:
        """Train from the start, or exactly from where the run was last saved.

        Yields a ``Step`` after some steps, and after each epoch its ``Report`` on ``val`` (where there is one) and
        then its ``Epoch``, once both are saved; epochs so short that saving would dominate are saved together.
        ``Resumed`` comes first when it resumes, and ``Rewind`` after a return to a checkpoint. Last comes the
        ``Report`` on ``test``, which is used then alone, or else on ``val``. However the loop is left, the run is
        whole, and calling this again continues to bit-identical weights. The run is locked meanwhile. Where
        ``Recipe.patience`` ends the training early, an ``EarlyEnd`` says so before the last ``Report``, and the run is
        finished. One also comes where a diagnosis ends it; calling this again then trains the rest.

        Args:
            module: for a user's own module, the same one, made anew; not needed where ``start_run`` was given it.
            data: the run's data set, or where it is now; by default where it was.
            epochs: of the whole training, to make it longer: with a constant schedule without warmup.
            save_every_seconds: time between checkpoints; an epoch ends with one, unless saving would dominate.
            group: the processes that train it together, all of which call this; the leader writes the run, and the
                others need not have it.
            rewind_on_nan: on NaN or infinity, return to the last checkpoint with half the lr, at most 3 times; by
                default as before.
            on_diagnosis: ``continue``, or ``stop``: end the training after a ``Diagnosis`` that is new in the run.

        Warns:
            LaminaWarning: something cannot be written or evaluated, or something differs from when the run began.

        Raises:
            LaminaError: an argument is invalid, a file is damaged, another process trains the run, or there is no
                room; what was saved before stays.
        """
        return train_run(self, module, data, epochs, save_every_seconds, rewind_on_nan, on_diagnosis, group)

    def evaluate(self, module: nn.Module | None = None, *, data: Dataset | str | Path | None = None) -> Report | None:
        """Evaluate the saved model as it is now on ``test``, else on ``val``; save report, answers and pictures.

        :meth:`iter_train` ends with this; here it is for a training that was stopped before its last epoch. ``None`` if
        there are no images that can be scored. The arguments are as for :meth:`iter_train`.

        Warns:
            LaminaWarning: a split cannot be scored.

        Raises:
            LaminaError: as :meth:`load_model`, the data is not there or has changed, or another process trains the run.
        """
        return evaluate_run(self, module, data)

    @property
    def report(self) -> Report | None:
        """The last evaluation of the saved model; ``None`` while there is none.

        Raises:
            RunError: its file is damaged.
        """
        file = self.path / "report.json"
        if not file.exists():
            return None
        values = parse_object(read_bytes(file), str(file))
        try:
            return Report.from_json(values)
        except LaminaError as error:
            raise RunError(f"{file}: {error}") from error

    @property
    def answers(self) -> dict[Split, Answers]:
        """The logits of the saved model for ``test`` and ``val``, by split; empty while there is no report.

        Raises:
            RunError: the file is damaged, or does not fit the run.
        """
        file, task = self.path / "answers.npz", self.record.task
        if not file.exists():
            return {}
        found = unpack_answers(read_bytes(file), str(file))
        for one in found.values():
            if one.logits.shape[1] != task.outputs or kind_of(one.targets) is not task.kind:
                expected = f"{plural(task.outputs, 'logit', 'logits')} an image and {task.kind} targets"
                raise damaged(str(file), f"expected {expected} of {one.split}", REMEDY)
        return found

    @property
    def calibration(self) -> Calibration | None:
        """The temperatures of the saved model's probabilities; ``None`` where it had no ``val`` to fit them to.

        Raises:
            RunError: the file is damaged.
        """
        file = self.path / "calibration.json"
        if not file.exists():
            return None
        values = parse_object(read_bytes(file), str(file), REMEDY)
        try:
            found = from_json_values(Calibration, values, "calibration")
            task = self.record.task
            if task.kind is REGRESSION:
                raise ValueError("numbers have no probabilities, and no temperatures")
            expected = 1 if task.kind is SINGLE_LABEL else task.outputs
            if len(found.temperatures) != expected:
                raise ValueError(f"expected {plural(expected, 'temperature', 'temperatures')} for {task.kind}")
        except (ValueError, LaminaError) as error:
            raise damaged(str(file), error, REMEDY) from error
        return found

    @property
    def task(self) -> Task:
        """What the saved model answers; its probabilities are calibrated if the run is.

        Raises:
            RunError: ``calibration.json`` is damaged.
        """
        calibration = self.calibration
        return self.record.task if calibration is None else self.record.task.with_temperatures(calibration.temperatures)

    @property
    def history(self) -> History:
        """The epochs so far, and the rewinds."""
        return History(self.path / "history.jsonl")

    @property
    def early_end(self) -> str | None:
        """Why the training ended before its last epoch, where ``Recipe.patience`` ended it; else ``None``."""
        rows = self.history.epochs()
        return rows[-1].get("reason") if rows else None

    def predictor(self, module: nn.Module | None = None, *, device: str = "auto") -> Predictor:
        """The trained model with everything needed to use it on pictures.

        ``module`` is as for :meth:`load_model`; ``device`` is ``auto``, ``cpu``, ``cuda`` or ``mps``.

        Raises:
            LaminaError: as :meth:`load_model`, or the device is not there.
        """
        model = self.load_model(module).to(choose_device(device).value)
        return Predictor(model, self.record.data.preparation.resize)

    def predict(self, pictures: str | Path | Iterable[str | Path]) -> Predictions:
        """The predictions for paths of pictures, folders of them, and patterns such as ``photos/*.jpg``, as a table.

        Raises:
            LaminaError: as :meth:`load_model`.
        """
        files, problems = find_pictures([pictures] if isinstance(pictures, str | Path) else list(pictures))
        not_found = (Prediction(problem.path, problem=problem.reason) for problem in problems)
        return Predictions([*self.predictor().predict(files), *not_found])

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint."""
        write_atomically(self.path / "state.safetensors", pack_checkpoint(checkpoint))

    def read_checkpoint(self) -> Checkpoint | None:
        """The last checkpoint; ``None`` if there is none yet."""
        file = self.path / "state.safetensors"
        if not file.exists():
            return None
        return unpack_checkpoint(read_bytes(file), str(file))

    def replace_record(self, record: RunRecord) -> Run:
        """Write another ``run.json``, remove report and answers, which it outdates; give the run with that record."""
        if record != self.record:
            write_record(self.path, record)
            self._remove_outdated()
        return dataclasses.replace(self, record=record)

    def save_report(self, report: Report) -> None:
        """Replace the report."""
        write_json(self.path / "report.json", report.to_json())

    def save_answers(self, answers: Sequence[Answers]) -> None:
        """Replace the answers; the report, written after them, says that they are of the saved model."""
        write_atomically(self.path / "answers.npz", pack_answers(answers))

    def save_calibration(self, calibration: Calibration | None) -> None:
        """Replace the temperatures, or remove them."""
        file = self.path / "calibration.json"
        if calibration is None:
            file.unlink(missing_ok=True)
        else:
            write_json(file, fields_to_json(calibration))

    def save_model(self, model: Model) -> None:
        """Replace the trained weights, and remove the report and answers that they outdate."""
        self._remove_outdated()
        write_tensors(self.path / "model.safetensors", model.state_dict(), {})

    def _remove_outdated(self) -> None:
        for name in ("report.json", "calibration.json", "answers.npz"):
            (self.path / name).unlink(missing_ok=True)

    def load_model(self, module: nn.Module | None = None) -> Model:
        """The trained model, on the CPU, in eval mode; its task's probabilities are calibrated if the run is.

        Args:
            module: for a user's own module, the same one, made anew; it takes the trained weights.

        Raises:
            RunError: the weights are missing, damaged or do not fit, or a module is missing.
            NetError: the net is timm's, which is not installed.
        """
        record, task = self.record, self.task
        net = self.choose_net(module)
        if isinstance(net, TimmNet):
            import_timm()
        try:
            if isinstance(net, TimmNet):
                body = net.empty_module(record.in_shape, record.task.outputs)
            elif isinstance(net, Net):
                body = net.check(record.in_shape, record.task.outputs).module(record.in_shape)
            else:
                body = deepcopy(net) if module is None else module
            model = Model(body, net=record.net, task=task, in_shape=record.in_shape, mean=record.mean, std=record.std)
        except (NetError, RuntimeError, ValueError) as error:
            raise damaged(str(self.path / "run.json"), error) from error
        weights = _read_weights(self.path / "model.safetensors", model.state_dict())
        model.load_state_dict(weights)
        return model.eval()

    def choose_net(self, module: nn.Module | None) -> Net | TimmNet | nn.Module:
        """The net that the run holds, or the user's own module: the one given, or the one this process has."""
        record = self.record
        if module is not None and record.own_module is None:
            raise RunError(f"{self.path} holds its own net, {record.net_name}. Leave out --net and module.")
        for net in (record.net, record.timm, module, self.module):
            if net is not None:
                return net
        raise RunError(
            f"{self.path} uses your own module, and lamina never runs code that a run names. "
            f"Give it again with {record.own_module}."
        )

    def _summary(self) -> dict[str, str]:
        report, rows = None, None
        with suppress(LaminaError):
            report, rows = self.report, self.history.epochs()
        return summarize_run(self, report, rows)

    def __repr__(self) -> str:
        run, net, data, score, epochs, *_ = self._summary().values()
        return escape(f"Run({run!r}: {net} on {data}, epochs {epochs}, {score})")

    def _repr_html_(self) -> str:
        summary = self._summary()
        return html_table(tuple(summary), [tuple(summary.values())], texts=4)


@dataclass(frozen=True)
class DamagedRun:
    """A folder that cannot be read as a run, and why."""

    path: Path
    problem: str


def load_run(path: str | Path) -> Run:
    """The run in a folder.

    Raises:
        RunError: there is none, or its ``run.json`` is damaged or of another format.
    """
    path = Path(path)
    if path.is_file():
        folder = path.parent if (path.parent / "run.json").exists() else "the folder that lamina train wrote"
        raise RunError(f"Expected the folder of a run, got the file {path}. Give {folder}.")
    if not path.is_dir():
        siblings = sorted(file.parent.name for file in path.parent.glob("*/run.json"))
        where = "this folder" if path.parent == Path() else path.parent
        others = f". {suggest(path.name, siblings)}" if siblings else ", nor any other. Make one with lamina train."
        raise RunError(f"There is no run {path.name} in {where}{others}")
    if not (path / "run.json").exists():
        raise RunError(f"{path} is not a run: it has no run.json. Give the folder of a run.")
    return Run(path, read_record(path))


def share_run(path: str | Path, group: Group) -> Run:
    """The run in a folder, for all processes, on whatever machine; errors as for :func:`load_run`.

    A run that only another machine has is first brought to the leader.
    """
    bring_run(Path(path), group)
    return Run(Path(path), lead_record(group, lambda: load_run(path).record))


def list_runs(folder: str | Path) -> list[Run | DamagedRun]:
    """The runs in a folder, oldest first, then the damaged ones; empty if the folder does not exist."""
    runs: list[Run] = []
    damaged_runs: list[DamagedRun] = []
    for path in sorted(Path(folder).iterdir()) if Path(folder).is_dir() else ():
        if path.is_dir() and not path.name.startswith("."):
            try:
                runs.append(load_run(path))
            except RunError as error:
                damaged_runs.append(DamagedRun(path, str(error)))
    return [*sorted(runs, key=lambda run: run.record.created), *damaged_runs]


def describe(prediction: Prediction, top: int | None = None) -> str:
    """The answer with its probability, or the ``top`` most likely classes or labels; numbers for regression."""
    answer, values = prediction.answer, prediction.values
    if answer is None:
        return f"could not be read: {prediction.problem}"
    if isinstance(answer, Mapping):
        return ", ".join(f"{name} {value:.6g}" for name, value in answer.items())
    answers = (answer,) if isinstance(answer, str) else answer
    ranked = sorted(values, key=values.__getitem__, reverse=True)
    shown = ranked[:top] if top else [name for name in ranked if name in answers]
    return ", ".join(f"{name} {100 * values[name]:.1f} %" for name in shown) or "none"


def _read_weights(file: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not file.exists():
        raise RunError(
            f"{file} is missing: the training ended before its weights were saved, or they were deleted. "
            f"Write it with lamina resume {file.parent}"
        )
    weights, _ = read_tensors(file, f"Restore it from a copy, or write it again with lamina resume {file.parent}")
    for name in sorted({*weights, *expected}):
        found, wanted = (tuple(tensors[name].shape) if name in tensors else "none" for tensors in (weights, expected))
        if found != wanted:
            raise RunError(
                f"{file} does not fit the net: for {name} expected the shape {wanted}, got {found}. "
                "Give the net that was trained, or restore the file from a copy."
            )
    return weights


def summarize_run(run: Run, report: Report | None, rows: Sequence[Mapping[str, Any]] | None) -> dict[str, str]:
    """A run's row in a table, under its heads; ``rows`` are the epochs so far, ``None`` if they cannot be read.

    A finished run has no score where it had nothing to be evaluated on.
    """
    record, wanted = run.record, run.record.recipe.epochs
    score = "no score" if rows is not None and has_ended(rows, wanted) else "not finished"
    return {
        "run": str(run.path),
        "net": record.net_name,
        "data": record.data.name,
        "score": score if report is None else f"{report.split} {report.score}",
        "epochs": f"{'?' if rows is None else len(rows)}/{wanted}",
        "parameters": f"{record.parameters:,}",
        "train seconds": f"{sum(row.get('train_seconds') or 0.0 for row in rows or ()):.1f}",
    }
