#!/bin/sh
# Runs the tests on a real PostgreSQL; arguments go to pytest.
#
#   DJCRF_PG_TEST_DSN=...           that server, once (its user may create databases)
#   DJCRF_PG_TEST_POSTGRES=16|18    that version only, from Docker or embedded
#   neither                         everything on 18, then what touches the database again on 16
#
# tests/servers.py chooses between Docker and the embedded server.
set -eu

pytest=${VENV:-.venv}/bin/pytest

if [ -n "${DJCRF_PG_TEST_DSN:-}" ] || [ -n "${DJCRF_PG_TEST_POSTGRES:-}" ]; then
    exec "$pytest" "$@"
fi

echo "== PostgreSQL 18: everything"
DJCRF_PG_TEST_POSTGRES=18 "$pytest" "$@"

again=
for part in integration acceptance migration; do
    [ -d "tests/$part" ] && again="$again tests/$part"
done
[ -n "$again" ] || exit 0

echo "== PostgreSQL 16: what touches the database"
# Exit code 5 is "no test was chosen", which a -k that names unit tests brings about.
# shellcheck disable=SC2086  # a list of folders
DJCRF_PG_TEST_POSTGRES=16 "$pytest" $again -m "not browser" "$@" || [ $? = 5 ]
