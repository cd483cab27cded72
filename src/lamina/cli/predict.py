"""lamina predict: predict a class, labels or numbers for each image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from lamina.cli.options import Device, Images, Json, OwnModule
from lamina.cli.output import check_output, format_csv, writing
from lamina.cli.parsing import refuse
from lamina.cli.terminal import Terminal
from lamina.files import open_atomically
from lamina.text import guard
from lamina.values import Range

if TYPE_CHECKING:
    from lamina.deploy.confidence_rule import ConfidenceRule
    from lamina.evaluation.image_predictor import ImagePredictor
    from lamina.evaluation.predictions import Prediction
    from lamina.targets import Decision

SHOWN_CLASSES = 3
IMAGES_OF_ONE_THREAD = 10
"""Up to this many images, one thread predicts: an image takes about 1 ms, but waiting for a second
thread whose core another process uses takes about 80 ms."""
DELIMITERS = {".csv": ",", ".tsv": "\t", ".jsonl": ""}


@dataclass(frozen=True)
class Options:
    """Predict a class, labels or numbers for each image.

    Example: lamina predict runs/pets 'new/*.jpg' --output predictions.csv
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """path of a run, its name in runs/, or an ONNX file that lamina exported"""
    images: Images
    top: Annotated[int | None, Range(1)] = None
    """number of classes or labels to print per image, most likely first (default: 3 classes, or the
    labels with a probability above 50 %)"""
    confidence_threshold: float | None = None
    """reject predictions with a probability below this, from 0 to 1"""
    aim: str | None = None
    """yes-or-no and multi-label models: choose the thresholds on val for f1, recall=0.95,
    precision=0.9 or miss=10, if a miss costs as much as 10 false alarms (default: the run's
    thresholds, which are 0.5 without --aim in lamina train)"""
    coverage: float | None = None
    """print prediction sets that contain the true class for about this fraction of images, such as
    0.9; for numbers, print prediction intervals"""
    output: Path | None = None
    """write all probabilities to a .csv, .tsv or .jsonl file instead of printing them"""
    net: OwnModule = None
    device: Device = "auto"
    json: Json = False


def run(options: Options, terminal: Terminal) -> int:
    from lamina.cli.image_argument import choose_images
    from lamina.evaluation.predictions import Prediction

    if options.coverage is not None:
        refuse(options, "--coverage chooses the classes to print.", "top")
    if options.output is not None:
        check_output(options.output, DELIMITERS)
    images, problems = choose_images(options.images, terminal)
    with ExitStack() as stack:
        is_short = len(images) <= IMAGES_OF_ONE_THREAD
        if options.run.suffix.lower() == ".onnx":
            predictor, rule = _load_exported(options, is_short, terminal)
        else:
            predictor, rule = _load_run(options, is_short, terminal)
        predictions = stack.enter_context(closing(predictor.iter_predict(images)))
        show_progress = stack.enter_context(terminal.progress("predicting"))
        replaces = False
        if options.output is None:
            output = _open_table(terminal, predictor.task, options.top, rule)
        else:
            replaces = options.output.exists()
            output = _open_file(options.output, predictor.task, rule)
        write = stack.enter_context(output)
        for problem in problems:
            write(Prediction(problem.path, problem=problem.reason))
        for done, prediction in enumerate(predictions, start=1):
            if prediction.problem is None:
                terminal.emit(**_to_event(predictor.task, prediction, rule))
            else:
                terminal.report_problem(prediction.name, prediction.problem)
            write(prediction)
            show_progress(done, len(images))
    if options.output is not None:
        total = len(problems) + len(images)
        terminal.say(f"{options.output}: {total - terminal.problems:,} of {total:,} images")
        if replaces:
            terminal.remark(f"{options.output}: the earlier file was replaced")
    return 0


def _load_exported(
    options: Options, is_short: bool, terminal: Terminal
) -> tuple[ImagePredictor, ConfidenceRule]:
    """An exported file, without torch."""
    from lamina.data.pixels import count_cores
    from lamina.deploy.confidence_rule import NOT_CALIBRATED, make_rule
    from lamina.deploy.exported_predictor import load_exported

    reason = (
        "An exported file has a net for the CPU, and no predictions for val images, which"
        " --coverage and --aim need."
    )
    refuse(options, reason, "coverage", "aim", "net", "device")
    threads = 1 if is_short else count_cores()
    predictor = load_exported(options.run, threads=threads)
    rule = make_rule(predictor.task, options.confidence_threshold, None)
    if rule.limit is not None and not predictor.description.calibrated:
        terminal.remark(NOT_CALIBRATED)
    return predictor, rule


def _load_run(
    options: Options, is_short: bool, terminal: Terminal
) -> tuple[ImagePredictor, ConfidenceRule]:
    import torch

    from lamina.cli.confidence import choose_task, make_confidence_rule
    from lamina.cli.models import load_predictor
    from lamina.training.recipe import Recipe

    if is_short:
        torch.set_num_threads(1)
    run, predictor = load_predictor(options.run, options.net, options.device, terminal)
    task = choose_task(run, Recipe(aim=options.aim), terminal)
    predictor.model.task = task
    limit = options.confidence_threshold
    return predictor, make_confidence_rule(run, task, limit, options.coverage, terminal)


@contextmanager
def _open_table(
    terminal: Terminal, task: Decision, top: int | None, rule: ConfidenceRule
) -> Iterator[Callable[[Prediction], None]]:
    """Print the ``top`` most likely classes or labels; yields a function that adds a prediction."""
    from lamina.evaluation.predictions import describe
    from lamina.targets import BINARY, REGRESSION, SINGLE_LABEL

    kind = task.kind
    shown = top
    if kind is SINGLE_LABEL:
        shown = top or SHOWN_CLASSES
    elif kind is BINARY:
        shown = None
    heads: Sequence[str] = ("predicted",)
    if kind in (BINARY, REGRESSION):
        heads = task.target_names
    texts = 2
    if kind is REGRESSION:
        texts = 1
    with terminal.table(("image", *heads), texts) as add:

        def write(prediction: Prediction) -> None:
            if prediction.problem is not None:
                return
            if kind is REGRESSION:
                cells = [f"{value:.6g}" for value in prediction.values.values()]
                for place, half_width in enumerate(rule.half_widths):
                    cells[place] += f" ± {half_width:.3g}"
            elif rule.rejects(prediction):
                cells = [f"rejected ({describe(prediction, 1)})"]
            elif rule.threshold is not None:
                cells = [describe(prediction, len(rule.choose(prediction)))]
            else:
                cells = [describe(prediction, shown)]
            add([prediction.name, *cells])

        yield write


@contextmanager
def _open_file(
    file: Path, task: Decision, rule: ConfidenceRule
) -> Iterator[Callable[[Prediction], None]]:
    """Write a table or JSON lines atomically; yields a function that adds a prediction."""
    delimiter = DELIMITERS[file.suffix.lower()]
    columns = _name_columns(task, rule)
    with (
        writing(file, "The file is unchanged; use another --output."),
        open_atomically(file) as opened,
    ):

        def write(prediction: Prediction) -> None:
            if delimiter:
                cells = _list_cells(prediction, rule, len(columns))
                opened.write(format_csv([cells], delimiter))
            else:
                opened.write(f"{json.dumps(_to_event(task, prediction, rule))}\n".encode())

        if delimiter:
            opened.write(format_csv([map(guard, columns)], delimiter))
        yield write


def _to_event(task: Decision, prediction: Prediction, rule: ConfidenceRule) -> dict[str, Any]:
    if prediction.problem is not None:
        return {"event": "problem", "image": prediction.name, "reason": prediction.problem}
    event: dict[str, Any] = {"event": "prediction", **prediction.to_json()}
    if task.kind.name == "binary":
        event["question"] = task.target_names[0]
    if rule.limit is not None:
        event["rejected"] = rule.rejects(prediction)
    if rule.threshold is not None:
        event["set"] = rule.choose(prediction)
    if rule.half_widths:
        event["half_widths"] = dict(zip(task.target_names, rule.half_widths, strict=True))
    return event


def _name_columns(task: Decision, rule: ConfidenceRule) -> list[str]:
    from lamina.evaluation.predictions import name_columns

    columns = ["image", *name_columns(task)]
    if rule.half_widths:
        columns += [f"±({name})" for name in task.target_names]
    if rule.limit is not None:
        columns.append("rejected")
    if rule.threshold is not None:
        columns.append("set")
    return [*columns, "problem"]


def _list_cells(prediction: Prediction, rule: ConfidenceRule, count: int) -> list[str]:
    """The cells of a row with this number of columns."""
    cells = [guard(prediction.name)]
    if prediction.problem is None:
        cells += prediction.cells()
        cells += [f"{half_width:.7g}" for half_width in rule.half_widths]
        if rule.limit is not None:
            cells.append("yes" if rule.rejects(prediction) else "no")
        if rule.threshold is not None:
            cells.append(guard(";".join(rule.choose(prediction))))
    empty = [""] * (count - len(cells) - 1)
    return [*cells, *empty, guard(prediction.problem or "")]
