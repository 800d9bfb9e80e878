"""Lists the recipes of the package, and prints one."""
