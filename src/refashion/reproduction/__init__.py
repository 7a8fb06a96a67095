"""Run again, compare, give a verdict."""
