#!/usr/bin/env bash
# Installs what scripts/security.sh runs, pinned, into the state folder: pgspot and Schemathesis from PyPI, cargo-deny built
# here, since nobody publishes a binary of it where crates come from.
. "$(dirname "$0")/common.sh"

make_state
exec 9>"$STATE/tools.lock"
flock 9

# install NAME WANTED COMMAND...: runs it, unless what is there was installed from the same WANTED; complete or not there at all.
install() {
    local folder=$TOOLS/$1 wanted=$2 log=$HERE/$1.log
    shift 2
    [ "$(cat "$folder/installed" 2>/dev/null)" != "$wanted" ] || return 0
    rm -rf "$folder" "$folder.partial"
    mkdir -p "$folder.partial"
    elapsed "installing ${folder##*/}" "$@" "$folder.partial" >"$log" 2>&1 \
        || die "${folder##*/} cannot be installed ($(grep -iE '^ *error|no matching' "$log" | tail -n 1); all in $log): check the network"
    tail -n 1 "$log" >&2
    printf '%s\n' "$wanted" > "$folder.partial/installed"
    mv "$folder.partial" "$folder"
}

python_tools() { python3 -m pip install --quiet --disable-pip-version-check --no-cache-dir --require-hashes --only-binary=:all: \
    -r scripts/tools.txt --target "$1"; }

# Without optimisation it is built in a minute, and checks in two seconds.
cargo_deny() {
    local rc=0
    CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug "cargo-deny@$CARGO_DENY" --root "$1" --target-dir "$1/target" || rc=$?
    rm -rf "$1/target"
    return "$rc"
}

python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
install python "$python $(sha256sum <scripts/tools.txt)" python_tools
install cargo-deny "$CARGO_DENY" cargo_deny
