"""Trained models at work: on image files, and in MLflow's registry."""
