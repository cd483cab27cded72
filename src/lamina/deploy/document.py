"""A self-contained HTML document.

Its Content-Security-Policy allows only its own style sheet and embedded images.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from lamina.markup import join, list_shades, show


def document(title: str, *parts: str) -> str:
    style = files("lamina.deploy").joinpath("report.css").read_text("utf-8") + list_shades()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none';"
        " form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{show(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"{join(parts)}\n</body>\n</html>\n"
    )
