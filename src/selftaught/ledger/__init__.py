"""What was taught, measured and decided, and the gate that decides."""
