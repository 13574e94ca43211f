#!/usr/bin/env bash
# The rules of ARCHITECTURE.md that no compiler checks. Each breach is printed with the rule and its place.
. "$(dirname "$0")/common.sh"

breaches=0

breach() { printf '%s\n' "$1" | sed "s|^|$2: |" >&2; breaches=$((breaches + 1)); }

# code FILE...: FILE:LINE:TEXT of what is neither comment nor unit test, which stands at the end of a file.
code() {
    awk 'FNR == 1 { test = 0 } /^#\[cfg\(test\)\]/ { test = 1 } !test && !/^ *\/\// { print FILENAME ":" FNR ":" $0 }' "$@" /dev/null
}

# forbid RULE PATTERN FILE...
forbid() {
    local rule=$1 pattern=$2 found
    shift 2
    found=$(code "$@" | grep -E "^[^:]*:[0-9]*:.*($pattern)") || return 0
    breach "$found" "$rule"
}

# files NAME...: those of the repository that are named so.
files() {
    local name names=()
    for name in "$@"; do names+=(-o -name "$name"); done
    find . \( -name target -o -name .git -o -name node_modules \) -prune -o -type f \( "${names[@]:1}" \) -printf '%P\n'
}

# sources FOLDER [EXCEPT]: the Rust files below it, tests of their own aside.
sources() { files '*.rs' | grep "^$1/" | grep -vE "/tests\.rs$|${2:-^$}" || true; }

mapfile -t worker < <(sources worker/src '^worker/src/outbox/postgres')
mapfile -t extension < <(sources extension/src '^extension/src/statement\.rs$')
mapfile -t provider < <(sources worker/src/provider)
mapfile -t pure < <(sources worker/src/scheduler; sources worker/src/outbox/memory)

# SQL in the words of a hint is for people; a statement begins its literal, or goes to a client.
forbid 'SQL text belongs into sql/ and worker/src/outbox/postgres/' \
    '"(SELECT|WITH|INSERT|UPDATE|DELETE|LISTEN|NOTIFY|CALL|BEGIN|SET) |\.(batch_execute|simple_query|query_one|query_opt|prepare)\(' "${worker[@]}"
forbid 'the extension runs only the statements of sql/statements' '\bSPI_(prepare|exec)|\bSpi::(run|get_)' "${extension[@]}"
forbid 'the worker does not know pgrx' '\bpgrx\b' "${worker[@]}" worker/Cargo.toml
forbid 'the extension knows neither tokio, HTTP nor the worker' \
    '\b(tokio|reqwest|hyper|axum|sms_outbox_worker)\b' "${extension[@]}" extension/Cargo.toml
forbid 'a provider does not know the queue, the dispatcher or the command' \
    '\b(crate|super::super)::(outbox|dispatcher|delivery|scheduler|api|cli)\b' "${provider[@]}"
forbid 'the scheduler and the rules of a life are pure: time and randomness are passed in' \
    '\b(Instant|SystemTime|Timestamp|Zoned)::now\b|\bnew_v4\(|\bnow_v7\(|\brand::|\bgetrandom\b|\btokio::(time|spawn|net|fs)|\bstd::(fs|net|env|thread)\b|\.elapsed\(' "${pure[@]}"

long=$(files '*.rs' '*.sql' '*.sh' '*.py' | grep -vE '(^|/)(snapshots?|install)[./]' \
    | while read -r file; do awk -v f="$file" 'END { if (NR > 500) print f ":" NR }' "$file"; done)
[ -z "$long" ] || breach "$long" 'a file has at most 500 lines'

dead=$(files '*.md' | while read -r page; do
    # shellcheck disable=SC2016 # no expansion is meant
    # Outside code, [text](target): a target without a scheme is a file of this repository.
    { sed '/^```/,/^```/d; s/`[^`]*`//g' "$page" | grep -oE '\]\([^)#: ]+[)#]' || true; } | sed 's/^](//; s/[)#]$//' \
        | while read -r target; do [ -e "$(dirname "$page")/$target" ] || printf '%s: %s\n' "$page" "$target"; done
done)
[ -z "$dead" ] || breach "$dead" 'a link leads to a file that exists'

[ "$breaches" = 0 ]
