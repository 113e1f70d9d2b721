"""Write images as .npz with a share of the training labels drawn anew, from all classes alike; the test part stays.

python docs/evidence/noisy_labels.py cifar10/ --share 0.2 --out cifar10-noisy.npz
"""

import argparse
from pathlib import Path

import numpy as np

from warmstart.data.load import load


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="images, as warmstart reads them, with a test part")
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--out", type=Path, default=Path("noisy.npz"))
    options = parser.parse_args()
    data = load(options.data)
    random, labels = np.random.default_rng(0), data.train_labels.numpy().copy()
    drawn = random.random(len(labels)) < options.share
    labels[drawn] = random.integers(len(data.classes), size=drawn.sum())
    np.savez(
        options.out,
        images=data.train_images.numpy(),
        labels=labels,
        test_images=data.test_images.numpy(),
        test_labels=data.test_labels.numpy(),
    )
    print(f"{options.out}: {100 * drawn.mean():.0f} % of {len(labels)} training labels drawn anew")


if __name__ == "__main__":
    main()
