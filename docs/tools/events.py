"""The page of events: what trainings and studies yield, and what commands print as JSON."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module

from lamina.training.events import Event
from tools.markdown import code_spans, row, table_of
from tools.schemas import describe_fields

EVENT_MODULES = (
    "training.events",
    "evaluation.paired_comparison",
    "studies.choosing",
    "studies.study",
    "studies.experiment",
    "studies.seeds",
    "studies.cross_validation",
    "studies.search",
    "studies.finals",
)


def list_events() -> Iterator[str]:
    yield "# Events"
    yield ""
    yield "A training is an iterator of events. In Python, `Run.iter_train` and `Training` yield"
    yield "them. With `--json`, commands print each event as one JSON object in a line on stdout;"
    yield "the field `event` has its name. An error is an event, too:"
    yield '`{"event": "error", "error": "…"}`.'
    yield ""
    yield "NaN and infinity become `null`."
    yield ""
    yield "## Events of trainings and studies"
    for kind in find_events():
        schema = describe_fields(kind, {})
        name, text = describe_json(kind)
        yield ""
        yield f"### {name}"
        yield ""
        yield code_spans(schema["description"])
        yield f"Python: `{kind.__module__}.{kind.__name__}`. {text}"
        yield ""
        yield from table_of(schema)
    yield ""
    yield "## Results of commands"
    yield ""
    yield "| event | command | fields |"
    yield "|---|---|---|"
    for name, command, fields in RESULTS:
        yield row([f"`{name}`", f"`lamina {command}`", code_spans(fields)])


def describe_json(kind: type[Event]) -> tuple[str, str]:
    """The name of an event in JSON, and how its JSON differs from its fields."""
    method = kind.to_json
    if method is Event.to_json:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower(), ""
    name = re.search(r'"event": "(\w+)"', inspect.getsource(method))
    text = " ".join((method.__doc__ or "").split())
    return name[1] if name else kind.__name__.lower(), code_spans(text)


def find_events() -> Iterator[type]:
    for name in EVENT_MODULES:
        module = import_module(f"lamina.{name}")
        for value in vars(module).values():
            is_event = inspect.isclass(value) and issubclass(value, Event) and value is not Event
            if is_event and value.__module__ == module.__name__:
                yield value


RESULTS = (
    (
        "prediction",
        "predict",
        "``image``, ``predicted``, ``probabilities`` (except for numbers),"
        " ``question`` (yes or no), ``rejected`` (with ``--confidence-threshold``)",
    ),
    ("problem", "predict, explain, similar, data labels, runs", "``image`` or ``run``, ``reason``"),
    ("remark", "… --progress", "``text``: a line of stderr"),
    (
        "result",
        "train, resume",
        "``run``, ``net``, ``data``, ``size_px``, ``parameters``, ``kind``, ``epochs_done``,"
        " ``epochs``, ``train_seconds``, ``images_per_second``, scores, ``stopped_by``,"
        " ``seconds``",
    ),
    (
        "result",
        "reproduce",
        "``net``, ``runs``, ``data``, ``split``, ``published``, ``measured``,"
        " ``low``, ``high``; of a run ``run``, ``same``, ``epochs``, ``changes``",
    ),
    ("reproduced", "reproduce", "``run``, ``epoch``, ``recorded``, ``again``, ``same``"),
    ("comparison", "compare, ablate, tune", "as for the event ``comparison``"),
    ("report", "evaluate", "``run``, and the fields of ``report.json``"),
    (
        "data",
        "data",
        "``data``, ``fingerprint``, ``shape``, ``images``, ``counts``,"
        " ``numbers``, ``imbalance_ratio``, ``sizes``, ``channels``, ``split_rule``, ``problems``,"
        " ``duplicates``, ``findings``, the effect of corrections, ``contact_sheet``",
    ),
    ("sample", "data --sample", "``folder``, ``files``"),
    (
        "duplicates",
        "data duplicates",
        "``pairs`` (``first``, ``second``, ``distance``, ``splits``), ``near_train``",
    ),
    ("labels", "data labels", "``label_issues``, ``agreement``"),
    ("hard", "data labels", "``splits``, ``classes``, ``pairs``, ``losses``"),
    (
        "layer",
        "inspect",
        "``layer``, ``name``, ``units``, ``sees_px``, ``metric``, ``probe``,"
        " ``probe_untrained``, ``file``",
    ),
    (
        "unit",
        "inspect",
        "``layer``, ``file``, ``unit``, ``auc``, ``patches``",
    ),
    (
        "explanation",
        "explain",
        "``image``, ``predicted``, ``target``, ``method``, ``file``, and the"
        " faithfulness of the map",
    ),
    ("similar", "similar", "``image``, ``similar``"),
    ("summary", "summary", "the fields of ``Summary``"),
    (
        "run",
        "runs",
        "``run``, ``net``, ``data``, ``parameters``, ``epochs``, ``train_seconds``, scores",
    ),
    (
        "trial",
        "runs --study",
        "``trial``, ``state``, ``values``, ``score``, ``epoch``, ``seconds``, ``error``",
    ),
    ("difference", "runs", "``what``, ``a``, ``b``"),
    ("result", "runs", "``runs``, ``differences``, ``incomparable``"),
    ("export", "export", "``run``, ``file``, ``bytes``, and the result of the parity check"),
    ("page", "report", "``file``, ``bytes``"),
    ("card", "report", "``file``, ``bytes``"),
    ("serving", "serve", "``url``"),
    ("studio", "studio", "``url``"),
)
"""What commands print with ``--json`` beside the events above: event, command and fields."""
