"""Inspect trained models and their data: attribution, units, probes, confusions, label issues, near-duplicates."""
