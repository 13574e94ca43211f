#!/usr/bin/env bash
# install.sh PG_CONFIG LIBRARY: puts the built extension into the server of PG_CONFIG, below DESTDIR where it is set.
. "$(dirname "$0")/common.sh"

pg_config=$1 library=$2
lib=${DESTDIR:-}$("$pg_config" --pkglibdir)
share=${DESTDIR:-}$("$pg_config" --sharedir)/extension
version=$(sed -n "s/^default_version = '\(.*\)'/\1/p" extension/sms_outbox.control)

# A server that has the library loaded crashes when it is written over, so a new file takes its name.
put() {
    cmp -s "$1" "$2" && return
    "${as_root[@]}" install -m "$3" "$1" "$2.new" || die "cannot write $2: check the rights and the room of ${2%/*}"
    "${as_root[@]}" mv -f "$2.new" "$2"
}

as_root=()
existing=$lib
while [ ! -d "$existing" ]; do existing=$(dirname "$existing"); done
if [ ! -w "$existing" ]; then
    command -v sudo >/dev/null || die "$existing is not writable: run this as its owner, or install sudo"
    say "$existing belongs to root: copying with sudo"
    as_root=(sudo)
fi
"${as_root[@]}" mkdir -p "$lib" "$share"

script=$(mktemp)
trap 'rm -f "$script"' EXIT
scripts/install-script.sh > "$script"
put "$library" "$lib/sms_outbox.so" 755
put "$script" "$share/sms_outbox--$version.sql" 644
for upgrade in sql/upgrade/sms_outbox--*.sql; do
    [ ! -e "$upgrade" ] || put "$upgrade" "$share/${upgrade##*/}" 644
done
# Last: the control file makes the rest visible to CREATE EXTENSION.
put extension/sms_outbox.control "$share/sms_outbox.control" 644
