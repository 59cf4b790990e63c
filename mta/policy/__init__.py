"""Decisions on what to accept and where it goes."""
