"""The control socket: protocol, server and typed client."""
