#!/bin/sh
# The extensions, built with AddressSanitizer and UndefinedBehaviorSanitizer in a copy of the sources, under the tests
# that reach most of their code. Python's own allocator is switched off, so that each object has its guards; leaks are
# not looked for, since the interpreter itself leaves much behind (the fuzz driver looks for growth instead).
set -eu
cd "$(dirname "$0")/.."
python=$PWD/.venv/bin/python
copy=build/sanitize
mkdir -p "$copy"
tar -c --exclude='*.so' --exclude='*.c' --exclude=__pycache__ mta tests bench setup.py pyproject.toml | tar -x -C "$copy"
cp mta/spool/crc32c.h "$copy/mta/spool/"
cd "$copy"
MTA_SANITIZE=1 "$python" setup.py --quiet build_ext --inplace
export LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export PYTHONMALLOC=malloc PYTHONPATH="$PWD"
"$python" -c 'import mta; assert mta.__file__.startswith("'"$PWD"'"), mta.__file__'
if [ $# = 0 ]; then
  set -- tests/unit/fuzz tests/unit/queue/test_arena.py tests/unit/spool/test_commit.py tests/unit/spool/test_replay.py
  for name in server_dialogs smuggling server_session client_session; do
    set -- "$@" "tests/unit/protocol/test_$name.py"
  done
fi
exec "$python" -m pytest -m "not slow" -p no:cacheprovider --timeout 600 "$@"
