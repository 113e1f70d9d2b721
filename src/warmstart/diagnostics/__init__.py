"""Looking at a network without touching it."""

from warmstart.diagnostics.validation import Finding, Findings, validate

__all__ = ["Finding", "Findings", "validate"]
