#!/usr/bin/env bash
# soak.sh: several workers under load and random faults for MINUTES, drawn from SEED; ends with a summary in docs/soak/.
# RATE bounds the messages a second that applications try to reach, MESSAGES all of them (and so the disk). PROFILE=debug
# spares the optimized build of the worker, and measures less.
. "$(dirname "$0")/common.sh"

minutes=${MINUTES:-60} seed=${SEED:-$RANDOM} messages=${MESSAGES:-6000000}
need_number MINUTES "$minutes" 1 1440
need_number SEED "$seed" 0 999999999999999999
need_number RATE "${RATE:-3000}" 100 100000
need_number MESSAGES "$messages" 1 999999999
flags=()
[ "${PROFILE:-release}" = debug ] || flags=(--release)
# A message takes about 3 kB in tables, log and journals.
need_space "$STATE" $((messages < minutes * 300000 ? messages / 300 : minutes * 1000)) "a soak"

elapsed "building worker and soak" cargo build --locked "${flags[@]}" -p sms-outbox -p sms-outbox-tests --bin sms-outbox --bin soak
folder=$(target_dir)/$([ ${#flags[@]} = 0 ] && echo debug || echo release)
mkdir -p "$ROOT/docs/soak" "$HERE/soak"
scripts/run.sh env SMS_OUTBOX_BIN="$folder/sms-outbox" "$folder/soak" \
    --minutes "$minutes" --seed "$seed" --rate "${RATE:-3000}" --messages "$messages" \
    --folder "$HERE/soak/$seed-$minutes" --summary "$ROOT/docs/soak/$minutes-minutes-seed-$seed.md" \
    --version "$(git describe --always --dirty 2>/dev/null || echo unknown), ${PROFILE:-release} build" \
    --machine "$(nproc) cores, $(awk '/^MemTotal/ { printf "%.0f GB", $2 / 1048576 }' /proc/meminfo)"
