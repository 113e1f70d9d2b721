"""warmstart: retrain networks on growing data at the cost of a warm start and the accuracy of a cold one.

DASH and its rivals as functions that change a network in place, for any training loop. This face needs torch
alone; the command line and the experiments come with ``pip install 'warmstart[lab]'``.
"""

from typing import TYPE_CHECKING, Any

from warmstart.batches import oldest_first
from warmstart.diagnostics import Finding, Findings, validate
from warmstart.errors import InputError
from warmstart.gradient_ema import GradientEMA
from warmstart.layers.neurons import register_layer
from warmstart.methods.cold import Cold, cold_
from warmstart.methods.dash import Dash, dash_, dash_from_
from warmstart.methods.fire import Fire, fire_
from warmstart.methods.head_reset import HeadReset, head_reset_
from warmstart.methods.l2_init import L2Init, l2_init_
from warmstart.methods.method import Method, Stage
from warmstart.methods.registry import parse_method
from warmstart.methods.report import Report
from warmstart.methods.shrink_perturb import ShrinkPerturb, shrink_perturb_
from warmstart.methods.warm import Warm, WarmReset, warm_, warm_reset_

if TYPE_CHECKING:
    from warmstart.comparison.functions import Outcome, compare, compare_images
    from warmstart.runs.function_task import TrainingStage

__version__ = "0.1.0"

__all__ = [
    "Cold",
    "Dash",
    "Finding",
    "Findings",
    "Fire",
    "GradientEMA",
    "HeadReset",
    "InputError",
    "L2Init",
    "Method",
    "Outcome",
    "Report",
    "ShrinkPerturb",
    "Stage",
    "TrainingStage",
    "Warm",
    "WarmReset",
    "cold_",
    "compare",
    "compare_images",
    "dash_",
    "dash_from_",
    "fire_",
    "head_reset_",
    "l2_init_",
    "oldest_first",
    "parse_method",
    "register_layer",
    "shrink_perturb_",
    "validate",
    "warm_",
    "warm_reset_",
]

_LAB = {"Outcome", "TrainingStage", "compare", "compare_images"}
"""Names that need the lab's packages; imported when they are first asked for."""


def __getattr__(name: str) -> Any:
    if name not in _LAB:
        raise AttributeError(f"module 'warmstart' has no attribute '{name}'")
    try:
        from warmstart.comparison import functions
    except ModuleNotFoundError as error:
        raise ImportError(f"warmstart.{name} needs {error.name}: pip install 'warmstart[lab]'") from error
    return getattr(functions, name)
