"""Changes of the written pages that Sphinx and the theme have no setting for.

Screen readers need three of them: the parameters of a signature must not be a list of definitions
without terms, the buttons that open a part of the sidebar need names, and an empty cell must not be
the head of a column. The fourth one gives the list of a class's attributes the name that it has in
docstrings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PARAMETERS = re.compile(r'<dl>\s*((?:<dd><em class="sig-param">.*?</dd>\s*)+)</dl>', re.DOTALL)
ATTRIBUTES = re.compile(r'(<dt class="field-\w+">)Variables<')
EMPTY_HEAD = re.compile(r'<th class="(head[^"]*)">(?:<p></p>)?</th>')
TOGGLE = '<summary><span class="toctree-toggle" role="presentation">'
NAMED_TOGGLE = '<summary aria-label="Show the pages of this part">' + TOGGLE.removeprefix(
    "<summary>"
)


def setup(app: Any) -> None:
    app.connect("build-finished", change_pages)


def change_pages(app: Any, exception: Exception | None) -> None:
    if exception is not None or app.builder.name != "html":
        return
    for file in Path(app.outdir).rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        changed = PARAMETERS.sub(replace_list, text)
        changed = EMPTY_HEAD.sub(r'<td class="\1"></td>', changed)
        changed = ATTRIBUTES.sub(r"\1Attributes<", changed.replace(TOGGLE, NAMED_TOGGLE))
        if changed != text:
            file.write_text(changed, encoding="utf-8")


def replace_list(match: re.Match[str]) -> str:
    lines = match[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
    return f'<span class="sig-lines">{lines}</span>'
