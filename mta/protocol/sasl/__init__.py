"""SASL (RFC 4422): one module a mechanism, both sides, without I/O, clock or random numbers of their own."""
