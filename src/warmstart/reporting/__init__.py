"""Tables, figures and one-file pages from plain data; nothing here knows what an experiment is."""
