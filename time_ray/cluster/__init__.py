"""The only files that import ray or mlflow."""
