"""What is kept for how long: the rule, what it would delete, deleting it, and the thread that does so every day."""
