# Reads from the test process which processes it started. When that process ends, however it ends, the pipe closes:
# then ends what is still there and removes the folder of the run ($1).
alive=
while read -r word pid signal; do
    case $word in
        started) alive="$alive $pid:$signal" ;;
        ended)
            rest=
            for entry in $alive; do [ "${entry%%:*}" = "$pid" ] || rest="$rest $entry"; done
            alive=$rest
            ;;
        keep) exit 0 ;;
    esac
done
for entry in $alive; do kill -s "${entry#*:}" "${entry%%:*}"; kill -s CONT "${entry%%:*}"; done 2>/dev/null
tries=0
for entry in $alive; do
    while kill -0 "${entry%%:*}" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || kill -s KILL "${entry%%:*}" 2>/dev/null
        sleep 0.1
    done
done
rm -rf "$1"
