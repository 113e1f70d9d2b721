"""A trained network in service: its folder, predictions, exports, and MLflow's model registry."""
