"""Outbound sockets, name resolution, and the links between processes."""
