"""Made-up but plausible results, for the tests of the verdict and the report."""

from dataclasses import replace

import numpy as np
import torch

from warmstart.comparison.settings import CompareRecord, CompareSettings
from warmstart.grids.record import Provenance
from warmstart.runs.results import Results
from warmstart.runs.stage_result import StageResult
from warmstart.runs.state import RunState

HERE = Provenance(warmstart="0.1.0", torch="2.13.0", python="3.11.9", machine="Linux x86_64", processes=1)
PAPER = ("cold", "warm", "shrink-perturb", "dash")
# method: last accuracy, steps of the last stage
PLAUSIBLE = {
    "cold": (0.943, 304),
    "warm": (0.915, 87),
    "shrink-perturb": (0.961, 137),
    "dash": (0.975, 61),
    "shrink-perturb[noise_std=0]": (0.968, 70),
}


def make_results(methods=PAPER, *, seeds=5, stages=6, test_size=2000, batch_norm=True, levels=None, rng_seed=0):
    """A comparison in which each method's accuracy climbs to its level, with noise of seeds and of examples."""
    rng = np.random.default_rng(rng_seed)
    levels = {**PLAUSIBLE, **(levels or {})}
    runs = {(method, seed): RunState() for method in methods for seed in range(seeds)}
    difficulty = rng.normal(0, 1, test_size)
    for method in methods:
        level, last_steps = levels.get(method, (0.95, 150))
        for seed in range(seeds):
            luck = rng.normal(0, 0.004)
            score = (rng.normal(0, 0.7, test_size) + difficulty < 1.22 * _quantile(level + luck)).astype(np.float32)
            run = runs[method, seed]
            run.scores = torch.from_numpy(score)
            for stage in range(1, stages + 1):
                share = stage / stages
                accuracy = float(score.mean()) * share**0.15 + (rng.normal(0, 0.004) if share < 1 else 0)
                growth = share if method in ("cold", "shrink-perturb") else 0.6 + 0.4 * share
                steps = max(3, round(last_steps * growth * rng.uniform(0.9, 1.1)))
                run.rows.append(
                    StageResult(
                        data="digits",
                        model="small-cnn",
                        optimizer="sgd",
                        method=method,
                        seed=seed,
                        stage=stage,
                        train_examples=50 * stage,
                        test_accuracy=accuracy,
                        test_loss=1 - accuracy,
                        train_accuracy=0.9995,
                        steps=steps,
                        epochs=steps // 4,
                        train_seconds=steps / 100,
                        method_seconds=0.02,
                        recalibrated_test_accuracy=accuracy + 0.004 if batch_norm else float("nan"),
                    )
                )
                if method.startswith("dash") and stage > 1:
                    run.reports[stage] = make_report(rng)
    return Results(list(methods), range(seeds), stages, runs=runs)


def make_record(results, **settings):
    """The record of a comparison that could have given results."""
    usual = {"methods": results.methods, "seeds": len(results.seeds), "stages": results.stages, "device": "cpu"}
    return CompareRecord(
        settings=CompareSettings.of({**usual, "threads": 1, **settings}),
        data_fingerprint="f00d",
        provenance=HERE,
    )


def make_report(rng, layers=("features.0.weight", "features.3.weight", "features.6.weight", "classifier.weight")):
    """What DASH reports: most kernels point nowhere and sit at lambda, early layers less so."""
    found = []
    for depth, name in enumerate(layers):
        neurons = int(32 * 4 ** min(depth, 5))
        cosine = rng.normal(0.45 - 0.6 * depth / len(layers), 0.35, min(neurons, 3000))
        scale = np.clip(cosine, 0.3, 1.0).astype(np.float32)
        counts = np.bincount(np.minimum(19, (20 * scale).astype(int)), minlength=20)
        found.append(
            {
                "name": name,
                "kind": "Linear" if "classifier" in name or "fc" in name else "Conv2d",
                "neurons": len(cosine),
                "mean": float(scale.mean()),
                "std": float(scale.std()),
                "at_lambda": float((scale == np.float32(0.3)).mean()),
                "histogram": counts.tolist(),
            }
        )
    return {
        "method": "dash",
        "settings": {"alpha": 0.3, "lambda": 0.3},
        "layers": found,
        "left_alone": [{"name": "features.1.weight", "reason": "a normalisation layer"}],
        "notes": [],
        "warnings": [],
    }


def change(results, method, *, seed=None, stage=None, **fields):
    """Replace fields of the rows that match."""
    for (name, of), run in results.runs.items():
        if name == method and seed in (None, of):
            run.rows = [replace(row, **fields) if stage in (None, row.stage) else row for row in run.rows]


def drop(results, method, *, seed, after=0):
    """Remove a run's rows after a stage, as if it had not got further."""
    run = results.runs[method, seed]
    run.rows, run.scores = [row for row in run.rows if row.stage <= after], None


def _quantile(probability):
    from scipy.stats import norm

    return float(norm.ppf(min(max(probability, 1e-3), 0.999)))
