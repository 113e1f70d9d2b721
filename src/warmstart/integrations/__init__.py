"""Methods in everyone's training loop: applied once for each arrival of data, and remembered in its checkpoints.

`WarmStart` here is for a loop of your own and for Accelerate; `warmstart.integrations.lightning` and
`warmstart.integrations.transformers` hold the callbacks of the same name. None needs more than torch and its framework.
"""

from warmstart.integrations.warm_start import WarmStart

__all__ = ["WarmStart"]
