"""The receiver role: SMTP in, spool write, reply."""
