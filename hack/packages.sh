# Installs Debian packages that are missing; source it.
# need COMMAND PACKAGE WHY
need() {
  command -v "$1" >/dev/null 2>&1 && return 0
  echo "installing the Debian package $2 ($3)"
  if [ "$(id -u)" != 0 ]; then echo "that needs root: apt-get install $2" >&2; return 1; fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$2" >/dev/null 2>&1 && return 0
  apt-get update -qq >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$2" >/dev/null
}
