"""What every method may change, one row a way to set it; a new method in src/warmstart/methods needs its row here.

The names are those of `network`, which has what methods must tell apart: a head that is registered first, a 1x1
convolution, a norm layer with its buffers, a frozen layer and a parameter of no layer.
"""

from dataclasses import dataclass, field

import torch
from torch import nn

HEAD = frozenset({"head.weight", "head.bias"})
LAYERS = HEAD | {"body.weight", "body.bias", "point.weight", "point.bias"}
WEIGHTS = frozenset({"head.weight", "body.weight", "point.weight"})
TRAINABLE = LAYERS | {"norm.weight", "norm.bias", "temperature"}
FROZEN = frozenset({"frozen.weight", "frozen.bias"})
BUFFERS = frozenset({"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"})
NOTHING = frozenset()


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 4)
        self.body = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.point = nn.Conv2d(8, 8, 1)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.temperature = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        x = torch.relu(self.norm(self.body(x)))
        return self.head(self.frozen(self.point(x).mean((2, 3)))) * self.temperature


@dataclass(frozen=True)
class Row:
    spelled: str
    """As on the command line."""
    new_data: frozenset[str] = NOTHING
    """Parameters and buffers that change when new data arrives."""
    gradients: frozenset[str] = NOTHING
    """Parameters whose gradient changes after a backward pass."""
    updates: frozenset[str] = NOTHING
    """Parameters and buffers that change after an update."""
    moments: frozenset[str] = NOTHING
    """Parameters whose moments change after an update."""
    rate: bool = False
    """Whether the learning rate of an update changes."""
    optimizer: str = "kept"
    """What becomes of the optimizer's state when new data arrives: kept or reset."""
    random: bool = False
    """Whether the stage's generator decides the outcome: of all that changes, or of `drawn` alone."""
    drawn: frozenset[str] = NOTHING
    """A gradient is called ``grad head.weight`` here."""
    settings: dict[str, str] = field(default_factory=dict)
    """Each of the method's settings with a value that is not the default."""
    wrong: tuple[str, ...] = ()
    """Settings that must be refused."""


REDRAWN = frozenset({"body.weight", "body.bias", "norm.weight", "norm.bias", "point.weight"})
"""What belongs to the only units that are alone, hidden and trained: those of the first convolution."""
DRAWN = frozenset({"body.weight"})
STATISTICS = frozenset({"norm.running_mean", "norm.running_var"})
NOT_A_SHARE = ("-0.1", "1.1", "nan", "inf", "x", "")

ROWS = [
    Row("warm"),
    Row("warm-reset", optimizer="reset"),
    Row("rewarm", rate=False),
    Row(
        "rewarm[factor=1.5,updates=9]",
        rate=True,
        settings={"factor": "3.0", "updates": "20"},
        wrong=("factor=0", "factor=-1", "factor=nan", "factor=x", "updates=0", "updates=1.5"),
    ),
    Row("cold", new_data=TRAINABLE | FROZEN | BUFFERS, optimizer="reset"),
    Row(
        "dash",
        new_data=LAYERS,
        settings={
            **{"alpha": "0.1", "lambda": "0.05", "tolerance": "0.001", "granularity": "neuron", "batch_size": "64"},
            **{"optimizer_state": "reset", "batch_norm": "recalibrate"},
        },
        wrong=(
            *(f"{name}={value}" for name in ("alpha", "lambda") for value in NOT_A_SHARE),
            *("alpha=0", "tolerance=1", "tolerance=-1", "tolerance=nan", "granularity=filter", "batch_size=0"),
            *("batch_size=1.5", "lamda=0.1", "alpha", "optimizer_state=rest", "batch_norm=reset"),
        ),
    ),
    Row("dash[granularity=kernel]", new_data=LAYERS),
    Row("dash[granularity=neuron]", new_data=LAYERS),
    Row("dash[optimizer_state=reset]", new_data=LAYERS, optimizer="reset"),
    Row("dash[batch_norm=recalibrate]", new_data=LAYERS | BUFFERS),
    Row(
        "fire",
        new_data=WEIGHTS,
        optimizer="reset",
        settings={"tolerance": "0.001", "max_iterations": "10", "optimizer_state": "keep", "variant": "polar"},
        wrong=(
            *(f"tolerance={value}" for value in ("0", "1", "-1", "nan", "x")),
            *("max_iterations=0", "max_iterations=1.5", "optimizer_state=scale", "iterations=10"),
            "variant=svd",
        ),
    ),
    Row("fire[optimizer_state=keep]", new_data=WEIGHTS),
    Row("fire[variant=polar]", new_data=WEIGHTS, optimizer="reset"),
    Row("fire[variant=published]", new_data=WEIGHTS, optimizer="reset"),
    Row(
        "shrink-perturb",
        new_data=LAYERS,
        random=True,
        settings={"shrink": "0.5", "noise_std": "0.02", "variant": "renate"},
        wrong=(
            *(f"shrink={value}" for value in NOT_A_SHARE),
            *("noise_std=-1", "noise_std=inf", "noise_std=nan", "variant=dashs", "noise=0.1"),
        ),
    ),
    Row("shrink-perturb[noise_std=0.0]", new_data=LAYERS),
    Row(
        "shrink-perturb[variant=ash]",
        # A fresh norm's bias is 0, but the old one is shrunk: all of it changes, the frozen layer excepted.
        new_data=TRAINABLE | BUFFERS,
        optimizer="reset",
    ),
    Row("shrink-perturb[variant=hare-tortoise]", new_data=TRAINABLE),
    Row("shrink-perturb[variant=dohare]", gradients=TRAINABLE, updates=TRAINABLE, random=True, drawn=TRAINABLE),
    Row("shrink-perturb[shrink=0.9,variant=dohare]", updates=TRAINABLE, random=True),
    Row("shrink-perturb[variant=renate]", new_data=TRAINABLE, random=True),
    Row("head-reset", new_data=HEAD, random=True, settings={"head": "point"}, wrong=("head=",)),
    Row("head-reset[head=point]", new_data=frozenset({"point.weight", "point.bias"}), random=True),
    Row(
        "l2-init",
        gradients=TRAINABLE,
        settings={"coef": "0.01", "variant": "dash"},
        wrong=("coef=-1", "coef=nan", "coef=inf", "coef=x", "factor=1", "variant=l1"),
    ),
    Row("l2-init[coef=0.01,variant=dash]", gradients=WEIGHTS | {"norm.weight"}),
    Row(
        "parseval",
        gradients=WEIGHTS | {"norm.weight"},
        settings={"coef": "0.01", "scale": "2.0", "variant": "chung", "head": "head"},
        wrong=("coef=-1", "coef=nan", "coef=x", "scale=0", "scale=-1", "scale=inf", "variant=fires", "rows=1"),
    ),
    Row("parseval[variant=chung]", gradients=frozenset({"body.weight", "point.weight"})),
    Row(
        "hare-tortoise",
        settings={"momentum": "0.9", "epochs": "3", "updates": "2", "measure": "fast"},
        wrong=(
            *("momentum=1", "momentum=-0.1", "momentum=nan", "momentum=x", "epochs=0", "epochs=1.5", "updates=0"),
            *("updates=x", "measure=both", "every=10"),
        ),
    ),
    # The slow network is a copy of the fast one, made before the first update, which here changes nothing.
    Row("hare-tortoise[momentum=0.5,updates=1]"),
    Row(
        "soft-weight-rescaling",
        updates=LAYERS | {"norm.weight", "norm.bias"},
        settings={"coef": "0.001", "classifier_coef": "1.0"},
        wrong=(*(f"{key}={value}" for key in ("coef", "classifier_coef") for value in NOT_A_SHARE), "lambda=0.1"),
    ),
    Row(
        "normalize-and-project",
        updates=frozenset({"body.weight", "point.weight"}),
        settings={"head": "point"},
        wrong=("head=", "coef=1"),
    ),
    Row("redo", updates=REDRAWN | STATISTICS, moments=REDRAWN, random=True, drawn=DRAWN),
    Row(
        "redo[tau=1.0,every=2]",
        updates=REDRAWN | STATISTICS,
        moments=REDRAWN,
        random=True,
        drawn=DRAWN,
        settings={"tau": "0.5", "every": "100"},
        wrong=(*(f"tau={value}" for value in ("-0.1", "nan", "inf", "x")), "every=0", "every=1.5", "threshold=1"),
    ),
    Row("continual-backprop"),
    Row(
        "continual-backprop[rate=0.5,maturity=0]",
        updates=REDRAWN | STATISTICS,
        moments=REDRAWN,
        random=True,
        drawn=DRAWN,
        settings={"rate": "0.001", "maturity": "100", "decay": "0.9"},
        wrong=(
            *(f"rate={value}" for value in NOT_A_SHARE),
            *("maturity=-1", "maturity=1.5", "decay=-0.1", "decay=1", "decay=nan", "util=1"),
        ),
    ),
    Row("self-normalized-resets"),
    Row(
        "self-normalized-resets[every=1,tau_max=1]",
        updates=REDRAWN | STATISTICS,
        moments=REDRAWN,
        random=True,
        drawn=DRAWN,
        settings={"percentile": "0.9", "every": "8", "tau_max": "78"},
        wrong=(
            *(f"percentile={value}" for value in (*NOT_A_SHARE, "0")),
            *("every=0", "every=1.5", "tau_max=0", "tau_max=1.5", "eta=0.02"),
        ),
    ),
]
