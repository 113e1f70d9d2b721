"""The paper's theory, to run and to look at: features, noise, memorisation, and why warm starts fail."""
