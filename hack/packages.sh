# Installs Debian packages that are missing; source it.
# need COMMAND PACKAGE WHY
need() {
  command -v "$1" >/dev/null 2>&1 && return 0
  echo "installing the Debian package $2 ($3)"
  if [ "$(id -u)" != 0 ]; then echo "that needs root: apt-get install $2" >&2; return 1; fi
  # Programs are wanted, and no service that a package would start with them.
  local policy=/usr/sbin/policy-rc.d ours='' code=0
  if [ ! -e "$policy" ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy"
  fi
  apt_install "$2" >/dev/null 2>&1 || { apt-get update -qq >/dev/null && apt_install "$2" >/dev/null; } || code=$?
  [ -z "$ours" ] || rm -f "$policy"
  return "$code"
}

apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1"; }
