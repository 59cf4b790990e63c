"""What the server tells about itself: mail log and counters."""
