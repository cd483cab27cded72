"""Evaluating a model: its metrics on a split with their uncertainty, and its answers about pictures.

The names are imported from their own files, or from ``lamina``.
"""
