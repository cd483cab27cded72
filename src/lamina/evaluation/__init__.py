"""Evaluating a model: its metrics on a split with their uncertainty, and its answers about pictures."""

from __future__ import annotations

from lamina.evaluation.evaluating import evaluate
from lamina.evaluation.intervals import Interval, MeanInterval, mean_interval, wilson_interval
from lamina.evaluation.pictures import Picture, find_pictures
from lamina.evaluation.predictor import Prediction, Predictor
from lamina.evaluation.reports import (
    ClassReport,
    ClassScores,
    LabelReport,
    LabelScores,
    NumberReport,
    NumberScores,
    QuestionScores,
    Report,
    Score,
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
    "Picture",
    "Prediction",
    "Predictor",
    "QuestionScores",
    "Report",
    "Score",
    "View",
    "evaluate",
    "find_pictures",
    "mean_interval",
    "predict_views",
    "views_of",
    "wilson_interval",
]
