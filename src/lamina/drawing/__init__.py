"""Figures: the only package that imports matplotlib. ``draw_*`` return what ``save_figure`` writes as a PNG."""

from __future__ import annotations

from lamina.drawing.attribution import draw_attributions
from lamina.drawing.contact_sheet import build_contact_sheet, build_hard_sheet, build_suspects_sheet
from lamina.drawing.curves import draw_curves
from lamina.drawing.reports import draw_confusion, draw_labels, draw_reliability, draw_scatter
from lamina.drawing.style import encode_png, save_figure
from lamina.drawing.units import build_unit_sheet, build_units_sheet, draw_probes, draw_similarity

__all__ = [
    "build_contact_sheet",
    "build_hard_sheet",
    "build_suspects_sheet",
    "build_unit_sheet",
    "build_units_sheet",
    "draw_attributions",
    "draw_confusion",
    "draw_curves",
    "draw_labels",
    "draw_probes",
    "draw_reliability",
    "draw_scatter",
    "draw_similarity",
    "encode_png",
    "save_figure",
]
