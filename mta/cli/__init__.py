"""The `mta` command, one file a family of verbs."""
