"""Say in one line what is missing before anything is built. Runs on the bare interpreter, of any version."""

from __future__ import print_function

import os
import shutil
import sys
import sysconfig


def missing():
    if sys.version_info < (3, 11):
        return "mta needs Python 3.11 or newer, this is %d.%d; set PYTHON=python3.x" % sys.version_info[:2]
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return "Python's venv module is missing; on Debian: apt-get install python3-venv"
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if not (shutil.which(compiler) or shutil.which("gcc")):
        return "no C compiler found (%s); on Debian: apt-get install gcc" % compiler
    header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
    if not os.path.exists(header):
        return "%s is missing; on Debian: apt-get install python3-dev" % header
    return None


problem = missing()
if problem:
    sys.exit("make: " + problem)
