"""Inspect models and data: attribution, units, probes, confusions, label issues, duplicates."""
