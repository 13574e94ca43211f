#!/usr/bin/env bash
# test.sh STAGE...: runs stages of the tests, goes on after a failure, and ends with one line that counts all.
. "$(dirname "$0")/common.sh"

log=$HERE/test.log
passed=0 failed=0 skipped=0

# count STAGE RC: adds up what cargo test printed into the log; a stage that broke before its end counts as a failure.
count() {
    local sums
    sums=$(awk '/^test result:/ { p += $4; f += $6; s += $8 } END { print p + 0, f + 0, s + 0 }' "$log")
    read -r p f s <<<"$sums"
    [ "$2" = 0 ] || [ "$f" -gt 0 ] || { f=1; say "error: $1 did not finish, see above"; }
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

# check COMMAND...: a check that is not a cargo test counts as one.
check() {
    if "$@"; then echo "test result: ok. 1 passed; 0 failed; 0 ignored"; else echo "test result: FAILED. 0 passed; 1 failed; 0 ignored"; return 1; fi
}

run_build() {
    scripts/build.sh || return
    elapsed "building the tests" cargo test --locked --quiet --no-run -p sms-outbox -p sms-outbox-tests -p sms-outbox-bench || return
    elapsed "building the tests of the extension" extension_cargo 18 "$PRISTINE/18/bin/pg_config" test --quiet --lib --no-run
}

run_lint() { check scripts/lint.sh; }

run_security() {
    local rc=0 part
    for part in sql crates api; do check scripts/security.sh "$part" || rc=1; done
    return "$rc"
}

run_unit() {
    local rc=0
    cargo test --locked --no-fail-fast -p sms-outbox -p sms-outbox-bench || rc=1
    extension_cargo 18 "$PRISTINE/18/bin/pg_config" test --lib || rc=1
    return "$rc"
}

# Most of a black-box test is waiting for other processes: more of them at once than there are cores.
run_flow() {
    local threads=${RUST_TEST_THREADS:-6}
    RUST_TEST_THREADS=$threads scripts/run.sh cargo test --locked --no-fail-fast -p sms-outbox-tests \
        ${TEST:+--test "$TEST"} -- ${FILTER:+"$FILTER"}
}

# The black-box tests of who may do what, alone: stage flow has them too.
run_attacks() {
    scripts/run.sh cargo test --locked --no-fail-fast -p sms-outbox-tests --test hostile --test roles --test canaries
}

run_demo() { check scripts/run.sh cargo run --quiet --locked -p sms-outbox-tests --bin demo; }

run_left() { check nothing_left; }

# What a test process leaves at its end its reaper removes, a moment later.
nothing_left() {
    local left tries
    for ((tries = 0; tries < 30; tries++)); do
        left=$(find "$RUN" -mindepth 1 -maxdepth 1 ! -exec test -e '{}/kept' \; -print)
        [ -n "$left" ] || return 0
        sleep 0.5
    done
    say "error: the tests left behind: $left"
    return 1
}

for stage in "$@"; do
    rc=0
    # A pipe, so that what a stage prints is seen while it runs and counted after it.
    elapsed "stage $stage" "run_$stage" 2>&1 | tee "$log" || rc=$?
    count "$stage" "$rc"
    # Without a build the rest can only fail, and hide why.
    [ "$stage" != build ] || [ "$rc" = 0 ] || break
done
summary="$passed passed, $failed failed"
[ "$skipped" = 0 ] || summary+=", $skipped skipped"
echo "$summary"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
