"""What became of mail: the lines of the mail log, kept in databases that can be asked."""
