"""SMTP as pure state: no sockets, no clock, no policy."""
