#!/usr/bin/env bash
# Installs what slurm_up.sh needs from Debian's (or Ubuntu's) packages, where that is not there yet. Exit code 2, and one
# line that says why, where it cannot be had. Needs root.
set -uo pipefail

PACKAGES="slurm-wlm slurmctld slurmd slurm-client slurmdbd munge mariadb-server"
POLICY=/usr/sbin/policy-rc.d

cannot() { echo "$*" >&2; exit 2; }

there() {
    for tool in munged mariadbd mariadb-install-db slurmdbd slurmctld slurmd sbatch sacct; do
        command -v "$tool" > /dev/null || return 1
    done
}

[ "$(id -u)" = 0 ] || cannot "it needs root"
there && exit 0
command -v apt-get > /dev/null || cannot "there is no Slurm, and no apt-get to install it with"
# Debian starts a daemon as soon as it is installed, unless this file says that it may not; slurm_up.sh starts its own.
if [ ! -e "$POLICY" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$POLICY" && chmod +x "$POLICY"
    trap 'rm -f "$POLICY"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
timeout 120 apt-get -q update > "$log" 2>&1 || true # what is in the lists already may do
# shellcheck disable=SC2086 # words are meant
timeout 300 apt-get -qy install --no-install-recommends $PACKAGES >> "$log" 2>&1 && there ||
    cannot "apt-get could not install Slurm: $(tail -n 1 "$log") (all of it: $log)"
rm -f "$log"
