"""Trained models at work: in MLflow's registry, behind its server, and on image files."""
