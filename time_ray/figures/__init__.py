"""Figures of sweeps: pure functions from results to matplotlib figures, for MLflow, for reports and for the docs."""
