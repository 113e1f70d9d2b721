"""One run, resumable: what is trained, how far it has come, what it has measured."""
