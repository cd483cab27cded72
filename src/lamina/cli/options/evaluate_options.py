"""Options of the commands that evaluate: evaluate, runs, report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lamina.cli.options import Device, Flag, Json, MovedData, OwnModule, RunFolder, RunsFolder
from lamina.cli.options.data_options import PreparationFields
from lamina.cli.parsing import Group


@dataclass(frozen=True)
class EvaluateOptions:
    """Evaluate a run's model on its test images, or on another data set.

    If some of these images are near-duplicates of training images, lamina also prints the score
    without them.

    Example: lamina evaluate runs/pets --data new-photos
    """

    run: RunFolder
    data: Annotated[str | None, arg(metavar="DATA")] = None
    """another data set; lamina evaluates all of it, unless it is divided into splits (default: the
    run's data set)"""
    unknown: Literal["error", "ignore"] = "error"
    """what to do with images of classes that the model does not know: stop, or leave them out"""
    rename: Annotated[Path | None, arg(metavar="FILE")] = None
    """CSV file with two columns, without a header: a class of DATA, and the model's class for it"""
    split: Literal["train", "val", "test"] | None = None
    """split to evaluate on (default: test, or val if there is no test)"""
    near_duplicates: bool | None = None
    """search for near-duplicates of training images (default: only in the run's data set, if it
    takes at most 5 seconds)"""
    output: Annotated[Path | None, arg(metavar="FILE")] = None
    """save a table with a row for each image to this .csv file: target, prediction, probabilities,
    split and fold; for the model of a cross-validation, also the predictions of its folds"""
    preparation: Annotated[
        PreparationFields, Group("data", text="How to load other images and targets.")
    ] = field(default_factory=PreparationFields)
    net: OwnModule = None
    device: Device = "auto"
    json: Json = False


@dataclass(frozen=True)
class RunsOptions:
    """List the runs in a folder, oldest first, or those of a study, or compare two runs.

    Example: lamina runs --diff pets pets-2
    """

    diff: Annotated[tuple[Path, Path] | None, arg(metavar="A B")] = None
    """compare two runs, given by path or by name in --runs-dir: recipe, net, data, versions,
    processor, threads, precision and results"""
    study: Annotated[str | None, arg(metavar="DIR")] = None
    """list the runs of a study, or the trials of a study of lamina tune. DIR is the study's folder,
    or its name in --runs-dir"""
    runs_dir: RunsFolder = Path("runs")
    json: Json = False


@dataclass(frozen=True)
class ReportOptions:
    """Write a self-contained HTML report about a run or a study.

    The report shows scores, images and problems, and how to reproduce the results.

    Example: lamina report runs/pets
    """

    run: RunFolder
    file: Annotated[Positional[Path | None], arg(metavar="[OUT]", help_behavior_hint="")] = None
    """file to write (default: report.html in the run's folder, or README.md with --card)"""
    card: Flag = False
    """write a model card in Markdown with Hugging Face metadata instead; lamina never overwrites an
    existing card"""
    data: MovedData = None
    net: OwnModule = None
    json: Json = False
