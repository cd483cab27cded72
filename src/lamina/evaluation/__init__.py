"""Evaluate a model: metrics with confidence intervals, calibration, and predictions."""
