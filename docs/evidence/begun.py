"""Keep what grids that are not complete have computed, so that another machine goes on with it.

    python docs/evidence/begun.py keep out/evidence       # into docs/evidence/begun/, to be committed
    python docs/evidence/begun.py restore out/evidence    # and back, where there is no such grid yet

Kept of a run that is over is its checkpoint without its network, a few kilobytes; one that is not begins anew.
"""

from __future__ import annotations

import argparse
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from warmstart.runs.grid_folder import CHECKPOINT
from warmstart.runs.state import SCORES, RunState
from warmstart.storage import checkpoint

EVIDENCE = Path(__file__).parent
BEGUN = EVIDENCE / "begun"
ENDING = ".tar.xz"
SETTINGS = "config.yaml"


def keep(out: Path) -> None:
    """Keep each grid below a folder of them; what is complete stands in docs/evidence/, and is no longer kept here."""
    for grid in sorted(file for file in out.iterdir() if file.is_dir()):
        archive = BEGUN / (grid.name + ENDING)
        if (EVIDENCE / f"{grid.name}.json").exists():
            archive.unlink(missing_ok=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            copies = Path(folder) / grid.name
            runs = [_copy_bare(file, copies / file.parent.relative_to(grid)) for file in _runs_over(grid)]
            for file in grid.rglob(SETTINGS):
                (copies / file.relative_to(grid)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copies / file.relative_to(grid))
            if not runs:
                continue
            BEGUN.mkdir(exist_ok=True)
            with tarfile.open(archive, "w:xz") as packed:
                packed.add(copies, grid.name)
        print(f"kept {len(runs)} runs of {grid.name}, {archive.stat().st_size / 1000:.0f} kB")


def _runs_over(grid: Path) -> Iterator[Path]:
    """The checkpoints of runs that are over, in a grid's folder and in its folder of trials."""
    for settings in grid.rglob(SETTINGS):
        stages = yaml.safe_load(settings.read_text(encoding="utf-8"))["stages"]
        for file in sorted(settings.parent.glob(f"runs/*/{CHECKPOINT}")):
            if RunState.from_saved(checkpoint.read_metadata(file), {}).is_over(stages):
                yield file


def _copy_bare(file: Path, folder: Path) -> Path:
    """A checkpoint without its network and optimizer; the last scores stay, which intervals rest on."""
    scores = checkpoint.read_tensors(file, f"tensors.{SCORES}")
    folder.mkdir(parents=True)
    tensors = {SCORES + rest: tensor for rest, tensor in scores.items()}
    checkpoint.save(folder / CHECKPOINT, model={}, metadata=checkpoint.read_metadata(file), tensors=tensors)
    return folder


def restore(out: Path) -> None:
    """Unpack each grid that a folder does not have yet."""
    out.mkdir(parents=True, exist_ok=True)
    for archive in sorted(BEGUN.glob(f"*{ENDING}")):
        name = archive.name.removesuffix(ENDING)
        if (out / name).exists():
            print(f"{out / name} is there already: left as it is")
            continue
        with tarfile.open(archive) as packed:
            packed.extractall(out, filter="data")
        print(f"restored {name}")


def main() -> None:
    """Keep or restore."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("keep", "restore"))
    parser.add_argument("out", type=Path, help="the folder with a folder a grid")
    arguments = parser.parse_args()
    {"keep": keep, "restore": restore}[arguments.what](arguments.out)


if __name__ == "__main__":
    main()
