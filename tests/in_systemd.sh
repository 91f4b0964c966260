#!/bin/sh
# Runs a command in this clone, with systemd as its init: on a copy of this machine's system that is gone afterwards.
# As root, with systemd-container:  sh tests/in_systemd.sh COMMAND
set -eu
if [ "$1" != --inside ]; then exec unshare --mount --propagation private sh "$0" --inside "$@"; fi    # no mount outlives it
command -v systemd-nspawn > /dev/null || { echo "systemd-nspawn is missing: apt-get install systemd-container" >&2; exit 1; }
clone=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
mount -t tmpfs tmpfs "$folder"
mkdir "$folder/changes" "$folder/work" "$folder/root"
mount -t overlay -o "lowerdir=/,upperdir=$folder/changes,workdir=$folder/work" overlay "$folder/root"
root=$folder/root
printf '%032x\n' $$ > "$root/etc/machine-id"    # without one, systemd would enable every unit
rm -f "$root"/etc/systemd/system/*.wants/*
rm -rf "$root/var/lib/waxseal"
systemd-nspawn --quiet --directory="$root" --bind="$clone" --register=no --keep-unit --boot --console=pipe < /dev/null > "$folder/console" 2>&1 &
nspawn=$!
end() {
    kill -s RTMIN+4 "$init" 2> /dev/null || kill "$nspawn" || true    # power off
    wait "$nspawn" || true
    umount "$root" && umount "$folder" && rmdir "$folder"
}
trap end EXIT
init=
until [ -n "$init" ]; do
    kill -0 "$nspawn" 2> /dev/null || { cat "$folder/console" >&2; exit 1; }
    sleep 0.2
    init=$(pgrep -P "$nspawn" || true)
done
inside="nsenter --target $init --mount --uts --ipc --pid --cgroup --wdns=$clone env -i PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8"
$inside timeout 60 sh -c 'until systemctl is-system-running --wait 2> /dev/null | grep -Eq "running|degraded"; do sleep 0.2; done'
$inside sh -euc "$2"
