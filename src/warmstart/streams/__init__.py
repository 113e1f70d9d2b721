"""A stream is a sequence of arrivals: what is trained on and what is tested, stage by stage."""
