"""MLflow: the only files that import it."""
