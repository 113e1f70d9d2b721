"""The only place that knows layer types."""
