# shellcheck shell=bash
# What the scripts share: where things are, how they speak, which servers exist. Sourced, never run.
set -euo pipefail
umask 022

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$ROOT"

# Everything outside the checkout lies here: what was downloaded is shared by all checkouts of a user, the rest is per checkout.
# Not in the checkout: PostgreSQL refuses to run as root, and another user may be unable to reach the checkout.
STATE=${SMS_OUTBOX_STATE:-/var/tmp/sms-outbox-$(id -u)}
DOWNLOADS=$STATE/downloads
PRISTINE=$STATE/servers   # PRISTINE/18 is an unpacked PostgreSQL 18, to build against and to copy from
TOOLS=$STATE/tools        # what scripts/tools.sh installs
PEERS=$STATE/peers        # what scripts/peers.sh installs
HERE=$STATE/$(printf %s "$ROOT" | sha256sum | cut -c1-12)
SERVERS=$HERE/servers     # SERVERS/18 is an unpacked PostgreSQL 18 with the extension installed
TEMPLATES=$HERE/templates # TEMPLATES/18 is a freshly initialized data directory
RUN=$HERE/run             # data directories of clusters that run now

# shellcheck disable=SC2034 # used by those who source this
MAJORS=(15 16 17 18)
# shellcheck disable=SC2034
CARGO_DENY=0.20.2

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }


# elapsed LABEL COMMAND...: runs it and says how long it took.
elapsed() {
    local label=$1 start=$SECONDS rc=0
    shift
    "$@" || rc=$?
    if [ "$rc" = 0 ]; then say "-- $label: $((SECONDS - start)) s"; else say "-- $label: failed after $((SECONDS - start)) s"; fi
    return "$rc"
}

# make_state: the folders, ours alone to write: /var/tmp is open to everybody.
make_state() {
    mkdir -p "$STATE" 2>/dev/null || die "cannot create $STATE: make $(dirname "$STATE") writable, or set SMS_OUTBOX_STATE to another folder"
    { [ -O "$STATE" ] && [ ! -L "$STATE" ]; } || die "$STATE belongs to somebody else: remove it, or set SMS_OUTBOX_STATE to another folder"
    chmod 755 "$STATE"
    mkdir -p "$DOWNLOADS" "$PRISTINE" "$SERVERS" "$TEMPLATES" "$RUN"
    printf '%s\n' "$ROOT" > "$HERE/checkout"
}

# need_number NAME VALUE LEAST MOST: a setting that is no such number is told before anything is done.
need_number() {
    { [[ $2 =~ ^(0|[1-9][0-9]{0,17})$ ]] && [ "$2" -ge "$3" ] && [ "$2" -le "$4" ]; } \
        || die "$1: '$2' is not a whole number from $3 to $4"
}

# need_space FOLDER MEGABYTES WHAT: a full disk fails in a hundred ways later, and in one line here.
need_space() {
    local folder=$1 free
    while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
    free=$(df -Pm "$folder" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$2" ] || die "$folder has $free MB free and $3 needs $2 MB: make room there"
}

# target_dir: where cargo puts its output, also where CARGO_TARGET_DIR or a cargo configuration moves it.
target_dir() {
    cargo metadata --locked --offline --no-deps --format-version 1 2>/dev/null \
        | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# extension_cargo MAJOR PG_CONFIG CARGO_ARGUMENTS...: cargo on the extension for one major. pgrx builds anew
# whenever this path changes, so for a major it is always the same one, in every checkout.
extension_cargo() {
    local major=$1 pg_config=$2 command=$3
    shift 3
    PGRX_PG_CONFIG_PATH=$pg_config cargo "$command" --locked -p sms-outbox-extension --features "pg$major" "$@"
}
