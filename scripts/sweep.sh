#!/usr/bin/env bash
# sweep.sh [all]: ends what test runs left behind that were killed together with their reaper; with `all` also what
# `make demo KEEP=1` left running on purpose.
. "$(dirname "$0")/common.sh"

processes() { find /proc -mindepth 2 -maxdepth 2 -name cwd \( -lname "$1" -o -lname "$1/*" \) 2>/dev/null | cut -d/ -f3; }

for folder in "$RUN"/[0-9]*; do
    [ -d "$folder" ] || continue
    if [ -e "$folder/kept" ]; then
        [ "${1:-}" = all ] || [ -z "$(processes "$folder")" ] || continue
    elif [ -d "/proc/${folder##*/}" ]; then
        continue # it runs now
    fi
    signal=QUIT
    for try in {1..50}; do
        mapfile -t alive < <(processes "$folder")
        [ ${#alive[@]} -gt 0 ] || break
        kill -s "$signal" "${alive[@]}" 2>/dev/null || true
        kill -s CONT "${alive[@]}" 2>/dev/null || true
        sleep 0.1
        [ "$try" -lt 30 ] || signal=KILL
    done
    rm -rf "$folder"
    say "removed what process ${folder##*/} left behind"
done
