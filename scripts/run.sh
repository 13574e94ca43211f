#!/usr/bin/env bash
# run.sh COMMAND...: runs it with the environment of the black-box tests: the command, the servers, room for clusters.
. "$(dirname "$0")/common.sh"

SMS_OUTBOX_BIN=$(target_dir)/debug/sms-outbox
export SMS_OUTBOX_BIN SMS_OUTBOX_PG_TREES=$SERVERS SMS_OUTBOX_PG_TEMPLATES=$TEMPLATES SMS_OUTBOX_RUN=$RUN
# Backtraces of errors that a test prints tell about the harness, not about what is tested.
export RUST_LIB_BACKTRACE=${RUST_LIB_BACKTRACE:-0}
exec "$@"
