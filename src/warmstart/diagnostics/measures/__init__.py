"""The measures of plasticity, one short file each; a new file that defines a `Measure` is found by itself."""
