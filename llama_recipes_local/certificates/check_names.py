"""Names of what a certificate compares; nothing heavy is imported for them."""

CHECKS = ("tokens", "ends", "settings", "weights", "outputs")
