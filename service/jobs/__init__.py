"""Jobs: their states, the queue, and what changes them."""
