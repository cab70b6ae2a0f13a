#!/usr/bin/env bash
# Makes a root filesystem with bash, Python and Node from Debian packages, for
# examples and tests to build packages upon, and prints its path. No image is
# pulled from anywhere; it is kept in the user's cache folder.
set -euo pipefail
cd "$(dirname "$0")/.."
. hack/packages.sh
cache=${XDG_CACHE_HOME:-$HOME/.cache}/berth-test
base=$cache/base-1.tar
if [ ! -f "$base" ]; then
  need mmdebstrap mmdebstrap "to make a base image from Debian packages" >&2
  mkdir -p "$cache"
  # From where this machine has its own packages.
  suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
  mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null | awk -v suite="$suite" '$1 == suite { print $2; exit }' || true)
  echo "making a base image with bash, Python and Node (once, about 20 s)" >&2
  mmdebstrap --quiet --variant=minbase --include=python3,nodejs \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*' \
    "$suite" "$base.new.tar" ${mirror:+"$mirror"} >&2
  mv "$base.new.tar" "$base"
fi
echo "$base"
