"""Settings of runs in files: recipes in YAML, the package's among them, and runs' records."""
