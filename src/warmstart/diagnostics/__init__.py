"""Checks of a network that do not change it."""

from warmstart.diagnostics.validation import Finding, Findings, validate

__all__ = ["Finding", "Findings", "validate"]
