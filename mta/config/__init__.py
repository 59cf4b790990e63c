"""Settings: one TOML file, typed, each key declared once."""
