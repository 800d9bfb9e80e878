"""One folder for each subcommand: its flags and its implementation."""
