#!/bin/bash
# Installs those of the named Debian packages that are missing: packages.sh NAME...
# None of their services is started now, and none is left enabled for the next boot.
set -euo pipefail

exec 6<"$0"
flock 6 # apt itself does not wait its turn
missing=()
# shellcheck disable=SC2016 # the format is dpkg's, not the shell's
for name in "$@"; do
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$name" 2>/dev/null || true)" = installed ] ||
        missing+=("$name")
done
[ ${#missing[@]} -gt 0 ] || exit 0
[ "$(id -u)" = 0 ] || { echo "packages.sh: must be root to install ${missing[*]}" >&2; exit 1; }

echo "installing Debian packages (under a minute): ${missing[*]}"
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then # asked by every package's install script; 101 = start nothing
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    trap 'rm -f $policy' EXIT
fi
quietly() { # only its failure is worth reading
    local said
    said=$("$@" 2>&1 </dev/null) || { printf '%s\n' "$said" >&2; exit 1; }
}
export DEBIAN_FRONTEND=noninteractive
quietly apt-get update -q
quietly apt-get install -qy --no-install-recommends "${missing[@]}"
if [ -d /run/systemd/system ]; then
    for name in "${missing[@]}"; do
        systemctl --quiet disable "$name.service" 2>/dev/null || true
    done
fi
