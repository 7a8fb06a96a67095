"""Data and settings of what the book studies, on the one way of training in `study`."""
