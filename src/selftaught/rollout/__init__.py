"""Draws completions from a model."""
