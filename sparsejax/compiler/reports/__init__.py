"""What compile chose and left, and what it doubts."""
