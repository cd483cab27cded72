"""Options of the commands that train several experiments: compare, ablate and tune."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lamina.cli.options import DATA, Device, Flag, Json, RunsFolder
from lamina.cli.options.data_options import PreparationFields
from lamina.cli.parsing import Group


@dataclass(frozen=True, kw_only=True)
class SharedOptions:
    """Options of all studies."""

    data: Annotated[
        str | None,
        arg(
            metavar="DATA",
            help=f"{DATA} (default: CIFAR-10, downloaded if necessary; shapes if that fails)",
        ),
        Group("data", text="How to load the images and targets."),
    ] = None
    name: Annotated[
        str | None,
        arg(
            metavar="NAME",
            help="name of the study (default: date and number; the same command continues a study)",
        ),
    ] = None
    runs_dir: RunsFolder = Path("runs")
    preparation: Annotated[PreparationFields, Group("data")] = field(
        default_factory=PreparationFields
    )
    json: Json = False


@dataclass(frozen=True, kw_only=True)
class StudyOptions(SharedOptions):
    """Options of the studies that compare experiments."""

    seeds: Annotated[
        int | None, arg(metavar="N", help="number of seeds: 0, 1, 2 … (default: 4, 8 or 16)")
    ] = None
    time: Annotated[
        str | None, arg(metavar="TIME", help="train as many seeds as fit (30s, 5m, 1h), at least 2")
    ] = None
    margin: Annotated[
        float | None,
        arg(
            metavar="VALUE",
            help=(
                "largest difference that counts as equal (default: 0.005; regression: 1 % of the"
                " score)"
            ),
        ),
    ] = None
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class CompareOptions(StudyOptions):
    """Compare two runs, or two nets that are trained with shared seeds, and state what was shown.

    Two runs without settings, --seeds, --until-decided and --time are not trained: their stored
    logits are compared. Otherwise, lamina trains pairs that share the seed, the splits and the
    order of images.

    Example: lamina compare cnn:best cnn:best,dropout=0.5
    """

    a: Annotated[Positional[str], arg(metavar="A")]
    """a run, or a net as in lamina train; a recipe follows after a colon, settings after commas, as
    in cnn:best,lr=0.01"""
    b: Annotated[Positional[str], arg(metavar="B")]
    """the reference, as A"""
    until_decided: Flag = False
    """train 4, 8 or 16 pairs, until A is better, worse or equal, or more seeds cannot help (the
    default for nets)"""


@dataclass(frozen=True, kw_only=True)
class AblateOptions(StudyOptions):
    """Measure how each part of a net or recipe changes the score.

    lamina removes one part at a time, and compares with the whole. All trainings of a seed share
    the splits and the order of images. Verdicts are adjusted for the number of parts.

    Example: lamina ablate cnn:best --without BatchNorm Dropout flip --seeds 4
    """

    net: Annotated[Positional[str], arg(metavar="NET")]
    """a run, or a net as in lamina train; a recipe follows after a colon, settings after commas, as
    in cnn:best,epochs=5"""
    without: Annotated[tuple[str, ...], arg(metavar="PART...")] = ()
    """classes of layers to remove, such as BatchNorm, and settings of the recipe to reset to their
    defaults, such as flip"""
    each: Flag = False
    """reset each setting of the recipe that differs from its default, except epochs; lr and
    momentum with optimizer"""


@dataclass(frozen=True, kw_only=True)
class TuneOptions(SharedOptions):
    """Search the settings of a recipe, or the sizes of a net, that score best on val.

    lamina trains the best five and the recipe itself with five other seeds, evaluates the winner on
    test, once, and compares it with the recipe. Ranges: lr=1e-4..1e-1:log (logarithmic),
    dropout=0..0.5, batch_size=50,100,200 (these values).

    Example: lamina tune cnn-s:quick --over lr=0.01..0.2:log batch_size=250,500 --time 30m
    """

    net: Annotated[Positional[str | None], arg(metavar="NET")] = None
    """a net as in lamina train; a recipe follows after a colon, settings after commas, as in
    cnn-s:quick,epochs=5; layers may contain names of sizes"""
    over: Annotated[tuple[str, ...], arg(metavar="NAME=RANGE...")] = ()
    """settings of the recipe to search"""
    net_over: Annotated[tuple[str, ...], arg(metavar="NAME=RANGE...")] = ()
    """sizes in the layers of NET to search, as in "Flatten(), Linear(width), ReLU(), Output()"
    --net-over width=32..256"""
    trials: Annotated[
        int | None, arg(metavar="N", help="number of trials of all workers (default: 30)")
    ] = None
    time: Annotated[
        str | None,
        arg(
            metavar="TIME",
            help=(
                "time limit (30s, 5m, 1h) in place of --trials: at least half for the search, the"
                " rest for the finals"
            ),
        ),
    ] = None
    storage: Annotated[str | None, arg(metavar="STORAGE")] = None
    """where the workers of several machines, which all run the same command, share the trials:
    postgresql://USER@HOST/DATABASE (password in ~/.pgpass), or a file on a shared disk (default: a
    file in the study's folder, for the processes of one machine)"""
