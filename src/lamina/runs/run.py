"""``Run``: a training run in a folder of plain files (:mod:`lamina.runs.folder`).

Runs are loaded, trained from their last checkpoint, evaluated and shown here.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from torch import nn

from lamina.data import NAMES, Dataset, Images, load_data
from lamina.data.corrections import Effect, contain_files, correct
from lamina.data.description import describe_data, describe_reading
from lamina.data.image_inputs import ImageLike, find_images, list_images
from lamina.data.images import OTHER_FILE
from lamina.data.load import resize_dataset
from lamina.data.preparation import Preparation
from lamina.data.splits import Split
from lamina.errors import DataError, LaminaError, RunError, escape, name_some, suggest, warn
from lamina.evaluation.calibration import Calibration
from lamina.evaluation.evaluating import score_logits
from lamina.evaluation.outputs import Outputs
from lamina.evaluation.predictions import Prediction, Predictions
from lamina.evaluation.predictor import Predictor
from lamina.evaluation.report import Report
from lamina.files import RESTORE, read_bytes
from lamina.kernels.library import find_kernels
from lamina.markup import card, note, table, wrap
from lamina.nets import Net
from lamina.runs.course import (
    Course,
    RunEvent,
    TimeLimit,
    check_processes,
    evaluate_final,
    explain_lack_of_memory,
    find_end,
)
from lamina.runs.differences import find_changes
from lamina.runs.folder import (
    NO_CHECKPOINT,
    STUDY_FILE,
    WHOLE,
    Row,
    RunFolder,
    unpack_checkpoint,
)
from lamina.runs.progress import show_progress
from lamina.runs.record import RunRecord
from lamina.targets import Score
from lamina.training import group
from lamina.training.checkpoint import digest_tensors, unpack_tensors
from lamina.training.custom import (
    NO_PARTS,
    Parts,
    check_parts_type,
    digest_source,
)
from lamina.training.device import Choice, choose_again, choose_device
from lamina.training.events import Remark, Resumed
from lamina.training.loop import Training
from lamina.training.model import Initial, Model
from lamina.training.prediction import predict_logits
from lamina.training.pretrained import TimmNet, native_side_px
from lamina.training.randomness import drawing_weights
from lamina.training.recipe import Recipe
from lamina.training.task import Task
from lamina.training.threads import computing_with, iter_computing_with, keep_threads

if TYPE_CHECKING:
    import polars
    from matplotlib.figure import Figure

DataLike: TypeAlias = Dataset | Images | str | Path
"""A data set, or its name or path."""


@dataclass(frozen=True)
class Run:
    """A training run, stored in a folder: train or resume it, evaluate it, and predict with it.

    :func:`~lamina.start_run` creates a run and :func:`~lamina.load_run` loads one.

    Attributes:
        path: Folder of the run.
        record: Net, recipe, data, software and machine, as in ``run.json``.
        dataset: Data set, if it was passed to this process.
        module: Your own module, or net with your own layers, before its first step, if it was
            passed.
        parts: Your own functions, if they were passed.
    """

    path: Path
    record: RunRecord = field(repr=False, compare=False)
    dataset: Dataset | None = field(default=None, repr=False, compare=False)
    module: Net | nn.Module | None = field(default=None, repr=False, compare=False)
    parts: Parts = field(default=NO_PARTS, repr=False, compare=False)

    @property
    def folder(self) -> RunFolder:
        """The files of the run."""
        return RunFolder(self.path)

    def train(
        self,
        *,
        data: DataLike | None = None,
        until: float | None = None,
        progress: bool = True,
    ) -> Report | None:
        """Train the run, from the start or from its last checkpoint, and evaluate it.

        Takes the arguments and raises the errors of :meth:`iter_train`. In addition, ``progress``
        prints data, recipe, net and device, then a line per epoch, and shows a progress bar in a
        terminal or notebook.

        Returns:
            The report on ``test``, else on ``val``. ``None`` if neither can be scored.
        """
        trained = self.iter_train(data=data, until=until)
        with closing(trained):  # an interrupt while printing must save and unlock the run, too
            events: Iterable[RunEvent] = trained
            if progress and group.is_leader():
                events = show_progress(self._introduce(trained, data))
            for _ in events:
                pass
        return self.report

    def _introduce(
        self, events: Iterator[RunEvent], data: DataLike | None
    ) -> Generator[RunEvent, None, None]:
        """The events, after a remark about data, recipe, net and device."""
        dataset = data if isinstance(data, Dataset) else self.dataset
        lines = [f"data: {self.record.data.name}"]
        if dataset is not None:
            lines = [*describe_data(dataset), *describe_reading(dataset)]
        lines += [f"recipe: {describe_recipe(self.record.recipe)}", *describe_start(self)]
        first = next(events)  # which means that all checks passed
        yield Remark("\n".join(lines))
        yield first
        yield from events

    def iter_train(
        self,
        *,
        data: DataLike | None = None,
        until: float | None = None,
        is_open: bool = False,
        finish: threading.Event | None = None,
    ) -> Generator[RunEvent, None, None]:
        """Train the run, and yield its events.

        You may leave the loop at any event: the run stays consistent, and calling this again
        resumes it. On the same processor type, with the same torch version, number of threads and
        kernels, the weights are then bit-identical to the weights of an uninterrupted run (untested
        on GPUs). The run is locked while it trains.

        Args:
            data: The run's data set, or its current path; by default the recorded path.
            until: When to stop, as a value of ``time.perf_counter()``. With the schedule
                ``trapezoid``, the learning rate falls to zero before this time.
            is_open: With the schedule ``trapezoid``, train until the time ``until``, for any number
                of epochs.
            finish: Event that ends the training early when it is set (single process only). With
                ``trapezoid``, the learning rate first falls to zero, in a tenth of the time so
                far.

        Yields:
            These events, in this order:

            - ``Resumed``, if the training resumes;
            - ``Step``, every few steps;
            - after each epoch, once it is saved: the ``Report`` on ``val``, the ``Epoch``, and each
              new ``Diagnosis``;
            - ``EarlyEnd``, if patience or the time limit ends the training. After patience, the run
              is finished; otherwise, call this again to train the rest;
            - the ``Report`` on ``test``, or on ``val`` without a ``test`` split.

        Warns:
            LaminaWarning: A split cannot be evaluated, or software or hardware has changed.

        Raises:
            LaminaError: An argument is invalid, a file is damaged, another process trains the run,
                or the disk is full. The last checkpoint stays intact.
        """
        dataset = find_dataset(self, data)
        with ExitStack() as stack:
            # from here on, no other process changes the run
            group.lead_value(lambda: stack.enter_context(self.folder.lock()))
            check_processes(dataset, choose_again(self.record.device).value)
            threads = keep_threads(self.record.machine.threads)
            with computing_with(threads):
                training = resume_training(self, dataset)
                group.lead_value(lambda: prepare_folder(self, training))
            stack.enter_context(explain_lack_of_memory(training))
            if training.steps_done:
                yield Resumed(training.steps_done, training.epochs_done, training.schedule.epochs)
            limit = TimeLimit(finish=finish)
            if until is not None:
                limit = TimeLimit(until, is_open and training.schedule.can_move, finish)
            course = Course(self.folder, self.record, training, dataset, self.parts, limit)
            with closing(iter_computing_with(threads, course.iterate())) as events:
                # an exception thrown in here ends the loop, which saves
                for event in events:  # noqa: UP028
                    yield event

    def evaluate(
        self, *, data: DataLike | None = None, labels: str | Path | None = None
    ) -> Report | None:
        """Evaluate the saved model on ``test``, else ``val``, and save report and logits.

        :meth:`train` calls this at the end, so you need it only if you stopped training early.

        Args:
            data: As for :meth:`iter_train`.
            labels: A table of corrections, as for ``Preparation.labels_from``. The stored logits
                are then scored with the corrected labels, without loading images; nothing is saved.

        Returns:
            The report, or ``None`` if there are no images that can be scored.

        Warns:
            LaminaWarning: A split cannot be scored, or one of your own metrics was not passed to
                :func:`load_run`.

        Raises:
            LaminaError: The weights cannot be loaded (see :meth:`load_model`), the data is missing
                or has changed, or another process is training the run.
        """
        if labels is not None:
            outputs, _ = correct_outputs(self, find_outputs(self), [str(labels)])
            return score_outputs(self, outputs)
        dataset = find_dataset(self, data)
        with self.folder.lock():
            model = self.load_model().to(choose_again(self.record.device).value)
            predict = partial(predict_logits, model)
            evaluation = evaluate_final(self.folder, self.record, dataset, self.parts, predict)
            evaluation.save(self.folder)
            return evaluation.report

    @property
    def report(self) -> Report | None:
        """The last evaluation of the saved model, or ``None``.

        Raises:
            RunError: ``report.json`` is damaged.
        """
        return self.folder.read_report()

    @property
    def outputs(self) -> dict[Split, Outputs]:
        """The saved model's logits for ``test`` and ``val``; empty before the first report.

        For regression, they are the predicted numbers in the units of the targets.

        Raises:
            RunError: ``logits.npz`` is damaged or does not fit the run.
        """
        return self.folder.load_outputs(self.record.task)

    @property
    def calibration(self) -> Calibration | None:
        """Temperatures and thresholds; ``None`` if ``val`` or the folds have too few images.

        Raises:
            RunError: ``calibration.json`` is damaged.
        """
        return self.folder.read_calibration(self.record.task)

    @property
    def task(self) -> Task:
        """The task of the saved model, with calibrated probabilities if the run has temperatures.

        Raises:
            RunError: ``calibration.json`` is damaged.
        """
        calibration = self.calibration
        return self.record.task if calibration is None else calibration.apply(self.record.task)

    @property
    def history(self) -> polars.DataFrame:
        """One row per epoch, with columns such as ``train_loss`` and ``val_accuracy``.

        Layer statistics and diagnoses are only in ``history.jsonl``.

        Raises:
            RunError: A line of ``history.jsonl`` is damaged.
        """
        return self.folder.frame_history()

    def plot(self) -> Figure:
        """The learning curves as a matplotlib figure for a notebook or ``figure.savefig(path)``.

        Raises:
            RunError: A file of the run is damaged.
        """
        from lamina.drawing.curves import draw_curves  # loads matplotlib

        report = self.report
        score = Score(self.record.task.score_name, math.nan)
        if report is not None:
            score = report.score
        return draw_curves(self.folder.read_epochs(), score, report)

    @property
    def end(self) -> str | None:
        """Why the training has ended: empty as planned, else a reason; ``None`` before its end."""
        return find_end(self.folder.read_rows())

    @property
    def is_finished(self) -> bool:
        """Whether the training has ended: after its last step, by patience or on request."""
        return self.end is not None

    @property
    def epochs(self) -> int | None:
        """Number of epochs, as planned last; ``None`` while a time limit decides."""
        return count_planned(self.record, self.folder.read_epochs())

    def predictor(self, *, device: str = "auto") -> Predictor:
        """The trained model with its preprocessing, for predictions on images.

        Args:
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

        Raises:
            LaminaError: The device is missing, or any error of :meth:`load_model`.
        """
        model = self.load_model().to(choose_device(device).value)
        return Predictor(model, self.record.data.preparation.resize)

    def predict(self, images: ImageLike | Iterable[ImageLike]) -> Predictions:
        """Predict images.

        Args:
            images: Paths of images, folders or patterns, or anything that
                :meth:`Predictor.predict` accepts.

        Returns:
            A table of predictions.

        Raises:
            LaminaError: See :meth:`load_model`.
        """
        items = list(list_images(images, self.record.in_shape))
        paths = [item for item in items if isinstance(item, str | Path)]
        if len(paths) < len(items):
            return self.predictor().predict(items)
        files, problems = find_images(paths)
        predictions = self.predictor().predict(files)
        for problem in problems:
            if problem.reason != OTHER_FILE:
                predictions.append(Prediction(problem.path, problem=problem.reason))
        return predictions

    def load_model(self) -> Model:
        """The trained model, on the CPU, in eval mode, calibrated if the run has temperatures.

        Raises:
            RunError: The weights are missing, damaged or do not fit, or your own module was not
                passed.
            NetError: The net needs timm, which is not installed.
        """
        record = self.record
        task = self.task
        net = restore_net(self)
        layers: Net | None = None
        if isinstance(net, TimmNet):
            body = net.empty_module(record.in_shape, task.outputs)
        elif isinstance(net, Net):
            layers = net.check(record.in_shape, task.outputs)
            body = layers.module(record.in_shape)
        else:
            body = deepcopy(net)
        model = Model(
            body,
            net=layers,
            task=task,
            in_shape=record.in_shape,
            mean=record.mean,
            std=record.std,
        )
        model.load_state_dict(self.folder.read_weights(model.state_dict()))
        return model.eval()

    def __repr__(self) -> str:
        row = summarize_run(self, *self._read())
        place = f"{row['run']!r}: {row['net']} on {row['data']}"
        return escape(f"Run({place}, epochs {row['epochs']}, {row['score']})")

    def _repr_html_(self) -> str:
        report, rows = self._read()
        row = summarize_run(self, report, rows) | {"recipe": repr(self.record.recipe)}
        del row["run"]
        lines = [] if report is None else [report.headline(), *report.details()]
        more = note("more: run.report, run.history, run.plot(), run.predict(paths)")
        metrics = (wrap("p", line) for line in lines)
        return card(repr(self), table((), list(row.items()), texts=2), *metrics, more)

    def _read(self) -> tuple[Report | None, list[Row] | None]:
        """The report and the rows of the history, without those that cannot be read."""
        report: Report | None = None
        with suppress(LaminaError):
            report = self.report
            return report, self.folder.read_rows()
        return report, None


def load_run(
    path: str | Path,
    *,
    runs_dir: str | Path = "runs",
    module: Net | nn.Module | None = None,
    parts: Parts = NO_PARTS,
) -> Run:
    """Load a run.

    Args:
        path: Folder or name of the run.
        runs_dir: Folder to search for names.
        module: Your own module, or net with your own layers, newly created, if the run was started
            with one.
        parts: Your own functions, to resume a run that was started with them. Predictions do not
            need them, and :meth:`Run.evaluate` only the metrics.

    Returns:
        The run, which you can resume, evaluate and predict with.

    Warns:
        LaminaWarning: The source of ``module`` has changed since the run was started.

    Raises:
        RunError: There is no such run, or its ``run.json`` is damaged or has another format.
        RecipeError: ``parts`` is not a :class:`~lamina.Parts`.

    >>> import tempfile
    >>> from lamina import Recipe, start_run
    >>> folder = tempfile.mkdtemp()
    >>> path = start_run("shapes", "mlp", Recipe(epochs=1), runs_dir=folder, name="first").path
    >>> load_run("first", runs_dir=folder).path == path
    True
    """
    check_parts_type(parts)
    folder = find_run(Path(path), Path(runs_dir))
    run = Run(folder, RunFolder(folder).read_record(), module=module, parts=parts)
    if module is not None:
        check_code(run, module)
    return run


def find_run(path: Path, runs_dir: Path) -> Path:
    """Find a run's folder, by path or name in ``runs_dir``; else ``RunError`` with suggestions."""
    with suppress(OSError):  # the name is too long
        for place in list_places(path, runs_dir):
            for folder in (place, place / WHOLE):  # a cross-validation stands for its last run
                if (folder / "run.json").exists():
                    return folder
            if (place / STUDY_FILE).exists():
                runs = sorted(file.parent for file in place.glob("*/run.json"))
                if runs:
                    raise RunError(f"{place} is a study. Use one of its runs, such as {runs[0]}.")
    folders = [place.parent for place in list_places(path, runs_dir)]
    where = " or ".join("this folder" if folder == Path() else str(folder) for folder in folders)
    known = sorted({file.parent.name for folder in folders for file in folder.glob("*/run.json")})
    others = suggest(path.name, known) if known else "Train one with lamina train."
    raise RunError(f"No run named {path.name} in {where}. {others}")


def list_places(path: Path, runs_dir: Path) -> list[Path]:
    """Where a run may be: at this path or, if it is a name, in ``runs_dir``."""
    return [path, runs_dir / path] if str(path) == path.name else [path]


def is_run_or_study(name: str, runs_dir: Path) -> bool:
    """Whether there is a run or a study at this path, or with this name in ``runs_dir``."""
    try:
        return any(
            (place / file).exists()
            for place in list_places(Path(name), runs_dir)
            for file in ("run.json", STUDY_FILE)
        )
    except OSError:  # the name is too long
        return False


def list_runs(folder: str | Path = "runs") -> list[Run]:
    """Load all runs in a folder.

    Args:
        folder: Folder that contains the runs.

    Returns:
        The runs, oldest first.

    Warns:
        LaminaWarning: A subfolder cannot be loaded as a run and is skipped.

    Raises:
        RunError: The folder does not exist.

    >>> import tempfile
    >>> list_runs(tempfile.mkdtemp())
    []
    """
    if not Path(folder).is_dir():
        raise RunError(
            f"There is no folder {folder}. Use the runs_dir of start_run, by default runs."
        )
    runs, problems = find_runs(folder)
    for problem in problems.values():
        warn(f"Skipped a damaged run: {problem}", stacklevel=2)
    return runs


def find_runs(folder: str | Path) -> tuple[list[Run], dict[Path, str]]:
    """The runs in a folder and its studies, oldest first, and the problems of damaged runs."""
    folder = Path(folder)
    runs: list[Run] = []
    problems: dict[Path, str] = {}
    places = [folder, *(file.parent for file in folder.glob(f"[!.]*/{STUDY_FILE}"))]
    files = [file for place in places for file in place.glob("[!.]*/run.json")]
    for path in sorted(file.parent for file in files):
        try:
            runs.append(load_run(path))
        except LaminaError as error:
            problems[path] = str(error)
    return sorted(runs, key=lambda run: run.record.created), problems


def find_source(run: Run, moved_to: str | Path | None = None) -> str | Path:
    """A run's data set, by name or path: ``moved_to``, or the recorded path if it still exists."""
    source = run.record.data.source
    if moved_to is not None:
        return moved_to
    if not source:
        raise DataError(
            f"{run.path} was trained on arrays in memory. Pass them again, as in"
            " train(data=dataset)."
        )
    if source not in NAMES and not Path(source).exists():
        raise DataError(
            f"{run.path} was trained on {source}, which no longer exists.",
            remedy="If it has moved, pass its new path with --data PATH (in Python, data=PATH).",
        )
    return source


def find_dataset(run: Run, data: DataLike | None = None) -> Dataset:
    """The data set of a run, from ``data`` or from its recorded path; it must not have changed."""
    recorded = run.record.data
    if data is None:
        data = run.dataset
    if isinstance(data, Images):
        data = Dataset.from_images(data)
    if not isinstance(data, Dataset):
        data = load_data(find_source(run, data), recorded.preparation)
    dataset = data
    if not recorded.source and recorded.preparation.size_px not in (None, dataset.size_px):
        # arrays, resized as for the training
        dataset = resize_dataset(dataset, recorded.preparation.size_px)
    if dataset.fingerprint == recorded.fingerprint:
        return dataset
    sources = {dataset.source, recorded.source}
    if len(sources) > 1 and sources & {*NAMES, ""}:
        problem = f"{run.path} was trained on {recorded.name}, not on {dataset.name}."
        remedy = (
            "Omit the data argument (on the command line, --data), pass the data set that the"
            " run was trained on"
        )
    else:
        marks = f"fingerprint {dataset.fingerprint}, was {recorded.fingerprint}"
        problem = f"{dataset.name} has changed since {run.path} was trained ({marks})."
        remedy = "Restore the images, train a new run"
    raise RunError(
        problem,
        remedy=f"{remedy}, or evaluate the model on other images: evaluate(run.load_model(),"
        " images).",
    )


def restore_net(run: Run) -> Net | TimmNet | nn.Module:
    """The net in the run, or the custom net or module that the caller passed."""
    record = run.record
    module = run.module
    net = record.net or record.timm
    if net is not None and module is not None:
        raise RunError(
            f"{run.path} contains its net, {record.net_name}. Leave out module (on the"
            " command line, --net)."
        )
    if net is not None:
        return net
    if module is None:
        raise RunError(
            f"{run.path} was trained with your own code, which the run does not store. "
            f"Pass it again with {record.own_module}."
        )
    code = record.own_module
    if isinstance(module, Net) and code is not None and not code.file and repr(module) != code.name:
        raise RunError(
            f"module is {module!r}, but {run.path} was trained with {code.name}. Pass that net."
        )
    return module


def make_training(run: Run, dataset: Dataset, *, has_checkpoint: bool = False) -> Training:
    """A run's training before its first step, with the recorded settings, precision and device.

    A module is copied. If the recorded device is missing, lamina chooses another. A timm net gets
    random weights if stored weights or a checkpoint replace them.
    """
    record = run.record
    net = restore_net(run)
    initial: Initial | None = None
    if record.started_from is not None:
        file = run.folder.initial_file
        weights, _ = unpack_tensors(group.lead(lambda: read_bytes(file)), str(file), RESTORE)
        initial = Initial(weights, record.mean, record.std)
    if isinstance(net, TimmNet):
        make = net.empty_module if has_checkpoint or initial else net.module
        with drawing_weights(record.recipe.seed):
            net = make(dataset.train.shape, record.task.outputs)
    elif isinstance(net, nn.Module):
        net = deepcopy(net)
    device = choose_again(record.device).value
    # Events after every step only on a single CPU: a GPU waits for each, and processes communicate
    # at each.
    is_single_cpu = group.size() == 1 and device == "cpu"
    return Training(
        net,
        dataset.train,
        replace(record.recipe, device=device),
        precision=record.precision,
        steps_per_record=1 if is_single_cpu else 10,
        parts=run.parts,
        initial=initial,
    )


def check_own_parts(run: Run) -> None:
    """Raise ``RunError`` unless the run was started with these functions; warn of changed ones."""
    metric = run.record.task.metric
    parts = list_needed_parts(run.parts.describe(), metric)
    recorded = list_needed_parts(run.record.parts, metric)
    if not recorded.keys() <= parts.keys():
        functions = ", ".join(f"{name} is {place}" for name, place in run.record.parts.items())
        raise RunError(
            f"{run.path} was started with your own functions, which the run does not store.",
            remedy=f"Pass them again in Python, load_run({str(run.path)!r},"
            f" parts=Parts(…)).train(): {functions}.",
        )
    if extra := [name for name in parts if name not in recorded]:
        raise RunError(
            f"{run.path} was started without your own {name_some(extra)}. Leave it out, or start"
            " a new run with it."
        )
    digests = run.parts.digest()
    for name, place in parts.items():
        change = ""
        if place != recorded[name]:
            change = f"{name} was {recorded[name]} and is now {place}"
        elif has_changed(run.record.code.get(name, ""), digests.get(name, "")):
            change = f"the source of {name}, {place}, has changed since {run.path} was started"
        if change:
            warn(f"{change}; the weights may differ from an uninterrupted run")


def has_changed(recorded: str, digest: str) -> bool:
    """Whether both digests of a source are known, and differ."""
    return bool(recorded and digest) and recorded != digest


def digest_module(module: Net | nn.Module) -> str:
    """The digest of the source of a net's own layers, or of a module's classes but torch's."""
    if isinstance(module, Net):
        return digest_source(*module.own_layers)
    kinds = dict.fromkeys(type(part) for part in module.modules())
    own_kinds = [kind for kind in kinds if not kind.__module__.startswith("torch.")]
    return digest_source(*own_kinds)


def check_code(run: Run, module: Net | nn.Module, file_digest: str | None = None) -> None:
    """Warn if the code of your own net, or its file, has changed since the run was started."""
    recorded = run.record.own_module
    is_file = file_digest is not None
    if recorded is None or bool(recorded.file) != is_file:
        return
    if isinstance(module, Net) and not is_file and repr(module) != recorded.name:
        return  # another net, which is refused later
    digest = digest_module(module) if file_digest is None else file_digest
    if has_changed(recorded.digest, digest):
        warn(
            f"the code of {recorded.file or recorded.name} has changed since {run.path} was started"
            " with it, so its outputs may differ.",
            remedy="Restore the code, or train a new run",
        )


def list_needed_parts(described: Mapping[str, str], score_name: str = "") -> dict[str, str]:
    """The custom functions that training needs: of the metrics, only the score."""
    return {
        name: place
        for name, place in described.items()
        if name == f"metrics.{score_name}" or not name.startswith("metrics.")
    }


def resume_training(run: Run, dataset: Dataset) -> Training:
    """Restore the training of a run from its last checkpoint. Writes nothing.

    On the same processor type, with the same torch version, number of threads and kernels, it
    continues to bit-identical weights (untested on GPUs).
    """
    folder = run.folder
    check_own_parts(run)
    file = folder.checkpoint_file
    content = group.lead(lambda: read_bytes(file) if file.exists() else b"")
    # Without weights, the training was killed before it saved any, and its history is cut off.
    if not content and folder.weights_file.exists() and (epochs := folder.read_epochs()):
        raise RunError(
            f"{folder.path} has {len(epochs)} epochs in its history, but no state.safetensors to"
            " resume from.",
            remedy="Restore that file from a copy, or delete history.jsonl and start over with"
            " lamina resume.",
        )
    training = make_training(run, dataset, has_checkpoint=bool(content))
    if content:
        checkpoint = unpack_checkpoint(content, str(file))
        try:
            training.restore(checkpoint)
        except RunError as error:
            raise RunError(f"{file}: {error}.", NO_CHECKPOINT) from error
    return training


def prepare_folder(run: Run, training: Training) -> None:
    """Set history and weights of a run to the state of its training, and warn about changes."""
    folder = run.folder
    for change in find_changes(run.record):
        warn(
            f"{change.what} was {change.first} and is now {change.second}; the last bits of the"
            " weights may differ from an uninterrupted run"
        )
    folder.trim_history(training.epochs_done)
    rows = folder.read_rows()
    missing = sorted({*range(1, training.epochs_done + 1)} - {row["epoch"] for row in rows})
    if missing:
        warn(
            f"{folder.history_file} lacks {len(missing)} of {training.epochs_done} epochs, from"
            f" epoch {missing[0]}. Their metrics are lost, but the checkpoint is intact and the"
            " training resumes."
        )
    is_over = training.is_finished or find_end(rows) is not None
    # missing weights may be the reason to resume a finished run
    if is_over and not _has_weights(run, training):
        folder.save_model(training.model)


def _has_weights(run: Run, training: Training) -> bool:
    weights = training.model.state_dict()
    try:
        return digest_tensors(run.folder.read_weights(weights)) == digest_tensors(weights)
    except RunError:
        return False


def summarize_run(run: Run, report: Report | None, rows: Sequence[Row] | None) -> dict[str, str]:
    """A run's table row, by column; ``rows`` is ``None`` if its history cannot be read."""
    record = run.record
    epochs = [row for row in rows or () if row["event"] == "epoch"]
    is_finished = find_end(rows or ()) is not None
    score = "not finished"
    if report is not None:
        score = f"{report.split} {report.score}" + ", not finished" * (not is_finished)
    elif is_finished:  # there were no images to evaluate on
        score = "no score"
    done = "?" if rows is None else len(epochs)
    seconds = sum(row.get("train_seconds") or 0.0 for row in epochs)
    return {
        "run": str(run.path),
        "net": record.net_name,
        "data": record.data.name,
        "score": score,
        "epochs": f"{done}/{count_planned(record, epochs) or '?'}",
        "parameters": f"{record.parameters:,}",
        "train seconds": f"{seconds:.1f}",
    }


def count_planned(record: RunRecord, epochs: Sequence[Row]) -> int | None:
    """The number of epochs of a run, as planned last; ``None`` while a time limit decides."""
    planned: int | None = record.recipe.epochs
    if epochs:
        planned = epochs[-1].get("epochs", planned)
    return planned


def correct_outputs(run: Run, outputs: Outputs, labels: Sequence[str]) -> tuple[Outputs, Effect]:
    """Stored logits with labels from tables of corrections, and what was corrected."""
    tables, _ = contain_files(Preparation(labels_from=tuple(labels)))
    names = run.record.task.target_names
    targets, are_kept, effect = correct(tables, outputs.names, outputs.targets, names, is_part=True)
    return replace(outputs, targets=targets).take(np.flatnonzero(are_kept)), effect


def score_outputs(run: Run, outputs: Outputs) -> Report:
    """The report of stored logits, whose pixels are not needed."""
    images = Images(
        pixels=np.zeros((len(outputs.names), 1, 1, 1), np.uint8),
        targets=outputs.targets,
        target_names=run.record.task.target_names,
        names=outputs.names,
        split=outputs.split,
        groups=outputs.groups,
    )
    logits = outputs.raw_logits(run.task)
    report = score_logits(run.task, logits, images, 0.0, run.parts.metrics)
    return replace(report, data_name=run.record.data.name)


def find_outputs(run: Run, split: Split | None = None) -> Outputs:
    """The stored logits of a split, by default of the images that a run was last evaluated on."""
    outputs = run.outputs.get(split or "test")
    if outputs is None and split is None:
        outputs = run.outputs.get("val")
    if outputs is None or len(outputs.names) < 2:
        what = f"{split} images" if split else "images"
        stored = [name for name, part in run.outputs.items() if len(part.names) > 1]
        if split and stored:
            raise RunError(
                f"{run.path} has no stored logits for {what}, only for {' and '.join(stored)}.",
                remedy=f"Use --split {stored[-1]}.",
            )
        raise RunError(
            f"{run.path} has stored logits for {0 if outputs is None else 1} {what}; at least 2"
            " are needed.",
            remedy=f"Run lamina resume {run.path} to evaluate it.",
        )
    return outputs


def describe_recipe(recipe: Recipe, *, is_open: bool = False) -> str:
    """The main and all changed settings of a recipe; no epochs if a time limit decides."""
    names = ["epochs", "batch_size", "optimizer", "lr", "seed", *recipe.changes()]
    values = {name: getattr(recipe, name) for name in names}
    if is_open:
        del values["epochs"]
    return ", ".join(f"{name} {value}" for name, value in values.items())


def describe_start(run: Run) -> list[str]:
    """What a new run trains: its net, normalization, start, device and precision."""
    record = run.record
    lines = [f"net: {escape(record.net_name)}, {record.parameters:,} parameters"]
    if native_side_px(record.timm or run.module) is not None:
        mean = ", ".join(f"{value:.1f}" for value in record.mean)
        std = ", ".join(f"{value:.1f}" for value in record.std)
        lines.append(f"normalization: as pretrained, mean {mean}, standard deviation {std}")
    if record.started_from is not None:
        lines.append(escape(f"start: {record.started_from}"))
    return [*lines, describe_arithmetic(record.device, record.precision)]


def describe_arithmetic(device: Choice, precision: Choice) -> str:
    kernels = f"; kernels: {find_kernels()}" if device.value == "cpu" else ""
    return f"device: {device}; precision: {precision}{kernels}"
