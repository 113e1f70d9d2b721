"""`warmstart retrain`: a model that is retrained whenever data has arrived, checked against the one in service."""
