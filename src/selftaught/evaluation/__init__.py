"""Evaluation: completions judged by scorers, and what is measured with them."""
