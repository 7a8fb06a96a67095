"""What MLflow is told, and how it is told only once."""
