#!/bin/sh
# Runs a command of this clone, `make test` unless another is given, in a newer Debian, with its PostgreSQL, RabbitMQ and Python.
# As root, with debootstrap:  sh tests/in_debian.sh trixie|sid FOLDER [COMMAND]
# The system is made in FOLDER/RELEASE if it is not there, and stays; the clone in it is made anew from the last commit.
set -eu
if [ "$1" != --inside ]; then exec unshare --mount --propagation private sh "$0" --inside "$@"; fi    # no mount outlives it
shift
release=$1 folder=$2 command=${3:-make test}
root=$folder/$release
clone=$(cd "$(dirname "$0")/.." && pwd)

if [ ! -e "$root/made" ]; then
    mkdir -p "$folder"
    debootstrap --variant=minbase --include=ca-certificates,git,make,python3,python3-venv,procps,iproute2 "$release" "$root"
    echo 'Acquire::Check-Valid-Until "false";' > "$root/etc/apt/apt.conf.d/99old"    # a mirror of unstable may be behind
    touch "$root/made"
fi
for each in proc sys dev; do mount --rbind "/$each" "$root/$each"; done
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
for each in /etc/pip.conf /usr/local/share/ca-certificates; do    # of a network with an authority of its own
    if [ -e "$each" ]; then cp -rT "$each" "$root$each"; fi
done
chroot "$root" update-ca-certificates > /dev/null
rm -rf "$root/src/waxseal" "$root/src/waxseal.git"
git clone --quiet --bare "$clone" "$root/src/waxseal.git"
chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    sh -euc "git clone --quiet /src/waxseal.git /src/waxseal && cd /src/waxseal && $command"
