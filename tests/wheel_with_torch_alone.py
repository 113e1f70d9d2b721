"""Install a wheel into an empty environment that sees torch and what torch needs, and use the core there.

python tests/wheel_with_torch_alone.py dist/warmstart-*.whl
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

USE = """
import torch, warmstart as ws
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))
batches = [(torch.randn(16, 4), torch.randint(0, 3, (16,))) for _ in range(3)]
print(ws.dash_(model, batches, torch.nn.functional.cross_entropy))
ws.shrink_perturb_(model)
try:
    ws.compare
except ImportError as error:
    assert "warmstart[lab]" in str(error), error
else:
    raise SystemExit("ws.compare should ask for the lab here")
print("warmstart", ws.__version__, "from", ws.__file__)
"""


def needs(package, found):
    """A package's distribution and, recursively, those that it needs without extras."""
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return found
    if distribution.name in found:
        return found
    found[distribution.name] = distribution
    for requirement in distribution.requires or []:
        if "extra ==" not in requirement:
            needs(re.match(r"[\w.-]+", requirement).group(), found)
    return found


def main():
    wheel = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        venv.create(home / "env", with_pip=False, symlinks=True)
        python = home / "env" / "bin" / "python"
        site = next((home / "env" / "lib").glob("python*")) / "site-packages"
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*install, "--target", str(site), str(wheel)], check=True)
        for distribution in needs("torch", {}).values():
            for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "bin")}:
                source, link = Path(distribution.locate_file(top)), site / top
                if source.exists() and not link.exists():
                    link.symlink_to(source)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        subprocess.run([str(python), "-W", "ignore", "-c", USE], check=True, cwd=home, env=environment)
        done = subprocess.run(
            [str(python), "-W", "ignore", "-m", "warmstart", "methods"],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
        )
        line = done.stderr.strip()
        if (done.returncode, line.count("\n")) != (2, 0) or "warmstart[lab]" not in line:
            raise SystemExit(f"the command line should ask for the lab in one line and exit 2, not {done}")
    print(f"{wheel.name}: the core works with torch alone")


if __name__ == "__main__":
    main()
