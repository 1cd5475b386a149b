"""A request in, a decision out: who asks, what for, and what the answer is."""
