"""Errors, canonical files, the workspace and the settings, which all other rooms use."""
