"""The actions that compute what the page shows. They run in the threads of the studio."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from lamina.deploy.studio import data_views, dropped_images, net_views, results, run_views
from lamina.deploy.studio.arguments import read_arguments
from lamina.deploy.studio.data_folder import DataFolder
from lamina.errors import RunError

Action: TypeAlias = Callable[..., Any]
ACTIONS: dict[str, Action] = {
    "runs": run_views.list_runs,
    "run": run_views.describe_run,
    "report": results.show_report,
    "cell": results.show_cell,
    "units": results.show_units,
    "look": results.look_at,
    "explain": results.explain,
    "similar": results.find_similar,
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


def compute(folder: DataFolder, name: str, values: Mapping[str, Any]) -> Any:
    """The result of an action for the values of a request."""
    if name not in ACTIONS:
        raise RunError(f"The studio has no {name[:100]!r}. Reload the page.")
    action = ACTIONS[name]
    return action(folder, **read_arguments(action, name, values))
