"""The experiment that warm starting is known by: half of the data, then all of it, without augmentation.

Where it differs from the authors' code (github.com/JordanAsh/warm_start, run.py): they take two thirds of the training
part and test on the last third, here the stream's test set is tested; they normalise by 0.5 and 0.5, here each channel
has mean 0 and standard deviation 1; their epoch's accuracy is a mean of running ones, in which an image weighs the more
the earlier it comes among ten batches; nothing ends a stage that never reaches 99 %. They also train by Adam:
``optimizer: adamw, momentum: 0.9``.
"""

from warmstart.protocols.protocol import Protocol
from warmstart.training.recipe import Recipe

ASH_ADAMS = Protocol(
    "ash-adams",
    "half of the data, then all of it, until 99 % training accuracy: SGD 1e-3 without momentum, in batches of 128",
    "Ash and Adams, NeurIPS 2020, arXiv 1910.08475, table 1; normalised and tested in our way, not on a third held out",
    Recipe(optimizer="sgd", batch_size=128, lr=1e-3, momentum=0.0, until=0.99, new_optimizer=True),
    {"stages": 2, "stage_size": "50%"},
    names_optimizer=True,
)
