"""The actions that compute what the page shows. They run in the torch processes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch

from lamina.deploy.studio import data_views, dropped_images, net_views, results, run_views
from lamina.deploy.studio.arguments import describe_bad_value, read_arguments
from lamina.deploy.studio.data_folder import DataFolder
from lamina.errors import RunError

NICENESS = 5  # training comes first
Action: TypeAlias = Callable[..., Any]
ACTIONS: dict[str, Action] = {
    "runs": run_views.list_runs,
    "run": run_views.describe_run,
    "compare": results.compare_with,
    "preview": data_views.preview_data,
    "images": data_views.draw_images,
    "plan": net_views.plan_training,
    "forward": net_views.show_untrained,
    "set": dropped_images.list_images,
    "save-image": dropped_images.save_image,
    "remove-image": dropped_images.remove_image,
    "rename-class": dropped_images.rename_class,
    "delete-class": dropped_images.delete_class,
}
"""Functions of the studio's folders and of the values of a request."""
RUN_ACTIONS: dict[str, Action] = {
    "report": results.show_report,
    "cell": results.show_cell,
    "units": results.show_units,
    "look": results.look_at,
    "explain": results.explain,
    "similar": results.find_similar,
}
"""Functions of the folder of a run and of the other values of a request."""


def prepare() -> None:
    """Prepare the process: training comes first, and nothing is downloaded without asking."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    os.environ["LAMINA_OFFLINE"] = "1"
    warnings.simplefilter("ignore")  # the page and the commands show what matters
    torch.set_num_threads(1)


def compute(folder: DataFolder, name: str, values: Mapping[str, Any]) -> Any:
    """The result of an action for the values of a request."""
    if name not in ACTIONS and name not in RUN_ACTIONS:
        raise RunError(f"The studio has no {name[:100]!r}. Reload the page.")
    try:
        if name in ACTIONS:
            action = ACTIONS[name]
            return action(folder, **read_arguments(action, name, values))
        action = RUN_ACTIONS[name]
        arguments = read_arguments(action, name, values, has_run=True)
        return action(folder.find_run(arguments.pop("run")), **arguments)
    except (OSError, UnicodeEncodeError) as error:
        raise RunError(describe_bad_value(error)) from None
