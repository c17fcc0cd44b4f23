#!/usr/bin/env bash
# Follow a conversation with nothing but curl, and lose no change when the connection breaks.
#
#     TOKEN=$(greffier token --user ada) examples/follow.sh CONVERSATION_ID [http://127.0.0.1:8080]
#
# Prints the data of each change on a line. The id of the last event that was seen is sent back with
# each new connection, so that it resumes exactly there. Ends when there is nothing to follow.
set -euo pipefail

conversation=$1
server=${2:-http://127.0.0.1:8080}
last=""

while true; do
    resume=()
    if [ -n "$last" ]; then resume=(-H "Last-Event-ID: $last"); fi
    ended=""
    while IFS= read -r line; do
        case $line in
        "id: "*) last=${line#id: } ;;
        "data: "*) printf '%s\n' "${line#data: }" ;;
        # curl's last word: the status of the answer.
        "status "*) ended=${line#status } ;;
        esac
    done < <(
        curl -sS -N -w '\nstatus %{http_code}\n' ${resume[@]+"${resume[@]}"} -H "Authorization: Bearer $TOKEN" \
            "$server/v1/conversations/$conversation/events" || true
    )
    case $ended in
    4*) echo "The server says $ended." >&2 && exit 1 ;;
    esac
    sleep 1
done
