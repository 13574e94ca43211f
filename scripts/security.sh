#!/usr/bin/env bash
# security.sh sql | crates | api: checks of other people's tools. Each first finds a fault that is put there for it: a check
# that cannot fail proves nothing. What they are allowed to leave aside stands in deny.toml and scripts/schemathesis.toml.
. "$(dirname "$0")/common.sh"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# must_find WORD LOG COMMAND...: it fails, and says so of WORD.
must_find() {
    local word=$1 log=$2
    shift 2
    ! "$@" >"$log" 2>&1 || die "a seeded fault was not found ($word): $*"
    grep -qE "$word" "$log" || { cat "$log" >&2; die "a seeded fault was not found ($word): $*"; }
}

pgspot() { PYTHONPATH=$TOOLS/python python3 scripts/spot.py "$@"; }

# What scripts/spot.py teaches pgspot hides nothing: one fault behind each lesson, and two plain ones.
check_sql() {
    scripts/install-script.sh > "$scratch/install.sql"
    local seed
    while IFS='|' read -r code seed; do
        { printf 'CREATE SCHEMA s;\nCREATE TABLE s.t (a integer);\nCREATE TYPE s.e AS ENUM (%s);\n' "'x'"; printf '%b\n' "$seed"; } > "$scratch/seeded.sql"
        must_find "^$code" "$scratch/seeded.log" pgspot "$scratch/seeded.sql"
    done <<'SEEDS'
PS003|CREATE FUNCTION s.f() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$SELECT$$;
PS001|CREATE VIEW s.v AS SELECT 1 FROM s.t WHERE a = 1;
PS016|CREATE FUNCTION s.f() RETURNS integer LANGUAGE sql RETURN g(1);
PS003|CREATE FUNCTION s.f() RETURNS integer LANGUAGE sql SECURITY DEFINER RETURN 1;
PS001|CREATE FUNCTION s.f("position" integer) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM 1 + 1; END$$;
PS016|CREATE FUNCTION s.f(OUT e s.e) LANGUAGE plpgsql AS $$DECLARE\n v s.t; n integer; BEGIN v.a := g(1); SELECT 'x', 1 INTO e, n; END$$;
SEEDS
    local file clean=0
    for file in "$scratch/install.sql" sql/upgrade/*.sql; do
        [ -e "$file" ] || continue
        say "pgspot ${file##*/}"
        pgspot "$file" || clean=1
    done
    return "$clean"
}

deny() { PATH=$TOOLS/cargo-deny/bin:$PATH cargo-deny --locked --config "${CONFIG:-deny.toml}" check "$@"; }

check_crates() {
    sed -e 's/^unknown-registry.*/&\nallow-registry = []/' -e 's/^deny = \[/&\n{ name = "serde" },/' -e 's/^ *"MIT",//' deny.toml > "$scratch/deny.toml"
    CONFIG=$scratch/deny.toml must_find 'bans FAILED, licenses FAILED, sources FAILED' "$scratch/seeded.log" deny bans licenses sources
    deny bans licenses sources || return
    # Their database is a repository of its own; what cannot be asked is said, not guessed.
    local rc=0
    timeout 120 "$0" advisories >"$scratch/advisories.log" 2>&1 || rc=$?
    if [ "$rc" = 0 ]; then
        say "advisories: none"
    elif [ "$rc" = 124 ] || grep -q 'failed to fetch advisory database' "$scratch/advisories.log"; then
        say "skipped: advisories, their database cannot be reached from here"
    else
        cat "$scratch/advisories.log" >&2
        return 1
    fi
}

# Schemathesis against an API that runs: tests/src/bin/fuzz.rs starts all that it needs.
check_api() { SMS_OUTBOX_TOOLS=$TOOLS elapsed "Schemathesis" scripts/run.sh cargo run --quiet --locked -p sms-outbox-tests --bin fuzz; }

case $1 in
sql) check_sql ;;
crates) check_crates ;;
api) check_api ;;
advisories) deny advisories ;;
*) die "security.sh sql | crates | api: not $1" ;;
esac
