#!/usr/bin/env bash
# bench.sh NAME [ARGUMENT...]: runs a benchmark on release builds, with a private server of its own.
. "$(dirname "$0")/common.sh"

name=$1
shift
major=18
trees=$HERE/bench/servers
mkdir -p "$trees"
# Copied once: an optimized library must not get into the servers of the tests.
[ -d "$trees/$major" ] || cp -a "$PRISTINE/$major" "$trees/"
elapsed "building the command and the benchmark" cargo build --release --locked -p sms-outbox -p sms-outbox-bench
elapsed "building the extension for PostgreSQL $major" extension_cargo "$major" "$PRISTINE/$major/bin/pg_config" build --release
scripts/install.sh "$trees/$major/bin/pg_config" "$(target_dir)/release/libsms_outbox.so"
SMS_OUTBOX_BIN=$(target_dir)/release/sms-outbox
export SMS_OUTBOX_BIN SMS_OUTBOX_PG_TREES=$trees SMS_OUTBOX_PG_TEMPLATES=$TEMPLATES SMS_OUTBOX_RUN=$RUN
exec "$(target_dir)/release/bench-$name" "$@"
