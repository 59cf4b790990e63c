"""The local message store: segment logs with group commit."""
