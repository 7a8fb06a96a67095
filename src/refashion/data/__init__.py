"""Data sets: their sources, their files and their splits."""
