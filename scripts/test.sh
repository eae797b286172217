#!/bin/sh
# Runs tests on a real PostgreSQL: test.sh main|database|all [ARGUMENTS OF PYTEST]. tests/README.md says what is in each.
#
#   main      what proves the main job, on one version of PostgreSQL
#   database  what depends on the version of PostgreSQL
#   all       everything, and what depends on it again on an older version
#
#   DJCRF_PG_TEST_DSN=...                  on that server (its user may create databases)
#   DJCRF_PG_TEST_POSTGRES=14...18|debian  on that version, from Docker or embedded, or on Debian's server
#   neither                                on 18
#
# tests/servers.py chooses between Docker and the embedded server.
set -eu

what=$1
shift
pytest=${VENV:-.venv}/bin/pytest

# Tests wait for processes for a third of their time: one worker more than there are processors. A worker takes a file
# at a time, the first folder first, which has the long ones. Each starts a server of its own, so they cannot share one.
if [ -n "${DJCRF_PG_TEST_DSN:-}" ]; then
    workers=0
else
    workers=$(($(getconf _NPROCESSORS_ONLN) + 1))
    [ "$workers" -le 8 ] || workers=8
fi

# Such a machine is busy, and a test that waits for longer is no failure yet.
export DJCRF_PG_TEST_TIMEOUT="${DJCRF_PG_TEST_TIMEOUT:-60}"

code=0
run() {
    printf '\n== %s\n' "$1"
    shift
    status=0
    "$pytest" -n "$workers" --dist loadfile --no-loadscope-reorder "$@" || status=$?
    # Exit code 5 is "no test was chosen", which a -k that names a few tests brings about.
    [ "$status" = 0 ] || [ "$status" = 5 ] || code=1
}

on() {
    DJCRF_PG_TEST_POSTGRES=$1
    export DJCRF_PG_TEST_POSTGRES
}

database() {
    run "what depends on PostgreSQL" tests/integration tests/migration tests/acceptance -m "not processes" "$@"
}

case $what in
main) run "the main job" tests -m "not slow and not browser" "$@" ;;
database) database "$@" ;;
all)
    given=${DJCRF_PG_TEST_DSN:-}${DJCRF_PG_TEST_POSTGRES:-}
    run "everything" tests "$@"
    run "packages that projects have" --ds tests.packages.settings tests/packages "$@"
    if [ -z "$given" ]; then
        on 16
        database "$@"
        if ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
            on debian
            run "what needs extensions" tests/integration -m extensions "$@"
            run "packages that need extensions" --ds tests.packages.settings tests/packages -m extensions "$@"
        else
            printf '\n== left out: what needs extensions, without a server of Debian (apt-get install postgresql)\n'
        fi
    fi
    ;;
*)
    echo "test.sh: main, database or all, not '$what'" >&2
    exit 2
    ;;
esac
exit "$code"
