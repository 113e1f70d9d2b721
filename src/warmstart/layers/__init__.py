"""The only place that knows layer types: neurons, norms, matrices, units."""
