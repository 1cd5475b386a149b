"""``connect`` at a terminal."""
