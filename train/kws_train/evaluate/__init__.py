"""Evaluation on clips and on continuous audio: scores, calibration, plots, reports."""
