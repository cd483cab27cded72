"""lamina ablate: measure how each part of a net or recipe changes the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from lamina.cli.fields import StudyOptions
from lamina.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """Measure how each part of a net or recipe changes the score.

    lamina removes one part at a time, and compares with the whole. All runs of a seed share the
    splits and the order of images. Verdicts are adjusted for the number of parts.

    Example: lamina ablate cnn:best --without BatchNorm Dropout flip --seeds 4
    """

    net: Positional[str]
    """a run, or a net as in lamina train; a recipe follows after a colon, settings after commas, as
    in cnn:best,epochs=5"""
    without: Annotated[tuple[str, ...], arg(metavar="PART...")] = ()
    """classes of layers to remove, such as BatchNorm, and settings of the recipe to reset to their
    defaults, such as flip; lr and momentum are reset with optimizer"""


def run(options: Options, terminal: Terminal) -> int:
    from lamina.cli import study_session
    from lamina.studies.ablation import read_ablation, remove_parts
    from lamina.studies.comparison import FIGURE, plan_study

    plan = study_session.read_plan(options)
    (source,) = study_session.find_sources([options.net], options)
    dataset = study_session.load_study_data([source], options, terminal)
    ((_, whole),) = study_session.plan_experiments([source], dataset, terminal)
    experiments = remove_parts(source, whole, options.without)
    planned = plan_study(options.runs_dir, options.name, experiments, plan)
    status = study_session.train_study(planned, terminal, options.jobs)
    if status:
        return status
    ablation = read_ablation(planned)
    for comparison in ablation.comparisons:
        terminal.emit(**comparison.to_json())
    terminal.say(ablation.headline())
    terminal.tabulate(*ablation.table(), texts=ablation.texts)
    terminal.say(f"figure: {planned.path / FIGURE}")
    return 0
