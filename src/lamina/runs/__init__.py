"""Runs: folders of plain files that say what a training was, how it went and what came of it."""
