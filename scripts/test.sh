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

# Two at a time, for most of the time the tests wait for processes. Beside what starts most of them, and then the older
# version without what is the same on each, goes the rest.
some() {
    label=$1 version=$2
    shift 2
    echo "== PostgreSQL $label"
    status=0
    DJCRF_PG_TEST_POSTGRES=$version "$pytest" -p no:cacheprovider "$@" || status=$?
    # Exit code 5 is "no test was chosen", which a -k that names a few tests brings about.
    [ "$status" = 0 ] || [ "$status" = 5 ]
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
(
    failed=0
    some "18: the rest" 18 tests --ignore=tests/acceptance --ignore=tests/oracle "$@" || failed=1
    some "18: packages" 18 --ds=tests.packages.settings tests/packages "$@" || failed=1
    if ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
        some "of Debian: what needs extensions" debian tests/integration -m extensions "$@" || failed=1
        some "of Debian: packages that need extensions" debian --ds=tests.packages.settings tests/packages \
            -m extensions "$@" || failed=1
    fi
    exit "$failed"
) >"$log" 2>&1 &
rest=$!

code=0
some "18: acceptance" 18 tests/acceptance tests/oracle "$@" || code=1
# Of the ways from end to end, those on which it depends what the server does.
ends=tests/acceptance
some "16: what touches the database" 16 tests/integration tests/migration \
    "$ends/test_changes.py" "$ends/test_faults.py" "$ends/test_many_to_many.py" "$ends/test_models.py" \
    -m "not browser and not slow and not processes" "$@" || code=1
wait "$rest" || code=1
cat "$log"
exit "$code"
