#!/usr/bin/env bash
# Makes one of the images of examples/dask for tests, on a base of Debian packages
# instead of the one in its Dockerfile, and prints its name and the path of its
# archive. No image is pulled from anywhere; it is kept in the user's cache folder.
# debian13 is the one of Debian's packages with those of Debian 13: it has another
# minor version of Python, 3.13.
# Usage: hack/dask-image.sh debian|debian13|pypi
set -euo pipefail
cd "$(dirname "$0")/.."
. hack/packages.sh
kind=${1:-}
case $kind in
  debian) recipe=debian suite=bookworm packages='' ;;
  debian13) recipe=debian suite=trixie packages='' ;;
  pypi) recipe=pypi suite='' packages=python3,python3-venv ;;
  *) echo "usage: hack/dask-image.sh debian|debian13|pypi" >&2; exit 2 ;;
esac
image=docker.io/library/dask:$kind
cache=${XDG_CACHE_HOME:-$HOME/.cache}/berth-test
# Made anew where a recipe, or this one, is another.
state=$(cat "hack/dask-image.sh" "examples/dask/Dockerfile.$recipe" examples/dask/requirements.txt | sha256sum | cut -c1-12)
archive=$cache/dask-$kind-$state.tar
if [ ! -f "$archive" ]; then
  {
    need mmdebstrap mmdebstrap "to make a base image from Debian packages"
    need dockerd docker.io "to build the image of examples/dask"
    need docker docker-cli "to build the image of examples/dask"
    mkdir -p "$cache"
    work=$(mktemp -d)
    dockerd=''
    clean() {
      [ -z "$dockerd" ] || { kill "$dockerd" 2>/dev/null && wait "$dockerd" || true; }
      awk -v dir="$work/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | xargs -r -n 1 umount -l
      rm -rf "$work" "$archive.$$"
    }
    trap clean EXIT
    trap 'exit 130' INT TERM
    echo "making the image $image (once, about a minute)"

    # From where this machine has its own packages.
    own=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
    mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null | awk -v suite="$own" '$1 == suite { print $2; exit }' || true)
    mmdebstrap --quiet --variant=minbase ${packages:+--include="$packages"} \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      --dpkgopt='path-exclude=/usr/share/info/*' --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*' \
      "${suite:-$own}" "$work/base.tar" ${mirror:+"$mirror"}

    mkdir "$work/context"
    cp -r examples/dask/. "$work/context"
    options=''
    if [ "$kind" = pypi ]; then
      # Here, where pip is set up for the index that this machine is to use.
      need pip3 python3-pip "to download Dask"
      python=$(tar -tf "$work/base.tar" | sed -n 's|^\./usr/bin/python\(3\.[0-9]*\)$|\1|p')
      pip3 download --quiet --disable-pip-version-check --only-binary :all: --python-version "$python" \
        --dest "$work/context/wheels" -r examples/dask/requirements.txt
      options=--no-index
    fi

    # An engine of its own, so that none has to run here.
    dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" -H "unix://$work/docker.sock" \
      --containerd-namespace "dask-image-$$" --containerd-plugins-namespace "dask-image-$$-plugins" \
      --bridge=none --iptables=false --ip-forward=false --shutdown-timeout=3 > "$work/log" 2>&1 &
    dockerd=$!
    export DOCKER_HOST=unix://$work/docker.sock DOCKER_CONFIG=$work/config DOCKER_BUILDKIT=0
    for ((i = 0; ; i++)); do
      docker version > /dev/null 2>&1 && break
      if [ "$i" = 300 ] || ! kill -0 "$dockerd" 2>/dev/null; then tail -20 "$work/log"; exit 1; fi
      sleep 0.2
    done
    docker import "$work/base.tar" berth-test/base > /dev/null
    docker build --quiet --network host --build-arg BASE=berth-test/base --build-arg "PIP_OPTIONS=$options" \
      -f "$work/context/Dockerfile.$recipe" -t "$image" "$work/context" 2> "$work/build" > /dev/null || { cat "$work/build"; exit 1; }
    docker save "$image" > "$archive.$$"
    rm -f "$cache/dask-$kind"-*.tar
    mv "$archive.$$" "$archive"
    clean
    trap - EXIT
  } >&2
fi
echo "$image $archive"
