"""The networks that a comparison can name."""
