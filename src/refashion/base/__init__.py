"""What everything rests on: errors, canonical files, the workspace and the settings."""
