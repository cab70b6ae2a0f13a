#!/usr/bin/env bash
case $1 in
  exits)
    echo "there is nothing to be done about it" >&2
    exit 3 ;;
  silent) ;;
  mistyped) echo "c: five" ;;
esac
