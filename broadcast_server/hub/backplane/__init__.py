"""Where a message gets its id and its durability."""
