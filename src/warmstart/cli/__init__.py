"""The command line. Exit codes: 0 done, 1 the work failed, 2 the input was wrong, 130 interrupted."""
