"""Files and folders on disk: published whole, locked, hashed, named; free of torch."""
