#!/usr/bin/env bash
# Builds what the tests and the demo run: the command, and the extension in a private server of each major.
. "$(dirname "$0")/common.sh"

exec 9>"$HERE/lock"
flock 9
target=$(target_dir)
elapsed "building the command" cargo build --locked -p sms-outbox
for major in "${MAJORS[@]}"; do
    pg_config=$SERVERS/$major/bin/pg_config
    elapsed "building the extension for PostgreSQL $major" extension_cargo "$major" "$pg_config" build
    scripts/install.sh "$pg_config" "$target/debug/libsms_outbox.so"
done
