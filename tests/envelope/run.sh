#!/bin/sh
# Writes what would be sent for every case of the table, and has it judged by Python's email package.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# A judge that acquits everybody is none.
mkdir "$dir/guilty" "$dir/cases"
printf 'To: bob@x.example\r\nCc: eve@x.example\r\n\r\n' >"$dir/guilty/extra.eml"
printf 'bob@x.example\n' >"$dir/guilty/extra.rcpt"
if "$python" tests/envelope/judge.py "$dir/guilty" >/dev/null; then
    echo "the judge does not see a recipient too many" >&2
    exit 1
fi

cargo run --quiet --example envelope_cases -- "$dir/cases"
"$python" tests/envelope/judge.py "$dir/cases"
