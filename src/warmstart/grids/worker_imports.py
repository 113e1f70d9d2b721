"""What every worker process needs, imported once by the server from which they are forked.

Without garbage collections, which find nothing here and take a sixth of the time. What was imported is never looked
through again: the workers' own collections are shorter, and leave the memory that they share as it is.
"""

import gc
from importlib import import_module

gc.disable()
for module in (
    "torch._dynamo",  # PyTorch's optimizers import it when the first of them is made
    "warmstart.grids.local_processes",
    "warmstart.runs.image_task",
):
    import_module(module)
gc.freeze()
gc.enable()
