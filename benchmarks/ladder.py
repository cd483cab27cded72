r"""Accuracy and training time of nets and recipes of the zoo, as a table and a figure.

Every training is a process, ``lamina train NET --recipe NAME --json``; all nets take turns, one
seed at a time. Test accuracy is measured after the last epoch. Mean and 95 % interval are over the
seeds.

"s to T %" is the time from the command to the printed test accuracy if that is at least T,
including start-up, loading and evaluation. If a seed does not reach the target, the table has the
number of seeds that do.

``--with-article`` adds the article's CNN script.

    python benchmarks/ladder.py --nets mlp,cnn:article --seeds 3 --target 0.7552 \
        --json ladder.json --png ladder.png
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from article import (
    ARTICLE,
    extract_script,
    instrument_script,
    train_by_script,
    write_images,
    write_subset,
)
from processes import append_row, train_by_lamina
from rich.console import Console
from rich.table import Table

from lamina import load_data, zoo
from lamina.errors import LaminaError
from lamina.evaluation.intervals import mean_interval

ARTICLE_EPOCHS = 10
BY_ARTICLE = "article's script"


@dataclasses.dataclass(frozen=True)
class Row:
    """One training.

    Attributes:
        who: NET:RECIPE, or the script.
        seed: seed of all random numbers.
        epochs: number of epochs.
        train_seconds: time of training alone.
        process_seconds: from the command to the exit.
        test_accuracy: a fraction, after the last epoch.
        target_seconds: from the command to the printed test accuracy; ``None`` if that is below the
            target.
    """

    who: str
    seed: int
    epochs: int
    train_seconds: float
    process_seconds: float
    test_accuracy: float
    target_seconds: float | None


def train_with_lamina(
    who: str, seed: int, epochs: int | None, target: float, data: str, runs: Path
) -> Row:
    net, _, recipe = who.partition(":")
    options = {"--recipe": recipe, "--data": data, "--seed": seed, "--runs-dir": runs}
    training = train_by_lamina(net, options | ({"--epochs": epochs} if epochs else {}))
    result = training.result
    return Row(
        who=who,
        seed=seed,
        epochs=len(training.epochs),
        train_seconds=result["train_seconds"],
        process_seconds=training.seconds,
        test_accuracy=result["test_accuracy"],
        target_seconds=result["printed_seconds"] if result["test_accuracy"] >= target else None,
    )


def train_with_article(
    article: Path, seed: int, epochs: int | None, target: float, arrays_file: Path
) -> Row:
    script, count = arrays_file.with_name("article-cnn.py"), epochs or ARTICLE_EPOCHS
    text = extract_script(article.read_text(encoding="utf-8"), "cnn")
    script.write_text(instrument_script(text, arrays_file, seed, count), encoding="utf-8")
    done = train_by_script(script, "cnn", seed, count)
    reached = done.printed_seconds if done.test_accuracy >= target else None
    return Row(
        BY_ARTICLE,
        seed,
        count,
        done.epochs_seconds,
        done.process_seconds,
        done.test_accuracy,
        reached,
    )


def tabulate(rows: Sequence[Row], target: float) -> Table:
    """Tabulate mean accuracy with its interval, and median seconds, fastest training first."""
    seeds = len({row.seed for row in rows})
    table = Table(
        title=f"{seeds} seeds; ± is the 95 % interval of the mean" if seeds > 1 else "1 seed"
    )
    for head in (
        "net",
        "accuracy",
        "train s",
        "process s",
        f"s to {100 * target:g} %",
    ):
        table.add_column(head, justify="left" if head == "net" else "right", no_wrap=True)
    for who, side in group(rows).items():
        accuracy = mean_interval([100 * row.test_accuracy for row in side])
        reach = "" if accuracy.low is None else f" ± {accuracy.mean - accuracy.low:.2f}"
        table.add_row(
            who,
            f"{accuracy.mean:.2f}{reach} %",
            f"{median_train_seconds(side):.1f}",
            f"{statistics.median(row.process_seconds for row in side):.1f}",
            tell_target(side),
        )
    return table


def tell_ratios(rows: Sequence[Row], target: float) -> list[str]:
    """Compare each net's seconds with the article's script."""
    sides, lines = group(rows), []
    article = sides.pop(BY_ARTICLE, [])
    for who, side in sides.items():
        reached = [row.target_seconds for row in side if row.target_seconds is not None]
        if article and len(reached) == len(side):
            seconds = [row.target_seconds or row.process_seconds for row in article]
            ratio = statistics.median(seconds) / statistics.median(reached)
            there = sum(row.target_seconds is not None for row in article)
            lines.append(
                f"{who} reaches {target:.2%} {ratio:.1f} times as fast as the article's script "
                f"({there} of {len(article)} of its trainings reach it)"
            )
    return lines


def tell_target(side: Sequence[Row]) -> str:
    """The median seconds to the target if every seed reached it, else how many seeds did."""
    reached = [row.target_seconds for row in side if row.target_seconds is not None]
    if len(reached) < len(side):
        return f"{len(reached)} of {len(side)} seeds"
    return f"{statistics.median(reached):.1f}"


def group(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group rows by net, fastest training first."""
    sides = {
        who: [row for row in rows if row.who == who]
        for who in dict.fromkeys(row.who for row in rows)
    }
    return dict(sorted(sides.items(), key=lambda item: median_train_seconds(item[1])))


def median_train_seconds(side: Sequence[Row]) -> float:
    return statistics.median(row.train_seconds for row in side)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw mean accuracy and its interval over training seconds (log scale), with all seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, (who, side) in enumerate(group(rows).items()):
        accuracy = mean_interval([100 * row.test_accuracy for row in side])
        seconds = median_train_seconds(side)
        reach = 0.0 if accuracy.low is None else accuracy.mean - accuracy.low
        marks = axes.errorbar([seconds], [accuracy.mean], yerr=[reach], marker="o", capsize=3)
        color = marks.lines[0].get_color()
        every = [(row.train_seconds, 100 * row.test_accuracy) for row in side]
        axes.plot(*zip(*every, strict=True), marker=".", linestyle="none", color=color, alpha=0.5)
        # Labels alternate above and below, as neighbors may be close.
        offset = (7, 4 if place % 2 else -13)
        axes.annotate(
            who, (seconds, accuracy.mean), textcoords="offset points", xytext=offset, color=color
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.set_xlabel("training time in seconds, median of the seeds")
    axes.set_ylabel("test accuracy after the last epoch (%)")
    axes.grid(which="both", alpha=0.2)
    axes.margins(x=0.25, y=0.15)
    figure.savefig(path, dpi=150)


def expand(names: str) -> list[str]:
    """Expand comma-separated names to NET:RECIPE; a net alone means all its recipes."""
    found = []
    for name in names.split(","):
        net, _, recipe = name.strip().partition(":")
        chosen = [recipe] if recipe else list(zoo.load_recipes(net))
        found += [f"{net}:{chosen_name}" for chosen_name in chosen]
    return found


def main(
    nets: str = ",".join(zoo.NAMES),
    seeds: int = 3,
    first_seed: int = 0,
    target: float = 0.7552,
    epochs: int | None = None,
    images: int | None = None,
    with_article: bool = False,
    article: Path = ARTICLE,
    json_path: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    png: Path | None = None,
) -> None:
    """Train nets of the zoo with several seeds: accuracy, seconds, seconds to a target accuracy.

    Args:
        nets: nets of the zoo, separated by commas; NET:RECIPE selects one recipe, NET all of them.
        seeds: number of seeds.
        first_seed: the first seed.
        target: test accuracy to reach, a fraction.
        epochs: number of epochs, instead of the recipe's.
        images: approximate number of training and of test images; for a quick trial without
            meaningful results.
        with_article: also train with the article's CNN script.
        article: Markdown file of the article.
        json_path: file for the results, one JSON object per line.
        png: file for the figure of accuracy over seconds.
    """
    entries = expand(nets)
    rows: list[Row] = []

    def keep(row: Row) -> None:
        rows.append(row)
        tell(row)
        if json_path is not None:
            append_row(json_path, row)

    if json_path is not None:
        json_path.write_text("")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arrays_file, source, data = folder / "images.npz", "cifar10", load_data("cifar10")
        if images is not None:
            source = str(write_subset(data, images, folder / "subset"))
            data = load_data(source)
        if with_article:
            write_images(data, arrays_file)
        # In turns, so that a slow minute of the machine affects every net.
        for seed in range(first_seed, first_seed + seeds):
            for who in entries:
                keep(train_with_lamina(who, seed, epochs, target, source, folder / "runs"))
            if with_article:
                keep(train_with_article(article, seed, epochs, target, arrays_file))
    Console().print(tabulate(rows, target))
    for line in tell_ratios(rows, target):
        print(line)
    if png is not None:
        draw(rows, png)


def tell(row: Row) -> None:
    reached = "not reached" if row.target_seconds is None else f"after {row.target_seconds:.1f} s"
    print(
        f"{row.who} seed {row.seed}: {row.test_accuracy:.2%} after {row.epochs} epochs, "
        f"{row.train_seconds:.1f} s of training, process {row.process_seconds:.1f} s, "
        f"target {reached}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except LaminaError as error:
        raise SystemExit(str(error)) from None
