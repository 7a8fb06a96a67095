"""Runs side by side, on a terminal or as a page."""
