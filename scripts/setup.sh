#!/usr/bin/env bash
# Installs what a clean Debian 12 lacks, and nothing where all is there. Fails early, in one line, with the cure.
. "$(dirname "$0")/common.sh"

# Compiler and libclang: pgrx reads PostgreSQL's headers. Prometheus: its promtool tests the alert rules. libfaketime: workers with
# a wrong clock. The libraries: private servers link against them.
PACKAGES=(
    ca-certificates gcc libc6-dev make pkg-config
    clang libclang-dev libssl-dev
    prometheus
    libfaketime
    libgssapi-krb5-2 liblz4-1 libreadline8 libssl3 libxml2 libzstd1 zlib1g tzdata
)
python3 -m pip --version >/dev/null 2>&1 || PACKAGES+=(python3-pip)

check_machine() {
    [ "$(uname -sm)" = "Linux x86_64" ] || die "$(uname -sm) is not supported: the private PostgreSQL servers exist for Linux x86_64"
    command -v cargo >/dev/null || die "cargo is not installed: install the Rust toolchain $(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml), for example with rustup"
    local version
    version=$(cargo --version 2>&1) || die "cargo does not start (${version%%$'\n'*}): run 'rustup toolchain install' in $ROOT"
}

missing_packages() {
    local package
    for package in "${PACKAGES[@]}"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s\n' "$package"
    done
}

install_packages() {
    local missing as_root=() log
    command -v dpkg-query >/dev/null || die "this is not Debian: install the equivalents of ${PACKAGES[*]}, then run the commands of 'make help' with SMS_OUTBOX_NO_APT=1"
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || die "packages are missing and sudo is not usable without a password: run 'sudo apt-get install -y ${missing[*]}' once"
        as_root=(sudo -n)
    fi
    say "installing ${missing[*]}"
    need_space /usr 1500 "installing packages"
    log=$(mktemp)
    # shellcheck disable=SC2064 # the name of now
    trap "rm -f '$log'" EXIT
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
    { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 \
        || die "apt-get could not install ${missing[*]} ($(grep -E '^(E|W|Err)' "$log" | tail -n 1)): check the network and /etc/apt/sources.list"
}

# Checkouts that are gone leave their servers behind.
prune_state() {
    local note
    for note in "$STATE"/*/checkout; do
        if [ -e "$note" ] && [ ! -d "$(cat "$note")" ]; then rm -rf "$(dirname "$note")"; fi
    done
}

check_machine
[ -n "${SMS_OUTBOX_NO_APT:-}" ] || install_packages
make_state
prune_state
target=$(target_dir)
if [ -d "$target/debug" ]; then need_space "$target" 1000 "a build"; else need_space "${target:-$ROOT}" 8000 "a first build"; fi
need_space "$STATE" 1500 "running private servers"
cargo fetch --quiet --locked --target x86_64-unknown-linux-gnu 2>"$HERE/fetch.log" \
    || die "cargo cannot get the crates ($(grep -E '^(error|Caused)' "$HERE/fetch.log" | head -n 1); all in $HERE/fetch.log): check the network, and that Cargo.lock fits Cargo.toml"
