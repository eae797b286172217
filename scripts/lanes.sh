#!/usr/bin/env bash
# Names the lanes of CI that this machine can run, one a line: NAME VENV INTERPRETER DJANGO.
#
#   newest   the newest Python here, with the newest Django ("-")
#   oldest   the oldest Python here that requires-python admits, with the oldest Django that the dependencies admit
#   without  not a lane: what is left out, and why
#
# Interpreters are looked for on the PATH, in /usr/bin and /usr/local/bin, and among pyenv's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

oldest_python=$(sed -n 's/^requires-python = ">=\(.*\)"$/\1/p' pyproject.toml)
oldest_django=$(sed -n 's/^ *"Django>=\(.*\)",$/\1/p' pyproject.toml)
# Django 6 and later need it.
newer_django_python=3.12

is_older() { [[ $1 != "$2" && $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }

# A pyenv shim is asked like any other: it says which interpreter it stands for, or fails. A venv's says its base.
describe='
import os, sys
if sys.version_info.releaselevel == "final":
    print(".".join(map(str, sys.version_info[:3])), os.path.realpath(sys.executable))
'

interpreters() {
    local -a folders
    IFS=: read -ra folders <<<"$PATH"
    local folder file
    for folder in "${folders[@]}" /usr/bin /usr/local/bin "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/*/bin; do
        for file in "$folder"/python3 "$folder"/python3.*; do
            if [[ $file =~ /python3(\.[0-9]+)?$ && -x $file ]]; then
                "$file" -I -c "$describe" 2>/dev/null || true
            fi
        done
    done | sort -u -V
}

admitted=()
while read -r version path; do
    is_older "$version" "$oldest_python" || admitted+=("$version $path")
done < <(interpreters)
if ((${#admitted[@]} == 0)); then
    echo "lanes.sh: there is no Python $oldest_python or newer on the PATH, in /usr/bin or among pyenv's" >&2
    exit 1
fi
read -r low low_path <<<"${admitted[0]}"
read -r high high_path <<<"${admitted[-1]}"

if is_older "$high" "$newer_django_python"; then
    echo "without the newest Django: it needs Python $newer_django_python, and the newest here is $high"
else
    echo "newest .venv-${high%.*} $high_path -"
fi
if ! [[ $low == "$oldest_python" || $low == "$oldest_python".* ]]; then
    echo "without Python $oldest_python: the oldest here is $low"
fi
echo "oldest .venv-${low%.*}-django-$oldest_django $low_path $oldest_django"
