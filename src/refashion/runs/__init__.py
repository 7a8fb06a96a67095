"""Runs: writing, finding, reading and checking them.

A run is the files of a training, or of several that are summed up: a classifier's variant, a
study's configuration, a fold. All have one shape on disk, so that one code reads, publishes,
reproduces and compares them.
"""
