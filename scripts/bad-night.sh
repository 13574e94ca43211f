#!/usr/bin/env bash
# bad-night.sh: MESSAGES=10000000 wait while everything is done that slows a queue down, and are then drained; ends with a summary in
# docs/bad-night/. A message takes about 2.5 kB of disk.
. "$(dirname "$0")/common.sh"

messages=${MESSAGES:-10000000}
need_number MESSAGES "$messages" 1000 999999999
need_space "$STATE" $((messages / 400 + 3000)) "a night of $messages messages"

mkdir -p "$ROOT/docs/bad-night"
setting="sms_outbox $(git describe --always --dirty 2>/dev/null || echo unknown), a build for tests"
setting+="; $(nproc) cores, $(awk '/^MemTotal/ { printf "%.0f GB", $2 / 1048576 }' /proc/meminfo)"
scripts/run.sh env BAD_NIGHT_MESSAGES="$messages" BAD_NIGHT_SETTING="$setting" \
    BAD_NIGHT_SUMMARY="$ROOT/docs/bad-night/$messages-messages.md" \
    cargo test --locked -p sms-outbox-tests --test bad_night -- --nocapture reads_no_more_at_its_end_than_at_its_beginning::pg18
