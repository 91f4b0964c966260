#!/bin/sh
# Installs packages with apt, without letting any of them start a service or create a database. Run as root:
#   sh ops/install-servers.sh postgresql rabbitmq-server
set -eu
export DEBIAN_FRONTEND=noninteractive

policy=/usr/sbin/policy-rc.d                          # asked before a service is started; 101 forbids it
clusters=/etc/postgresql-common/createcluster.conf    # says whether a new PostgreSQL gets a database of its own

mark='# waxseal wrote this while it installed packages'
made=
put_back() {
    rm -f "$policy" ${made:+"$made"}
    for file in "$policy" "$clusters"; do
        if [ -e "$file.waxseal" ]; then mv "$file.waxseal" "$file"; fi
    done
}
trap put_back EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

install() {
    apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
}

# Whether $1 is no file of the machine's own: it is missing, or a run that was killed left it.
is_ours() { [ ! -e "$1" ] || grep -q -x -F "$mark" "$1"; }

# A copy that exists already was left by a run that was killed, and is the original.
if [ ! -e "$policy.waxseal" ] && ! is_ours "$policy"; then mv "$policy" "$policy.waxseal"; fi
printf '#!/bin/sh\n%s\nexit 101\n' "$mark" > "$policy.waxseal-new"
chmod 755 "$policy.waxseal-new"
mv "$policy.waxseal-new" "$policy"    # whole at any moment, so that the next run recognises it

apt-get -q -o DPkg::Lock::Timeout=300 update
for package in "$@"; do
    if [ "$package" = postgresql ]; then
        install postgresql-common
        if [ ! -e "$clusters.waxseal" ]; then
            if is_ours "$clusters"; then
                made=$clusters
            else
                cp -p "$clusters" "$clusters.waxseal-new"
                mv "$clusters.waxseal-new" "$clusters.waxseal"
            fi
        fi
        printf '%s\ncreate_main_cluster = false\n' "$mark" >> "$clusters"
    fi
done
install "$@"
