"""Files and folders on disk: written whole, locked, hashed and named; without torch."""
