"""Many runs: settings and record, carrying out here or on Ray, progress, tracking."""
