"""Language models: found, loaded, prompted, scored, and frozen as teachers."""
