"""What both ends agree on: frames, events, addresses. It only computes, and does no I/O."""
