#!/usr/bin/env bash
# Formatting, lints of all three crates, and the rules of the architecture.
. "$(dirname "$0")/common.sh"

for tool in fmt clippy; do
    cargo "$tool" --version >/dev/null 2>&1 || die "cargo $tool is not installed: run 'rustup component add rustfmt clippy'"
done
rc=0
elapsed "architecture" scripts/check-architecture.sh || rc=1
elapsed "cargo fmt" cargo fmt --all --check || rc=1
elapsed "cargo clippy" cargo clippy --locked --quiet -p sms-outbox -p sms-outbox-tests -p sms-outbox-bench --all-targets -- -D warnings || rc=1
elapsed "cargo clippy of the extension" extension_cargo 18 "$PRISTINE/18/bin/pg_config" clippy --quiet --all-targets -- -D warnings || rc=1
exit "$rc"
