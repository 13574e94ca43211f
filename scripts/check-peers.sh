#!/usr/bin/env bash
# check-peers.sh [PEER...]: installs the peers of the benchmark and checks what each of their commands does, on a private server.
. "$(dirname "$0")/common.sh"

major=18
bin=$SERVERS/$major/bin
folder=$RUN/$$ # scripts/sweep.sh ends what is left in it
owner=$(stat -c %U "$TEMPLATES/$major") # PostgreSQL refuses to run as root
mkdir "$folder"
as_owner() { (cd "$folder" && if [ "$(id -un)" = "$owner" ]; then "$@"; else setpriv --reuid="$owner" --regid="$(id -g "$owner")" --clear-groups "$@"; fi); }
finish() {
    as_owner "$bin/pg_ctl" -D "$folder/data" -m immediate -w stop >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap finish EXIT

cp -a "$TEMPLATES/$major" "$folder/data"
chown "$owner:" "$folder"
as_owner "$bin/pg_ctl" -D "$folder/data" -l "$folder/log" -w start \
    -o "-c listen_addresses= -c unix_socket_directories=$folder -c fsync=off -c max_connections=150" >/dev/null \
    || die "PostgreSQL $major does not start ($(tail -n 1 "$folder/log"))"
bench/peers/check "postgresql:///postgres?host=$folder&user=postgres" "$@"
