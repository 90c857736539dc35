"""What users said to a served model, and what they said of its answers."""

from selftaught.interactions.store import KINDS, Feedback, Interaction, Interactions

__all__ = ["KINDS", "Feedback", "Interaction", "Interactions"]
