"""Figures: the only package that imports matplotlib. ``draw_*`` return what ``save_figure`` writes as a PNG."""
