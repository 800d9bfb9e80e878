"""The run at hand, and what a finished run wrote about itself."""
