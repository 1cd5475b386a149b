"""The hub: it accepts clients, takes what they send, and relays it."""
