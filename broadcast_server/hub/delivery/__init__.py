"""The one thread that writes to all clients, and what it knows of each."""
