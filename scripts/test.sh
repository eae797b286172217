#!/bin/sh
# Runs the tests on a real PostgreSQL; arguments go to pytest.
#
#   DJCRF_PG_TEST_DSN=...                that server, once (its user may create databases)
#   DJCRF_PG_TEST_POSTGRES=16|18|debian  that one only: a version from Docker or embedded, or Debian's server
#   neither                              everything on 18, what touches the database again on 16, and what needs
#                                        extensions, which the embedded server lacks, on Debian's where it is
#
# tests/servers.py chooses between Docker and the embedded server.
set -eu

pytest=${VENV:-.venv}/bin/pytest

if [ -n "${DJCRF_PG_TEST_DSN:-}" ] || [ -n "${DJCRF_PG_TEST_POSTGRES:-}" ]; then
    exec "$pytest" "$@"
fi

# Most of the time the tests wait for processes, so the two runs go side by side. What is marked slow is about
# Django's commands and files, and is the same on each version.
again=
for part in integration acceptance migration; do
    [ -d "tests/$part" ] && again="$again tests/$part"
done
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Exit code 5 is "no test was chosen", which a -k that names unit tests brings about.
# shellcheck disable=SC2086  # a list of folders
(
    code=0
    DJCRF_PG_TEST_POSTGRES=16 "$pytest" $again -p no:cacheprovider -m "not browser and not slow" "$@" || code=$?
    if ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 && [ "$code" = 0 ]; then
        echo "== Debian's PostgreSQL: what needs extensions"
        DJCRF_PG_TEST_POSTGRES=debian "$pytest" $again -p no:cacheprovider -m extensions "$@" || code=$?
    fi
    [ "$code" = 0 ] || [ "$code" = 5 ]
) >"$log" 2>&1 &
older=$!

code=0
echo "== PostgreSQL 18: everything"
DJCRF_PG_TEST_POSTGRES=18 "$pytest" "$@" || code=$?
echo "== PostgreSQL 16: what touches the database"
wait "$older" || code=$?
cat "$log"
exit "$code"
