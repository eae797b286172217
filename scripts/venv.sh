#!/bin/sh
# Makes the virtual environment DIR if it is not there: venv.sh DIR, with PYTHON naming the interpreter.
#
# Debian's python3.N comes without ensurepip, which is in the package python3.N-venv: as root on a machine with apt-get
# that package is installed, anywhere else the message says what to do.
set -eu

dir=${1:?usage: venv.sh DIR}
python=${PYTHON:-python3}

if [ -x "$dir/bin/python" ] && "$dir/bin/python" -m pip --version >/dev/null 2>&1; then
    exit 0
fi

if ! command -v "$python" >/dev/null 2>&1; then
    echo "venv.sh: there is no '$python' here; install Python 3.11 or newer, or name one: make PYTHON=..." >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "venv.sh: djcrf_pg needs Python 3.11 or newer, '$python' is $("$python" -V 2>&1); name another: make PYTHON=..." >&2
    exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT

if "$python" -m venv "$dir" >"$log" 2>&1; then
    exit 0
fi
rm -rf "$dir"
package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "venv.sh: '$python' cannot make a virtual environment by itself; installing Debian's $package" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq --yes --no-install-recommends "$package" ca-certificates >"$log" 2>&1 || {
        cat "$log" >&2
        echo "venv.sh: apt-get could not install $package; install it by hand and try again" >&2
        exit 1
    }
    "$python" -m venv "$dir"
    exit 0
fi

cat "$log" >&2
echo "venv.sh: '$python -m venv' failed; on Debian and Ubuntu: sudo apt-get install $package, then try again" >&2
exit 1
