#!/usr/bin/env bash
# Runs what depends on PostgreSQL in each lane of CI, on each version that can be had here, and writes what was run into
# docs/reference/compatibility.md. The arguments go to tests/compat.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

lanes=$(scripts/lanes.sh)
environments=()
while read -r lane environment python django; do
    if [[ $lane == without ]]; then
        echo "left out: $environment $python $django"
        continue
    fi
    make --no-print-directory "$environment/.installed-test" VENV="$environment" PYTHON="$python" DJANGO="${django#-}" \
        </dev/null
    environments+=("$environment")
done <<<"$lanes"

exec "${environments[0]}/bin/python" -m tests.compat "$@" "${environments[@]}"
