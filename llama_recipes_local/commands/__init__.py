"""One folder for each subcommand: its flags, and what it does."""
