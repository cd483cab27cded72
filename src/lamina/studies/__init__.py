"""Trainings that are chosen or compared: what to train, on which images, and for how long."""
