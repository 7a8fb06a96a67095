"""Drawings of runs and of studies, for MLflow and for pages."""
