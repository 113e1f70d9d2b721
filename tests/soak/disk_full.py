"""A disk that fills up at a random byte costs a line and nothing else: with room again the same numbers come out."""

import random
import subprocess
import tempfile
from contextlib import contextmanager

from commands import numbers


def available():
    """Whether a small file system can be mounted here, which takes root, and not every container allows."""
    try:
        with tempfile.TemporaryDirectory() as folder, small_disk(folder, 2**20):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def small_disk(folder, size):
    """A file system of its own in a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def trial(grid, seed, number, folder, reference):
    """What was wrong or None."""
    chance = random.Random(f"{seed} disk {number}")
    disk = folder / "disk"
    disk.mkdir()
    with small_disk(disk, 2**24):
        (disk / "other").write_bytes(bytes(2**24 - chance.randrange(4096, 600_000)))
        for _ in range(chance.randint(1, 2)):
            process = grid.start(disk / "out")
            _, err = process.communicate(timeout=300)
            last = err.strip().splitlines()[-1:] or [""]
            if process.returncode not in (0, 1):
                return f"code {process.returncode}: {err[-600:]}"
            if process.returncode == 1 and not (last[0].startswith("warmstart: ") and "No space left" in last[0]):
                return f"it did not say that the disk is full: {err[-600:]}"
            if "Traceback" in err:
                return err[-600:]
        (disk / "other").unlink()
        process = grid.start(disk / "out")
        _, err = process.communicate(timeout=300)
        if process.returncode != 0:
            return f"code {process.returncode} with room again: {err[-600:]}"
        return None if numbers(disk / "out") == reference else "other numbers than undisturbed"
