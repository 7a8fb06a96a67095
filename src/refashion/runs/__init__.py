"""What a run is: writing it, reading it and checking it.

A run is what a training leaves, or several that are summed up: a classifier's variant, a study's
configuration, a fold. All have one shape on disk, so that one code reads, publishes, reproduces
and compares them.
"""
