"""Metrics of one model on the test set, and statistics between models."""
