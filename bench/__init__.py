"""Benchmarks: micro ones for pytest-benchmark (`test_*.py`), and whole servers under load (`python -m bench`)."""
