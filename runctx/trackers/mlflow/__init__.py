"""MLflow as a view of runs. Importing this loads no mlflow: that takes seconds, and is left until a run is opened."""

from .tracker import MLflow

__all__ = ["MLflow"]
