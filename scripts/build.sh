#!/usr/bin/env bash
# build.sh [--plain] [MAJOR...]: builds what the tests and the demo run: the command, and the extension in the private servers
# of these majors, or of all. --plain leaves out what only tests run.
. "$(dirname "$0")/common.sh"

exec 9>"$HERE/lock"
flock 9
target=$(target_dir)
elapsed "building the command" cargo build --locked -p sms-outbox
if [ "${1:-}" = --plain ]; then
    shift
else
    elapsed "building the command with fail points" \
        cargo build --locked -p sms-outbox --features failpoints --bin sms-outbox-failpoints
fi

# Cargo keeps one library for all majors, and would build it anew for each, every time: so what it was built from is
# noted beside the installed one. Checkouts may share the target folder: none may build between a build and its install.
exec 7>"$target/extension.lock"
flock 7
inputs=$(find extension sql/statements Cargo.toml Cargo.lock rust-toolchain.toml -type f -print0 \
    | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
[ $# -gt 0 ] || set -- "${MAJORS[@]}"
for major in "$@"; do
    pg_config=$SERVERS/$major/bin/pg_config
    note=$SERVERS/$major/extension.inputs
    library=$SERVERS/$major/lib/sms_outbox.so
    if [ ! -e "$library" ] || [ "$(cat "$note" 2>/dev/null)" != "$inputs" ]; then
        elapsed "building the extension for PostgreSQL $major" extension_cargo "$major" "$PRISTINE/$major/bin/pg_config" build
        library=$target/debug/libsms_outbox.so
    fi
    # The SQL may have changed alone.
    scripts/install.sh "$pg_config" "$library"
    printf '%s\n' "$inputs" > "$note"
done
