"""What people asked, what they were answered, and what they said to that: kept only as long as it may be."""

from selftaught.interactions.store import Feedback, Interaction, Interactions

__all__ = ["Feedback", "Interaction", "Interactions"]
