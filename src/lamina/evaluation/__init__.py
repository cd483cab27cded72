"""Evaluating a model: its metrics on a split with their uncertainty, and its predictions."""
