"""Runs: folders of plain files with the settings, progress and results of training."""
