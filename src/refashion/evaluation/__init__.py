"""Answers of a trained model to images, their metrics, and statistics between models."""
