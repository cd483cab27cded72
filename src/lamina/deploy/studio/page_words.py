"""Messages of commands in the words of the page, which has fields and buttons, no options."""

from __future__ import annotations

import re
from typing import Any

from lamina.deploy.studio import recipe_fields

LABELS = recipe_fields.LABELS | {
    "size": "Image size",
    "size_px": "Image size",
    "val": "Part held out (val)",
    "time": "Time limit",
}
# with Python in it, which may have parentheses
ASIDE = re.compile(r" \([^()]*(?:in Python|on the command line)[^()]*(?:\([^()]*\)[^()]*)*\)")
RESUME = re.compile(r"\b(?:run|use|resume it with) lamina resume [^ ]*\w", re.IGNORECASE)
NAMES = "|".join(name for name in LABELS if "_" in name or name == "lr")
FIELD = re.compile(rf"--(?:no-)?([a-z-]+)|^(\w+)(?= is | must )|(?<![.\w'])({NAMES})\b")
SENTENCES = re.compile(r"(?<=[.;]) (?=\w)")
COMMANDS = "train|data|resume|report|explain|export|predict|evaluate|compare|tune|runs"
FOREIGN = re.compile(rf"--[a-z]|\blamina (?:{COMMANDS})\b|\b(?:load_run|Recipe|Preparation)\(")
SPOKEN = {"problem", "error", "message", "text", "finding", "advice", "reason"}


def reword(text: str) -> str:
    """The message without commands, options and Python, or with the fields in place of them."""
    text = RESUME.sub("press Continue", ASIDE.sub("", text))
    text = FIELD.sub(_name_field, text)
    sentences = SENTENCES.split(text)
    remedies = [sentence for sentence in sentences[1:] if not FOREIGN.search(sentence)]
    kept = [sentences[0], *remedies]
    joined = " ".join(kept)
    if kept[-1] != sentences[-1]:
        joined = joined.rstrip(";.") + "."
    return joined


def _name_field(match: re.Match[str]) -> str:
    name = "".join(group or "" for group in match.groups())
    return LABELS.get(name.replace("-", "_"), match[0])


def reword_values(values: dict[str, Any]) -> dict[str, Any]:
    """The values of an event, whose messages are reworded."""
    for name in SPOKEN & values.keys():
        if isinstance(values[name], str):
            values[name] = reword(values[name])
    return values
