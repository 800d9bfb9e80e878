"""Certificates: an export is read back and compared with the model that was exported."""
