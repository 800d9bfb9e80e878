"""Certificates: an export read back, and compared with the model that it was made of."""
