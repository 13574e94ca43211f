#!/usr/bin/env bash
# install-script.sh: prints the extension's install script, the files of sql/schema in the order of their numbers.
. "$(dirname "$0")/common.sh"

for file in sql/schema/[0-9][0-9]_*.sql; do
    [ -e "$file" ] || die "sql/schema holds no file: the checkout is not complete"
    cat "$file"
    echo
done
