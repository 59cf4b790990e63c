"""Where users come from: a file, Dovecot, a database, a function, tokens. `accounts` says what they have in common."""
