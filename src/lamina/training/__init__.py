"""Training: a recipe, and an iterator that follows it.

The names are imported from their own files, or from ``lamina``: a recipe is a value that needs no torch.
"""
