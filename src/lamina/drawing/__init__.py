"""Figures: ``draw_*`` return a figure, and ``save_figure`` writes it as a PNG.

Only this package imports matplotlib.
"""
