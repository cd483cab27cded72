"""The run folder: what a training was, how it went and what came of it, in plain files.

A run holds ``run.json``, ``history.jsonl``, ``model.safetensors``, ``state.safetensors`` (the checkpoint),
``report.json`` and, where the splits were drawn, ``splits.json``. All but the history, which only grows, are written
under another name and renamed, so that none is ever incomplete. Nothing is pickled or executed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from lamina.data import Dataset
from lamina.errors import LaminaError, NetError, RunError, suggest
from lamina.evaluation import Predictor
from lamina.evaluation.reports import Report
from lamina.files import damaged, lock_folder, parse_object, read_bytes, write_json
from lamina.runs.history import History
from lamina.runs.keep import Event, train_run
from lamina.runs.predictions import Predictions, predict_paths
from lamina.runs.record import RunRecord, read_record, write_record
from lamina.runs.resume import NO_CHECKPOINT
from lamina.text import html_table
from lamina.training.checkpoint import Checkpoint, Standing
from lamina.training.device import choose_device
from lamina.training.model import Model
from lamina.training.pretrained import import_timm
from lamina.training.tensors import read_tensors, write_tensors
from lamina.values import fields_to_plain, from_plain


@dataclass(frozen=True)
class Run:
    """A run folder: where it is, and what its ``run.json`` held when it was read.

    Attributes:
        path: the folder.
        record: the content of ``run.json``.
        dataset: what it trains on, where this process has it at hand.
        module: the user's own module as it was before the first step, where this process has it at hand.
    """

    path: Path
    record: RunRecord
    dataset: Dataset | None = field(default=None, repr=False, compare=False)
    module: nn.Module | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def train(
        self,
        module: nn.Module | None = None,
        *,
        data: Dataset | str | Path | None = None,
        epochs: int | None = None,
        save_every_seconds: float = 60.0,
        rewind_on_nan: bool | None = None,
    ) -> Generator[Event, None, None]:
        """Train where the run stands: from the start, or exactly from where it was last saved.

        Yields a ``Step`` after some steps, and after each epoch its ``Report`` (where there are images to evaluate on)
        and then its ``Epoch``, once both are saved; ``Resumed`` first where it resumes, and ``Rewind`` after a return
        to a checkpoint. The test set's ``Report`` ends it. However the loop is left, the run is whole, and calling
        this again continues to bit-identical weights. The run is locked meanwhile.

        Args:
            module: for a user's own module, the same one, made anew; not needed where ``start_run`` was given it.
            data: what the run trains on, or where it is now; by default where it was.
            epochs: of the whole training, if more than before: with a constant schedule without warmup.
            save_every_seconds: between two checkpoints inside an epoch; each epoch ends with one.
            rewind_on_nan: on NaN or infinity, go back to the last checkpoint with half the lr, at most 3 times; by
                default as before.

        Warns:
            LaminaWarning: something cannot be written or evaluated, or something differs from when the run began.

        Raises:
            LaminaError: something given does not fit, a file is damaged, another process trains the run, or there is no
                room; what was saved before stays.
        """
        return train_run(
            self,
            self.module if module is None else module,
            data=self.dataset if data is None else data,
            epochs=epochs,
            save_every_seconds=save_every_seconds,
            rewind_on_nan=rewind_on_nan,
        )

    @property
    def report(self) -> Report | None:
        """The final evaluation; ``None`` before the training has ended.

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
    def history(self) -> History:
        """The epochs so far, and the returns to a checkpoint."""
        return History(self.path / "history.jsonl")

    def predictor(self, module: nn.Module | None = None, *, device: str = "auto") -> Predictor:
        """The trained model with all it takes to use it on pictures.

        Args:
            module: for a user's own module, the same one, made anew.
            device: where to compute: ``auto``, ``cpu``, ``cuda`` or ``mps``.

        Raises:
            LaminaError: as :meth:`load_model`; or the device is not there.
        """
        model = self.load_model(module).to(choose_device(device).value)
        return Predictor(model, self.record.data.preparation.resize)

    def predict(self, pictures: str | Path | Iterable[str | Path]) -> Predictions:
        """What the model says about pictures, as a table.

        Args:
            pictures: paths of pictures, folders of them, and patterns such as ``photos/*.jpg``; one or any number.

        Raises:
            LaminaError: as :meth:`load_model`.
        """
        return predict_paths(self.predictor(), [pictures] if isinstance(pictures, str | Path) else list(pictures))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep others from training this run while the block works.

        Raises:
            RunError: another process or thread has it, or the folder cannot be written.
        """
        with lock_folder(self.path):
            yield

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint.

        Raises:
            OSError: the file cannot be written; the checkpoint before is still there.
        """
        write_tensors(self.path / "state.safetensors", checkpoint.tensors, fields_to_plain(checkpoint.standing))

    def read_checkpoint(self) -> Checkpoint | None:
        """The last checkpoint; ``None`` where there is none yet.

        Raises:
            RunError: the file is damaged.
        """
        file = self.path / "state.safetensors"
        if not file.exists():
            return None
        tensors, values = read_tensors(file, NO_CHECKPOINT)
        try:
            return Checkpoint(tensors, from_plain(Standing, values, "checkpoint"))
        except ValueError as error:
            raise damaged(str(file), error, NO_CHECKPOINT) from error

    def replace_record(self, record: RunRecord) -> Run:
        """The run with another record, also in ``run.json``; the report of what it was before is removed.

        Raises:
            OSError: the file cannot be written; it is as before.
        """
        if record != self.record:
            write_record(self.path, record)
            (self.path / "report.json").unlink(missing_ok=True)
        return dataclasses.replace(self, record=record)

    def save_report(self, report: Report) -> None:
        """Replace the report."""
        write_json(self.path / "report.json", report.to_json())

    def save_model(self, model: Model) -> None:
        """Replace the trained weights."""
        write_tensors(self.path / "model.safetensors", model.state_dict(), {})

    def load_model(self, module: nn.Module | None = None) -> Model:
        """The trained model, on the CPU, in eval mode.

        Args:
            module: for a user's own module, the same one, made anew; it takes the trained weights.

        Raises:
            RunError: the weights are missing, damaged or do not fit; or a module is missing.
            NetError: the net is timm's, which is not installed.
        """
        record, file = self.record, self.path / "model.safetensors"
        body = self._build_body(module)
        if not len(record.mean) == len(record.std) == record.in_shape[0]:
            raise damaged(str(self.path / "run.json"), "mean and std should have a value for each channel")
        try:
            model = Model(
                body, net=record.net, task=record.task, in_shape=record.in_shape, mean=record.mean, std=record.std
            )
        except (RuntimeError, ValueError) as error:
            raise damaged(str(self.path / "run.json"), error) from error
        weights = _read_weights(file)
        _check_fit(weights, model.state_dict(), file)
        model.load_state_dict(weights)
        return model.eval()

    def _build_body(self, module: nn.Module | None) -> nn.Module:
        net, timm = self.record.net, self.record.timm
        self.check_module(module)
        try:
            if timm is not None:
                import_timm()
                return timm.empty_module(self.record.in_shape, self.record.task.outputs)
            if net is not None:
                return net.check(self.record.in_shape, self.record.task.outputs).module(self.record.in_shape)
        except NetError as error:
            raise damaged(str(self.path / "run.json"), error) from error
        return deepcopy(self.module) if module is None and self.module is not None else module  # type: ignore[return-value]

    def check_module(self, module: nn.Module | None) -> None:
        """Check that a module is given where the run needs one, and only there.

        Raises:
            RunError: it is not so.
        """
        has_own = self.record.own_module is not None
        if module is not None and not has_own:
            raise RunError(f"{self.path} holds its own net, {self.record.net_name}. Leave out --net and module.")
        if module is None and self.module is None and has_own:
            raise RunError(
                f"{self.path} trains a module of your own, and lamina runs no code that a run names. "
                f"Give the module again with {self.record.own_module}."
            )

    def _summary(self) -> dict[str, str]:
        """What a person wants to know of it at a glance."""
        score, epochs = "not finished", "?"
        with suppress(LaminaError):
            report = self.report
            score = score if report is None else f"{report.split} {report.score}"
            epochs = f"{len(self.history.epochs())}/{self.record.recipe.epochs}"
        return {
            "run": str(self.path), "net": self.record.net_name, "data": self.record.data.name, "epochs": epochs,
            "score": score,
        }  # fmt: skip

    def __repr__(self) -> str:
        run, net, data, epochs, score = self._summary().values()
        return f"Run({run!r}: {net} on {data}, epochs {epochs}, {score})"

    def _repr_html_(self) -> str:
        summary = self._summary()
        return html_table(tuple(summary), [tuple(summary.values())], texts=5)


@dataclass(frozen=True)
class DamagedRun:
    """A folder among the runs that cannot be read as one, and why."""

    path: Path
    problem: str


def read_run(path: str | Path) -> Run:
    """The run in a folder.

    Raises:
        RunError: there is none, or its ``run.json`` is damaged or of another format.
    """
    path = Path(path)
    if path.is_file():
        raise RunError(f"Expected the folder of a run, got the file {path}. Give {path.parent}.")
    if not path.is_dir():
        siblings = sorted(file.parent.name for file in path.parent.glob("*/run.json"))
        where = "This folder" if path.parent == Path() else str(path.parent)
        remedy = suggest(path.name, siblings) if siblings else f"{where} holds no runs: make one with lamina train."
        raise RunError(f"There is no run {path}. {remedy}")
    if not (path / "run.json").exists():
        raise RunError(f"{path} is not a run: it has no run.json. Give the folder of a run.")
    return Run(path, read_record(path))


def list_runs(folder: str | Path) -> list[Run | DamagedRun]:
    """The runs in a folder, the oldest first, and then what is damaged; none where there is no folder."""
    runs: list[Run] = []
    damaged_runs: list[DamagedRun] = []
    for path in sorted(Path(folder).iterdir()) if Path(folder).is_dir() else ():
        if path.is_dir() and not path.name.startswith("."):
            try:
                runs.append(read_run(path))
            except RunError as error:
                damaged_runs.append(DamagedRun(path, str(error)))
    return [*sorted(runs, key=lambda run: run.record.created), *damaged_runs]


def _read_weights(file: Path) -> dict[str, Tensor]:
    if not file.exists():
        raise RunError(
            f"{file} is missing: the training ended before its weights were saved, or they were deleted. "
            f"Write it with lamina resume {file.parent}"
        )
    return read_tensors(file, f"Restore it from a copy, or write it again with lamina resume {file.parent}")[0]


def _check_fit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path) -> None:
    for name in sorted({*weights, *expected}):
        found, wanted = (tuple(tensors[name].shape) if name in tensors else "none" for tensors in (weights, expected))
        if found != wanted:
            raise RunError(
                f"{file} does not fit the net: for {name} expected the shape {wanted}, got {found}. "
                "Give the net that was trained, or restore the file from a copy."
            )
