"""Studies beside the classifiers: data, models, losses and settings through the same engines."""
