#!/usr/bin/env bash
# release.sh command | extension PG_CONFIG: optimized builds for use, the extension's into an existing server.
. "$(dirname "$0")/common.sh"

case $1 in
command)
    scripts/setup.sh
    elapsed "building the command" cargo build --release --locked -p sms-outbox
    say "built $(target_dir)/release/sms-outbox"
    ;;
extension)
    pg_config=$(command -v "$2") || die "$2 not found: say 'make install PG_CONFIG=/path/to/pg_config'"
    version=$("$pg_config" --version) || die "$pg_config does not work: say 'make install PG_CONFIG=/path/to/pg_config'"
    major=${version#PostgreSQL }
    major=${major%%[!0-9]*}
    [[ " ${MAJORS[*]} " == *" $major "* ]] \
        || die "$version is not supported: the extension is for PostgreSQL ${MAJORS[*]}; choose another server with PG_CONFIG="
    [ -f "$("$pg_config" --includedir-server)/postgres.h" ] \
        || die "the headers of $version are missing: install the package postgresql-server-dev-$major"
    scripts/setup.sh
    elapsed "building the extension for $version" extension_cargo "$major" "$pg_config" build --release
    scripts/install.sh "$pg_config" "$(target_dir)/release/libsms_outbox.so"
    say "installed for $version; next: shared_preload_libraries = 'sms_outbox', restart, CREATE EXTENSION sms_outbox"
    ;;
esac
