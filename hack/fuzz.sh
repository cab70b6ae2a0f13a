#!/usr/bin/env bash
# Runs each fuzz test of the project for FUZZTIME (default 20s).
set -euo pipefail
cd "$(dirname "$0")/.."
grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do
  grep -oE '^func Fuzz[A-Za-z0-9_]*' "$file" | sed 's/func //' | while read -r name; do
    echo "== $name"
    go test -run '^$' -fuzz "^$name\$" -fuzztime "${FUZZTIME:-20s}" "./$(dirname "$file")" </dev/null
  done
done
