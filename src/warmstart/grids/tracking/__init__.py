"""Experiment trackers: TensorBoard, Weights & Biases and MLflow follow a grid of runs as it goes on."""
