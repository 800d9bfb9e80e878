"""Shows what the model will see of a data set: rows, a packed row, the audit, the lengths."""
