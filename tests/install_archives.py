"""Install a wheel and a source archive where nothing but what they need can be seen, and use them there.

python tests/install_archives.py dist/warmstart-*

Each goes into an empty environment twice: with torch and what torch needs, for the core; with all that `[lab]` needs,
for the command line. The packages are this environment's own, by links.
"""

import importlib.metadata
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from packaging.requirements import Requirement

CORE = """
from warmstart import *
import torch, warmstart as ws
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))
batches = [(torch.randn(16, 4), torch.randint(0, 3, (16,))) for _ in range(3)]
print(ws.dash_(model, batches, torch.nn.functional.cross_entropy))
ws.shrink_perturb_(model)
try:
    ws.compare
except AttributeError as error:
    assert "warmstart[lab]" in str(error), error
else:
    raise SystemExit("ws.compare should ask for the lab here")
print("warmstart", ws.__version__, "from", ws.__file__)
"""
COMPARE = "compare --methods cold,warm,dash --stages 2 --stage-size 20 --epochs 1 --seeds 1 --jobs 1 --out compared"


def needs(requirement, found):
    """The distributions that a requirement asks for, those that they need included, added to those found before."""
    try:
        distribution = importlib.metadata.distribution(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return found  # of another platform, or optional after all: what is really missing fails below
    asked = found.setdefault(distribution, set())
    for text in distribution.requires or []:
        needed, extras = Requirement(text), requirement.extras or {""}
        if text not in asked and (not needed.marker or any(needed.marker.evaluate({"extra": e}) for e in extras)):
            asked.add(text)
            needs(needed, found)
    return found


class Environment:
    """An empty one, with an archive and what this environment has of these requirements."""

    def __init__(self, home, archive, extra):
        self.home = home
        venv.create(home / "env", with_pip=False, symlinks=True)
        self.python = home / "env" / "bin" / "python"
        site = next((home / "env" / "lib").glob("python*")) / "site-packages"
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "--no-deps", "--no-build-isolation", "--target", site, archive], check=True)
        (installed,) = importlib.metadata.distributions(name="warmstart", path=[str(site)])
        found = {}
        for requirement in map(Requirement, installed.requires or []):
            if not requirement.marker or requirement.marker.evaluate({"extra": extra}):
                needs(requirement, found)
        for distribution in found:
            for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "bin")}:
                source, link = Path(distribution.locate_file(top)), site / top
                if source.exists() and not link.exists():
                    link.symlink_to(source)

    def run(self, *arguments, **options):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        return subprocess.run(
            [self.python, "-W", "ignore", *arguments], cwd=self.home, env=environment, text=True, **options
        )


def use_the_core(environment):
    environment.run("-c", CORE, check=True)
    done = environment.run("-m", "warmstart", "methods", capture_output=True)
    line = done.stderr.strip()
    if (done.returncode, line.count("\n")) != (2, 0) or "warmstart[lab]" not in line:
        raise SystemExit(f"the command line should ask for the lab in one line and exit 2, not {done}")


def use_the_lab(environment):
    environment.run("-m", "warmstart", *COMPARE.split(), check=True)
    assert (environment.home / "compared" / "report.html").exists()


def main():
    for archive in map(Path, sys.argv[1:]):
        for extra, use in (("", use_the_core), ("lab", use_the_lab)):
            with tempfile.TemporaryDirectory() as folder:
                use(Environment(Path(folder), archive.resolve(), extra))
            print(f"{archive.name}: works with {f'what [{extra}] needs' if extra else 'torch alone'}")


if __name__ == "__main__":
    main()
