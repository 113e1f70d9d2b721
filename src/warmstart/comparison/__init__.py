"""Methods against each other on the user's own data, ending in advice."""
