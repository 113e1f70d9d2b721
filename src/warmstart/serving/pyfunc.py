"""What MLflow calls to load a registered model: `mlflow.pyfunc.load_model("models:/NAME@current")`."""

from __future__ import annotations

from typing import Any

import numpy as np

from warmstart.serving.served import Served, load


class Scored:
    """A model as `mlflow models serve` wants it: what comes in and goes out is JSON."""

    def __init__(self, served: Served) -> None:
        """Predict with this model."""
        self._served = served

    def predict(self, images: Any, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Say what is in images: an array of whole numbers from 0 to 255, or whatever `Served.predict` takes.

        Returns:
            For each image its ``label`` and the ``probability`` of that.
        """
        if isinstance(images, np.ndarray) and images.dtype.kind in "iu" and images.size and images.min() >= 0:
            images = images.astype(np.uint8) if images.max() <= 255 else images  # JSON has one kind of numbers
        predicted = self._served.predict(images)
        best = predicted.probabilities.gather(1, predicted.labels[:, None])[:, 0].tolist()
        return [{"label": name, "probability": p} for name, p in zip(predicted.names, best, strict=True)]


def _load_pyfunc(path: str) -> Scored:
    return Scored(load(path))
