#!/usr/bin/env bash
# faults.sh: runs every test that injects a fault, also those that `make test` leaves out, and ends with one table.
. "$(dirname "$0")/common.sh"

SMS_OUTBOX_FAULTS=$HERE/faults.jsonl
export SMS_OUTBOX_FAULTS
rm -f "$SMS_OUTBOX_FAULTS"

# A test file that reports a fault runs as a whole.
files=()
while read -r file; do
    name=${file#tests/tests/}
    name=${name%%/*}
    files+=(--test "${name%.rs}")
done < <(grep -rl 'Fault::new' tests/tests --include='*.rs' | sort -u)

# An hour is the promise; what hangs beyond it is a fault too.
rc=0
RUST_TEST_THREADS=${RUST_TEST_THREADS:-6} timeout 3600 scripts/run.sh \
    cargo test --locked --no-fail-fast -p sms-outbox-tests "${files[@]}" -- --include-ignored || rc=$?
python3 scripts/faults.py "$SMS_OUTBOX_FAULTS" || rc=1
[ "$rc" = 0 ] || say "error: not every fault was withstood, see above"
exit "$rc"
