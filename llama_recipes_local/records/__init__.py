"""Finds data files and reads their records one at a time, whatever their format and compression."""
