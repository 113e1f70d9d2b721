"""The only code that depends on layer types: neurons, norms, matrices, units."""
