"""A mail server that receives, relays and delivers; see docs/architecture.md for the way of a message."""
