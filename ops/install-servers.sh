#!/bin/sh
# Installs packages with apt, without letting any of them start a service or create a database. Run as root:
#   sh ops/install-servers.sh postgresql rabbitmq-server
set -eu
export DEBIAN_FRONTEND=noninteractive

policy=/usr/sbin/policy-rc.d                          # asked before a service is started; 101 forbids it
clusters=/etc/postgresql-common/createcluster.conf    # says whether a new PostgreSQL gets a database of its own

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

# A copy that exists already was left by a run that was killed, and is the original.
if [ -e "$policy" ] && [ ! -e "$policy.waxseal" ]; then mv "$policy" "$policy.waxseal"; fi
printf '#!/bin/sh\nexit 101\n' > "$policy"
chmod 755 "$policy"

apt-get -q -o DPkg::Lock::Timeout=300 update
for package in "$@"; do
    if [ "$package" = postgresql ]; then
        install postgresql-common
        if [ ! -e "$clusters" ]; then
            made=$clusters
        elif [ ! -e "$clusters.waxseal" ]; then
            cp -p "$clusters" "$clusters.waxseal"
        fi
        echo 'create_main_cluster = false' >> "$clusters"
    fi
done
install "$@"
