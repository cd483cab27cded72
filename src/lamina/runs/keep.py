"""A run saved while it trains: history, model and checkpoint, despite full disks, NaN and infinity."""

from __future__ import annotations

import dataclasses
import json
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from lamina.data import Dataset, Images
from lamina.errors import DataError, GroupError, LaminaWarning, NotFiniteError, RecipeError, RunError
from lamina.evaluation.evaluating import score_logits
from lamina.evaluation.reports import Report
from lamina.files import lock_folder
from lamina.runs.copies import bring_run, fetch_newest, keep_copy
from lamina.runs.differences import find_changes
from lamina.runs.final import report_final, score_split
from lamina.runs.record import check_processes, lead_record, read_record
from lamina.runs.resume import check_fingerprint, find_dataset, resume_training, share_checkpoint
from lamina.training.device import choose_again, is_out_of_memory
from lamina.training.diagnosis import find_overfitting
from lamina.training.events import Diagnosis, EarlyEnd, Epoch, Resumed, Rewind, Step
from lamina.training.group import ALONE, Group
from lamina.training.loop import Training
from lamina.training.schedule import evaluation_interval
from lamina.training.tensors import digest_tensors

if TYPE_CHECKING:
    from lamina.runs.run import Run

MOST_REWINDS = 3
QUICK_SECONDS = 0.05
"""A checkpoint that takes less time than this is written after every epoch."""
SAVING_FRACTION = 0.05
"""Upper limit of the time spent on slower checkpoints, as a fraction: short epochs are saved with a later one."""


RunEvent: TypeAlias = Resumed | Step | Report | Epoch | Diagnosis | Rewind | EarlyEnd


def train_run(
    run: Run,
    module: nn.Module | None,
    data: Dataset | str | Path | None,
    epochs: int | None,
    save_every_seconds: float,
    rewind_on_nan: bool | None,
    on_diagnosis: str,
    group: Group = ALONE,
) -> Generator[RunEvent, None, None]:
    """See ``Run.iter_train``."""
    if on_diagnosis not in ("continue", "stop"):
        raise RunError(f"on_diagnosis was {on_diagnosis!r:.60}, but is continue or stop.")
    dataset = find_dataset(run, data)
    group.wait()  # others may have to decode their pictures first
    if deviating := group.find_deviating(dataset.fingerprint):
        raise DataError(
            f"{dataset.name} is not the same for all processes ({deviating}). Give every machine the same pictures, on "
            "a shared disk or copied."
        )
    with ExitStack() as stack:

        def lock() -> bytes:
            stack.enter_context(lock_folder(run.path))
            return b""

        with _no_room(run):
            bring_run(run.path, group)
            group.lead(lock)  # from here on, nobody else changes the run
            fetch_newest(run.path, group)
            run = dataclasses.replace(run, record=lead_record(group, lambda: read_record(run.path)))
            check_processes(run.record, group)
            # A loop can be left at its next record: after any step on a CPU; a GPU would wait for each record.
            # All processes of a group agree at each record whether to leave, and a signal makes one.
            steps_per_record = 1 if group.size == 1 and choose_again(run.record.device).value == "cpu" else 10
            training = resume_training(run, dataset, epochs, module, steps_per_record, group)
            before = run
            updated = lead_record(group, lambda: _update(before, training, rewind_on_nan).record)
            run = dataclasses.replace(run, record=updated)
        with _no_room(run, training), keep_copy(run, group) as writes:
            if training.steps_done:
                yield Resumed(training.steps_done, training.epochs_done, training.recipe.epochs)
            stops = on_diagnosis == "stop"
            yield from Keeper(training, run, dataset, save_every_seconds, group, writes, stops).train()


def evaluate_run(run: Run, module: nn.Module | None, data: Dataset | str | Path | None) -> Report | None:
    """See ``Run.evaluate``."""
    dataset = find_dataset(run, data)
    check_fingerprint(run, dataset)
    with lock_folder(run.path), _no_room(run):
        run = dataclasses.replace(run, record=read_record(run.path))
        model = run.load_model(module).to(choose_again(run.record.device).value)
        return report_final(run, model, dataset)


def _update(run: Run, training: Training, rewind_on_nan: bool | None) -> Run:
    """Bring the run's files to where the training resumes, and warn of what has changed."""
    changes = [f"{change.what} was {change.first} and is {change.second}" for change in find_changes(run.record)]
    if training.recipe.compile != run.record.recipe.compile:
        changes.insert(0, "compile was on and is off, as there is no C++ compiler here")
    for change in changes:
        _warn(f"{change}: the last bits of the weights may differ from those of a run that was never stopped")
    run.history.trim(training.epochs_done, training.rewinds)
    found = {row["epoch"] for row in run.history.epochs()}
    if missing := sorted({*range(1, training.epochs_done + 1)} - found):
        _warn(
            f"{run.history.file} lacks {len(missing)} of {training.epochs_done} epochs, the first of them "
            f"{missing[0]}. Their metrics are lost; the checkpoint is whole, and the training resumes."
        )
    early_end = run.early_end
    if early_end and training.recipe.epochs > run.record.recipe.epochs:
        raise RecipeError(
            f"epochs was {training.recipe.epochs}, but {run.path} has ended after epoch {training.epochs_done}, as "
            f"its patience is {training.recipe.patience}. Start a new run with more patience."
        )
    if training.is_finished or early_end:
        run.save_model(training.model)  # its loss may be why somebody resumes a finished run
    recipe = dataclasses.replace(training.recipe, compile=run.record.recipe.compile)
    rewinds = run.record.rewind_on_nan if rewind_on_nan is None else rewind_on_nan
    return run.replace_record(dataclasses.replace(run.record, recipe=recipe, rewind_on_nan=rewinds))


@dataclass
class Keeper:
    """Saves a run while it trains.

    If the disk is full, the training continues with a warning, and the next epoch tries the write again. A checkpoint
    is never ahead of the history.
    """

    training: Training
    run: Run
    dataset: Dataset
    save_every_seconds: float
    group: Group = ALONE
    writes: bool = True
    """Whether this process has the run's folder: the leader, and those that keep a copy."""
    stops_at_diagnosis: bool = False
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _saved_at: float = field(default_factory=time.perf_counter)
    _saving_seconds: float = 0.0
    _is_saved: bool = True
    _early_end: EarlyEnd | None = None
    _known: set[str] = field(default_factory=set)

    def train(self) -> Iterator[RunEvent]:
        """The training's records, each once it is saved; then the final report."""
        if reason := self._lead(lambda: self.run.early_end):
            self._early_end = EarlyEnd(self.training.epochs_done, reason)
        self._known = self._find_known()
        try:
            if self.writes and not (self.run.path / "state.safetensors").exists():
                self._try(self._save_checkpoint)
            while not (self.training.is_finished or self._early_end):
                try:
                    for event in self.training:
                        yield from self._keep(event)
                        if self._early_end:
                            break
                except NotFiniteError as error:
                    yield self._rewind(error)
            if not self._is_saved:
                self._save_last()
            if self._early_end:
                yield self._early_end
            if (report := report_final(self.run, self.training.model, self.dataset, self.group)) is not None:
                yield report
        except GeneratorExit:  # the caller leaves the loop; a group has compared and saved what an interrupt stopped
            if not self._is_saved and self.group.size == 1:
                try:
                    self._save_all()
                except NotFiniteError as error:
                    self._rewind(error)
                    self._save_all()
            raise

    def _keep(self, event: Step | Epoch) -> Iterator[RunEvent]:
        self._is_saved = False
        if isinstance(event, Epoch):
            yield from self._keep_epoch(event)
            return
        if self.group.any(self._is_time_to_save()) or self.training.is_interrupted:
            self._check_same(f"At step {event.step} of epoch {event.epoch}")
            self.training.check_weights()
            self._try(self._save_all if self.training.is_interrupted else self._save_checkpoint)
        yield event

    def _keep_epoch(self, event: Epoch) -> Iterator[RunEvent]:
        """An epoch and what was found at its end, saved together; each kind of diagnosis is told once in a run."""
        report = self._evaluate_val(event)
        weights = digest_tensors(self.training.model.state_dict())
        self._check_same(f"After epoch {event.epoch}")
        event = dataclasses.replace(event, weights=weights)
        if report is not None:
            metrics = {**report.headline(), f"{report.split}_loss": report.loss}
            event = dataclasses.replace(event, score=report.score, metrics=metrics)
        row = epoch_row(event)
        if (reason := self._find_early_end(row, report)) is not None:
            row["reason"] = reason
            self._early_end = EarlyEnd(event.epoch, reason)
        if self.writes:
            self._rows.append(row)
        found = [one for one in event.diagnoses if one.kind not in self._known]
        if report is not None and "overfitting" not in self._known:
            text = self._lead(lambda: self._find_overfitting() or "")
            found += [Diagnosis(**json.loads(text))] if text else []
        self._known |= {one.kind for one in found}
        if self.writes:
            self._rows += map(diagnosis_row, found)
        if found and self.stops_at_diagnosis and not self.training.is_finished:
            first = found[0]
            reason = f"diagnosis {first.kind}; lamina resume {self.run.path} trains the rest"
            self._early_end = self._early_end or EarlyEnd(first.epoch, reason, first.kind)
        if found or self._is_worth_saving():
            self._try(self._save_all)
        if report is not None:
            yield report
        yield dataclasses.replace(event, diagnoses=tuple(found))
        yield from found

    def _find_overfitting(self) -> str | None:
        rows = (row for row in self._rows if "epoch" in row and "diagnosis" not in row)
        found = find_overfitting([*self.run.history.epochs(), *rows])
        return None if found is None else json.dumps(dataclasses.asdict(found))

    def _find_known(self) -> set[str]:
        """The kinds that the run's history has, or will have."""
        rows = (*self.run.history.diagnoses(), *self._rows) if self.group.is_leader else ()
        return set((self._lead(lambda: " ".join(row["diagnosis"] for row in rows if "diagnosis" in row)) or "").split())

    def _is_worth_saving(self) -> bool:
        """Whether to save after this epoch: always, unless epochs are so short that saving would dominate."""
        waited = time.perf_counter() - self._saved_at
        is_last = self.training.is_finished or self._early_end is not None
        return (
            is_last
            or waited >= self.save_every_seconds
            or self._saving_seconds < max(QUICK_SECONDS, SAVING_FRACTION * waited)
        )

    def _evaluate_val(self, event: Epoch) -> Report | None:
        """The report on ``val`` after an epoch; ``None`` where evaluating would take too much of the time."""
        val = self.dataset.val
        if val is None:
            return None
        if event.epoch % evaluation_interval(self.training.images, len(val)) and event.epoch < event.epochs:
            return None
        report = score_split(self.dataset, val, self._score)
        if report is None:  # the same after every epoch, and no reason to end the training
            self.dataset = dataclasses.replace(self.dataset, val=None)
        return report

    def _find_early_end(self, row: Mapping[str, Any], report: Report | None) -> str | None:
        """Why the training ends with this row of the history, if it does before its last epoch."""
        recipe = self.training.recipe
        if not recipe.patience or report is None or row["epoch"] == recipe.epochs:
            return None
        return self._lead(lambda: self._find_patience_end(row, report))

    def _find_patience_end(self, row: Mapping[str, Any], report: Report) -> str | None:
        recipe = self.training.recipe
        name, sign = f"{report.split}_{report.score.name}", 1 if report.score.lower_is_better else -1
        rows = [*self.run.history.epochs(), *(each for each in self._rows if "diagnosis" not in each), row]
        scores = {each["epoch"]: sign * each[name] for each in rows if each.get(name) is not None}
        best = min(scores, key=lambda epoch: (scores[epoch], epoch))
        if row["epoch"] - best < recipe.patience:
            return None
        return f"no better {name.replace('_', ' ')} than after epoch {best}, with a patience of {recipe.patience}"

    def _score(self, images: Images) -> Report:
        started = time.perf_counter()
        logits = self.training.predict_logits(images.pixels)
        return score_logits(self.training.model.task, logits, images, time.perf_counter() - started)

    def _is_time_to_save(self) -> bool:
        return self.group.is_leader and time.perf_counter() - self._saved_at >= self.save_every_seconds

    def _check_same(self, when: str) -> None:
        """Raise ``GroupError`` unless all processes have the same weights and optimizer states."""
        if self.group.size == 1:
            return
        if deviating := self.group.find_deviating(self.training.digest()):
            raise GroupError(
                f"{when} the weights differ between the processes ({deviating}): memory or a processor may be faulty, "
                "or the module keeps something of its own from step to step. Nothing of this is saved; lamina resume "
                "continues from the last checkpoint."
            )

    def _lead(self, action: Callable[[], str | None]) -> str | None:
        """What the leader finds in the run's files, for all processes."""
        return self.group.lead(lambda: (action() or "").encode()).decode() or None

    def _save_last(self) -> None:
        """Save what the training ends with; a copy on a full disk is given up, but the leader's is not."""
        if self.group.is_leader:
            self._save_all()
        else:
            self._try(self._save_all)

    def _save_all(self) -> None:
        self._save_checkpoint(with_model=True)
        self._is_saved = True

    def _save_checkpoint(self, *, with_model: bool = False) -> None:
        if not self.writes:
            return
        began = time.perf_counter()
        checkpoint = self.training.checkpoint()  # first, since it rejects NaN and infinity
        while self._rows:
            self.run.history.append(self._rows[0])
            del self._rows[0]
        if with_model:
            self.run.save_model(self.training.model)
        self.run.save_checkpoint(checkpoint)
        self._saved_at = time.perf_counter()
        self._saving_seconds = self._saved_at - began

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except (OSError, RuntimeError, MemoryError) as error:
            if not isinstance(error, OSError) and not is_out_of_memory(error):
                raise
            self._saved_at = time.perf_counter()
            reason, room = "out of memory while copying the weights", "memory"
            if isinstance(error, OSError):
                reason, room = str(error.strerror or error), "disk space"
            _warn(
                f"cannot write to {self.run.path}: {reason}. Training continues; the last complete checkpoint is "
                f"kept. Free some {room}."
            )

    def _rewind(self, error: NotFiniteError) -> Rewind:
        """Return to the last checkpoint with half the lr, unless the run forbids it or has done so too often."""
        training, run = self.training, self.run
        if not run.record.rewind_on_nan:
            raise NotFiniteError(
                f"{error} Nothing with NaN was saved; `lamina resume {run.path} --on-nan rewind` continues from the "
                "last checkpoint with half the lr."
            ) from error
        if training.rewinds == MOST_REWINDS:
            raise NotFiniteError(
                f"{error} The training has already been rewound {MOST_REWINDS} times and stops here; {run.path} "
                "keeps its last checkpoint."
            ) from error
        checkpoint = share_checkpoint(run, self.group)
        if checkpoint is None:
            raise NotFiniteError(f"{error} There is no checkpoint in {run.path} to go back to.") from error
        standing = dataclasses.replace(checkpoint.standing, rewinds=training.rewinds + 1)
        training.restore(dataclasses.replace(checkpoint, standing=standing))
        rewind = Rewind(standing.rewinds, training.epochs_done, standing.steps_done, training.lr, str(error))
        # Epochs after the checkpoint are repeated.
        self._early_end = None
        # A copy may have saved less than the leader, whose checkpoint this is.
        kept = [row for row in self._rows if "rewind" in row or row["epoch"] <= training.epochs_done]
        self._rows = [*kept, dataclasses.asdict(rewind)]
        self._try(self._write_rewind)
        self._known = self._find_known()
        return rewind

    def _write_rewind(self) -> None:
        if self.writes:
            self.run.history.trim(self.training.epochs_done, self.training.rewinds)
            self._save_checkpoint()


def epoch_row(event: Epoch) -> dict[str, Any]:
    """An epoch as the history holds it; its diagnoses have rows of their own."""
    return {name: value for name, value in event.to_json().items() if name not in ("event", "epochs", "diagnoses")}


def diagnosis_row(diagnosis: Diagnosis) -> dict[str, Any]:
    """A diagnosis as the history holds it."""
    row = dataclasses.asdict(diagnosis)
    return {"diagnosis": row.pop("kind"), **row}


@contextmanager
def _no_room(run: Run, training: Training | None = None) -> Iterator[None]:
    """Turn a full disk, or memory that has run out, into an error for people."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"Cannot write to {run.path}: {error.strerror or error}. What was saved before is whole: make room, then "
            f"lamina resume {run.path}"
        ) from error
    except (RuntimeError, MemoryError) as error:
        if training is None or not is_out_of_memory(error):
            raise
        size = min(training.recipe.batch_size, training.images)
        remedy = f"Try --batch-size {size // 2}." if size > 1 else "Try smaller pictures or a smaller net."
        raise RecipeError(
            f"The {training.device.value} ran out of memory at batch_size {training.recipe.batch_size}. {remedy}"
        ) from error


def _warn(message: str) -> None:
    warnings.warn(message, LaminaWarning, stacklevel=4)
