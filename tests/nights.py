"""Nights on digits in tests: data that arrives, a night, and all that a state holds, to be compared."""

import hashlib
import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from warmstart.data.load import load
from warmstart.retraining.retrain import retrain
from warmstart.retraining.settings import RetrainSettings
from warmstart.storage import checkpoint

DIGITS = load("digits")
FAST = {"epochs": 2, "lr": 0.01, "device": "cpu", "threads": 1, "promote": "always"}
"""Nights of a fraction of a second, that promote whatever comes of them."""
OF_TIME = {"began", "ended", "at", "train_seconds", "method_seconds", "train_joules"}


def arrive(data, begin, end, *, where=""):
    """Digits from one place to another arrive as images in class folders."""
    for place in range(begin, end):
        folder = Path(data) / where / DIGITS.classes[DIGITS.train_labels[place]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(DIGITS.train_images[place, 0].numpy()).save(folder / f"{place:04}.png")


def shard(file, begin, end, **changed):
    """Digits from one place to another arrive as an .npz shard."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    arrays = {"images": DIGITS.train_images[begin:end, 0].numpy(), "labels": DIGITS.train_labels[begin:end].numpy()}
    np.savez(file, **{**arrays, **changed})


def night(data, state, **settings):
    """Pass a night."""
    retrain(RetrainSettings.of({**FAST, "data": str(data), "state": str(state), **settings}))


def rows(state, query, *values):
    """What the index says."""
    with closing(sqlite3.connect(Path(state) / "index.sqlite")) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(query, values)]


def stages(state):
    """The stages: number -> row."""
    return {row["number"]: row for row in rows(state, "SELECT * FROM stages")}


def current(state):
    """The stage in service, as the index says and as the link does."""
    said = json.loads(rows(state, "SELECT value FROM facts WHERE name = 'current'")[0]["value"])
    assert Path(os.readlink(Path(state) / "current")).name == f"{said:04}"
    return said


def said(state, kind):
    """The events of a kind."""
    return [row["text"] for row in rows(state, "SELECT text FROM events WHERE kind = ?", kind)]


def content(state):
    """All that a state holds but times, and what was said on the way: text or digest by name."""
    found = {}
    for table in ("facts", "classes", "stages", "runs", "metrics", "files", "quarantine"):
        found[table] = [_timeless(row) for row in rows(state, f"SELECT * FROM {table} ORDER BY 1, 2")]
    for file in sorted(path for path in Path(state).rglob("*") if path.is_file() and "current" not in path.parts):
        name = str(file.relative_to(state))
        if file.name == "checkpoint.safetensors":
            saved = checkpoint.load(file)
            moments = sorted((saved.optimizer_state or {})["state"].items())
            found[name] = _digest(sorted(saved.model_state.items()), moments, sorted(saved.tensors.items()))
        elif not file.name.startswith((".warmstart.", "index")):
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    found["current"] = os.readlink(Path(state) / "current") if (Path(state) / "current").is_symlink() else ""
    return found


def _timeless(row):
    kept = {key: value for key, value in row.items() if key not in OF_TIME}
    if "result" in kept:
        kept["result"] = {key: value for key, value in json.loads(kept["result"]).items() if key not in OF_TIME}
    return kept


def _digest(*values):
    told = hashlib.sha256()

    def tell(value):
        if hasattr(value, "numpy"):
            told.update(value.contiguous().numpy().tobytes())
        elif isinstance(value, (list, tuple)):
            for one in value:
                tell(one)
        elif isinstance(value, dict):
            tell(sorted(value.items()))
        else:
            told.update(repr(value).encode())

    tell(values)
    return told.hexdigest()


def restore(copy, state):
    """Put a copy of a state in its place."""
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(copy, state, symlinks=True)
