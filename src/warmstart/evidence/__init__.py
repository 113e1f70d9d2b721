"""What runs show: paired statistics, the verdict, diagnosis and figures."""
