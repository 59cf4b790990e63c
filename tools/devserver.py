"""`make run`: tell where the development server listens and how to send a first message, then become it."""

import os
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
MTA = os.path.relpath(BIN / "mta")
FIRST = r"printf 'Subject: hello\n\nIt works.\n'"

print(
    f"""\
mta, development server (dev.toml)
  listens on   127.0.0.1:2525 (SMTP) and 127.0.0.1:5870 (submission); Ctrl-C stops it
  first mail   {FIRST} | {MTA} send -f you@example.net -t me@example.org --server 127.0.0.1:2525
  lands in     var/mail/example.org/me/new/
  the queue    {MTA} queue list -c dev.toml      (mail for other domains is held there)
The mail log follows, after the word "ready".
""",
    flush=True,
)
os.execv(BIN / "mta", [str(BIN / "mta"), "serve", "-c", "dev.toml"])
