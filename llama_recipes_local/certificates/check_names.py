"""Names of the checks of a certificate; imports nothing heavy."""

CHECKS = ("tokens", "ends", "settings", "weights", "outputs")
