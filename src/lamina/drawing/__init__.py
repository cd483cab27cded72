"""Figures. ``draw_*`` return a figure, ``save_figure`` writes it as a PNG. Only this package imports matplotlib."""
