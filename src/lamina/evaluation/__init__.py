"""Judging a model: its figures on a split, and how sure they are."""

from __future__ import annotations

from lamina.evaluation.evaluating import evaluate
from lamina.evaluation.intervals import Interval, MeanInterval, mean_interval, wilson_interval
from lamina.evaluation.reports import (
    ClassReport,
    ClassScores,
    LabelReport,
    LabelScores,
    NumberReport,
    NumberScores,
    QuestionScores,
    Report,
)
from lamina.evaluation.views import View, predict_views, views_of

__all__ = [
    "ClassReport",
    "ClassScores",
    "Interval",
    "LabelReport",
    "LabelScores",
    "MeanInterval",
    "NumberReport",
    "NumberScores",
    "QuestionScores",
    "Report",
    "View",
    "evaluate",
    "mean_interval",
    "predict_views",
    "views_of",
    "wilson_interval",
]
