"""warmstart: retrain networks on growing data at the cost of a warm start and the accuracy of a cold one.

DASH and its rivals as functions that change a network in place, for any training loop. This face needs torch
alone; the command line and the experiments come with ``pip install 'warmstart[lab]'``. A name is imported when it is
first asked for, so that the command line answers without waiting for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from warmstart.comparison.functions import compare as compare
    from warmstart.comparison.functions import compare_images as compare_images
    from warmstart.comparison.outcome import Outcome as Outcome
    from warmstart.diagnostics.diagnose import Diagnosis, diagnose
    from warmstart.diagnostics.validation import Finding, Findings, validate
    from warmstart.errors import InputError
    from warmstart.gradient_ema import GradientEMA
    from warmstart.layers.left_alone import LeftAlone
    from warmstart.layers.neurons import Granularity, register_layer
    from warmstart.layers.parts import Part
    from warmstart.layers.units import Units
    from warmstart.loaders import oldest_first
    from warmstart.losses import ForwardLoss
    from warmstart.methods.cold import Cold, cold_
    from warmstart.methods.continual_backprop import ContinualBackprop
    from warmstart.methods.dash import Dash, dash_, dash_from_
    from warmstart.methods.fire import Fire, fire_
    from warmstart.methods.hare_tortoise import HareTortoise
    from warmstart.methods.head_reset import HeadReset, head_reset_
    from warmstart.methods.l2_init import L2Init, l2_init_
    from warmstart.methods.method import Method, Stage
    from warmstart.methods.normalize_and_project import NormalizeAndProject
    from warmstart.methods.parseval import Parseval, parseval_
    from warmstart.methods.redo import Redo
    from warmstart.methods.registry import parse_method
    from warmstart.methods.report import Report, ScaleReport
    from warmstart.methods.rewarm import Rewarm
    from warmstart.methods.self_normalized_resets import SelfNormalizedResets
    from warmstart.methods.shrink_perturb import ShrinkPerturb, shrink_perturb_
    from warmstart.methods.soft_weight_rescaling import SoftWeightRescaling
    from warmstart.methods.warm import Warm, WarmReset, warm_, warm_reset_
    from warmstart.runs.function_task import TrainingStage as TrainingStage
    from warmstart.serving.predictions import Predictions as Predictions
    from warmstart.serving.served import Served as Served
    from warmstart.serving.served import load as load

__version__ = "0.1.0"

_WHERE = {
    "comparison.functions": ("compare", "compare_images"),
    "comparison.outcome": ("Outcome",),
    "diagnostics.diagnose": ("Diagnosis", "diagnose"),
    "diagnostics.validation": ("Finding", "Findings", "validate"),
    "errors": ("InputError",),
    "gradient_ema": ("GradientEMA",),
    "layers.left_alone": ("LeftAlone",),
    "layers.neurons": ("Granularity", "register_layer"),
    "layers.parts": ("Part",),
    "layers.units": ("Units",),
    "loaders": ("oldest_first",),
    "losses": ("ForwardLoss",),
    "methods.cold": ("Cold", "cold_"),
    "methods.continual_backprop": ("ContinualBackprop",),
    "methods.dash": ("Dash", "dash_", "dash_from_"),
    "methods.fire": ("Fire", "fire_"),
    "methods.hare_tortoise": ("HareTortoise",),
    "methods.head_reset": ("HeadReset", "head_reset_"),
    "methods.l2_init": ("L2Init", "l2_init_"),
    "methods.method": ("Method", "Stage"),
    "methods.redo": ("Redo",),
    "methods.normalize_and_project": ("NormalizeAndProject",),
    "methods.parseval": ("Parseval", "parseval_"),
    "methods.registry": ("parse_method",),
    "methods.report": ("Report", "ScaleReport"),
    "methods.rewarm": ("Rewarm",),
    "methods.self_normalized_resets": ("SelfNormalizedResets",),
    "methods.shrink_perturb": ("ShrinkPerturb", "shrink_perturb_"),
    "methods.soft_weight_rescaling": ("SoftWeightRescaling",),
    "methods.warm": ("Warm", "WarmReset", "warm_", "warm_reset_"),
    "runs.function_task": ("TrainingStage",),
    "serving.predictions": ("Predictions",),
    "serving.served": ("Served", "load"),
}
"""Module -> the names that this face has from it."""
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

# What needs torch alone, so that `from warmstart import *` works without the lab too.
__all__ = [
    "Cold",
    "ContinualBackprop",
    "Dash",
    "Diagnosis",
    "Finding",
    "Findings",
    "Fire",
    "ForwardLoss",
    "GradientEMA",
    "Granularity",
    "HareTortoise",
    "HeadReset",
    "InputError",
    "L2Init",
    "LeftAlone",
    "Method",
    "NormalizeAndProject",
    "Parseval",
    "Part",
    "Redo",
    "Report",
    "Rewarm",
    "ScaleReport",
    "SelfNormalizedResets",
    "ShrinkPerturb",
    "SoftWeightRescaling",
    "Stage",
    "Units",
    "Warm",
    "WarmReset",
    "cold_",
    "dash_",
    "dash_from_",
    "diagnose",
    "fire_",
    "head_reset_",
    "l2_init_",
    "oldest_first",
    "parse_method",
    "parseval_",
    "register_layer",
    "shrink_perturb_",
    "validate",
    "warm_",
    "warm_reset_",
]


if not TYPE_CHECKING:  # for which these are imported above, so that a name with a typo is an error

    def __getattr__(name: str) -> Any:
        if name == "WarmStart":
            raise AttributeError("warmstart has no WarmStart of its own: from warmstart.integrations import WarmStart")
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'warmstart' has no attribute '{name}'")
        try:
            module = import_module(f"warmstart.{_MODULE_OF[name]}")
        except ModuleNotFoundError as error:  # hasattr and tools that look around expect this one
            raise AttributeError(f"warmstart.{name} needs {error.name}: pip install 'warmstart[lab]'") from error
        return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
