"""Image classifiers from stacked layers: define, train and evaluate a net on your own computer.

>>> import tempfile
>>> from lamina import Net, Recipe, load_data, start_run
>>> from lamina.nets import Flatten, Linear, Output, ReLU
>>> net = Net(Flatten(), Linear(20), ReLU(), Output())
>>> run = start_run(load_data("shapes"), net, Recipe(epochs=1), runs_dir=tempfile.mkdtemp())
>>> run.train(progress=False).split
'test'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lamina.data import Dataset, Images, Preparation, load_data
    from lamina.errors import LaminaError, LaminaWarning
    from lamina.evaluation.comparing import compare_scores
    from lamina.evaluation.evaluating import evaluate
    from lamina.evaluation.predictions import Prediction
    from lamina.evaluation.predictor import Predictor
    from lamina.evaluation.report import Report
    from lamina.nets import Net, parse_net, summarize
    from lamina.runs.progress import show_progress
    from lamina.runs.run import Run, list_runs, load_run
    from lamina.runs.start import start_run
    from lamina.studies.ablation import ablate
    from lamina.studies.analyses import (
        explain,
        find_confusions,
        find_label_issues,
        find_near_duplicates,
        find_similar,
        inspect_units,
        probe_layers,
    )
    from lamina.studies.comparison import compare
    from lamina.studies.cross_validation import cross_validate
    from lamina.studies.experiment_text import Variant
    from lamina.studies.train_net import train
    from lamina.studies.tuning import Study, tune
    from lamina.training.custom import LowerIsBetter, Parts
    from lamina.training.events import Diagnosis, Epoch, Step
    from lamina.training.group import join_group
    from lamina.training.hooks import activations
    from lamina.training.loop import Training
    from lamina.training.model import Model
    from lamina.training.prediction import predict_logits
    from lamina.training.recipe import Recipe
    from lamina.training.task import Task
    from lamina.zoo import load_net, load_recipe

__version__ = "0.1.0"

# Each name is imported when it is first asked for: `import lamina` loads neither torch nor
# matplotlib.
_PACKAGES = {
    "lamina.data": ("Dataset", "Images", "Preparation", "load_data"),
    "lamina.errors": ("LaminaError", "LaminaWarning"),
    "lamina.evaluation.comparing": ("compare_scores",),
    "lamina.evaluation.evaluating": ("evaluate",),
    "lamina.evaluation.predictions": ("Prediction",),
    "lamina.evaluation.predictor": ("Predictor",),
    "lamina.evaluation.report": ("Report",),
    "lamina.nets": ("Net", "parse_net", "summarize"),
    "lamina.runs.progress": ("show_progress",),
    "lamina.runs.run": ("Run", "list_runs", "load_run"),
    "lamina.runs.start": ("start_run",),
    "lamina.studies.ablation": ("ablate",),
    "lamina.studies.analyses": (
        "explain",
        "find_confusions",
        "find_label_issues",
        "find_near_duplicates",
        "find_similar",
        "inspect_units",
        "probe_layers",
    ),
    "lamina.studies.comparison": ("compare",),
    "lamina.studies.cross_validation": ("cross_validate",),
    "lamina.studies.experiment_text": ("Variant",),
    "lamina.studies.train_net": ("train",),
    "lamina.studies.tuning": ("Study", "tune"),
    "lamina.training.hooks": ("activations",),
    "lamina.training.events": ("Diagnosis", "Epoch", "Step"),
    "lamina.training.prediction": ("predict_logits",),
    "lamina.training.loop": ("Training",),
    "lamina.training.group": ("join_group",),
    "lamina.training.model": ("Model",),
    "lamina.training.custom": ("LowerIsBetter", "Parts"),
    "lamina.training.recipe": ("Recipe",),
    "lamina.training.task": ("Task",),
    "lamina.zoo": ("load_net", "load_recipe"),
}
_PACKAGE_OF = {name: package for package, names in _PACKAGES.items() for name in names}

__all__ = [
    "Dataset",
    "Diagnosis",
    "Epoch",
    "Images",
    "LaminaError",
    "LaminaWarning",
    "LowerIsBetter",
    "Model",
    "Net",
    "Parts",
    "Prediction",
    "Predictor",
    "Preparation",
    "Recipe",
    "Report",
    "Run",
    "Step",
    "Study",
    "Task",
    "Training",
    "Variant",
    "ablate",
    "activations",
    "compare",
    "compare_scores",
    "cross_validate",
    "evaluate",
    "explain",
    "find_confusions",
    "find_label_issues",
    "find_near_duplicates",
    "find_similar",
    "inspect_units",
    "join_group",
    "list_runs",
    "load_data",
    "load_net",
    "load_recipe",
    "load_run",
    "parse_net",
    "predict_logits",
    "probe_layers",
    "show_progress",
    "start_run",
    "summarize",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _PACKAGE_OF:
        raise AttributeError(f"module 'lamina' has no attribute {name!r}")
    value = getattr(import_module(_PACKAGE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
