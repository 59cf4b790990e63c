"""The courier role: SMTP and LMTP out, Maildir."""
