"""The paper's theory as experiments: features, noise, memorisation, and why warm starts fail."""
