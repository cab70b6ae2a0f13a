#!/usr/bin/env bash
# The function's name is the first argument, its inputs are variables.
set -euo pipefail
case $1 in
  add) c=$((A + B)) ;;
  subtract) c=$((A - B)) ;;
  multiply) c=$((A * B)) ;;
  divide)
    if [ "$B" -eq 0 ]; then
      echo "$A can't be divided by 0" >&2
      exit 1
    fi
    c=$((A / B))
    if [ $((A % B)) -ne 0 ] && [ $(((A < 0) != (B < 0))) -eq 1 ]; then c=$((c - 1)); fi ;;
esac
echo "c: $c"
