#!/usr/bin/env bash
# Removes the builds and the private servers of this checkout; the downloads stay for the others.
. "$(dirname "$0")/common.sh"

left=$(find /proc -mindepth 2 -maxdepth 2 -name cwd -lname "$HERE/*" 2>/dev/null | cut -d/ -f3 | tr '\n' ' ')
[ -z "$left" ] || die "private servers still run (process $left): stop them first"
cargo clean --quiet
rm -rf "$HERE"
