"""Files on disk: a kill, a crash or a full disk loses the work in progress and nothing that was saved."""
