"""One run, resumable: its task, its state, its results."""
