"""Files and folders on disk: atomic writes, locks, hashes, names; imports no torch."""
