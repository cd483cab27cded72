"""Load data sets: from a name or a path to arrays of images with their targets."""

from lamina.data.images import Dataset, Images, Problem
from lamina.data.load import NAMES, find_default_data, load_data
from lamina.data.matching import load_to_evaluate
from lamina.data.preparation import Preparation
from lamina.data.sources.drawn import draw_shapes

__all__ = [
    "NAMES",
    "Dataset",
    "Images",
    "Preparation",
    "Problem",
    "draw_shapes",
    "find_default_data",
    "load_data",
    "load_to_evaluate",
]
