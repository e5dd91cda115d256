# Runs one server for a Rust process and cleans up after both.
#
# usage: sh -c SCRIPT sh PARENT_DIRECTORY STOP_SIGNAL COMMAND...
#
# Standard input is a pipe that only the Rust process can write to. Each line asks for a start of the
# command; end of file means that the process is done or dead. Replies are lines on standard output.
exec 2>&1
stop=$2
dir=$(mktemp -d "$1/passerby.XXXXXX") && cd "$dir" && mkfifo -m 600 alive || exit 1
shift 2
trap '' HUP INT TERM PIPE
echo "dir $dir"

pid=
while read -r _; do
    [ -z "$pid" ] || wait "$pid"
    # The server and its children inherit the writing end, so the read ends with the last of them.
    # Both ends are opened here: a child killed before it opens its own would leave the other waiting.
    exec 8<>alive 7<alive 9>alive 8>&-
    { read -r _; echo exited; } <&7 7<&- 9>&- &
    watch=$!
    "$@" </dev/null >>log 2>&1 7<&- &
    pid=$!
    exec 7<&- 9>&-
    echo "started $pid"
done

if [ -n "$pid" ]; then
    kill -s "$stop" "$pid"
    { trap - TERM; sleep 3; kill -s KILL "$pid"; } >/dev/null 2>&1 &
    wait "$pid"
    wait "$watch"
fi
cd /
rm -rf "$dir" || { sleep 3; rm -rf "$dir"; }
# Ends the sleep above; this shell ignores TERM and everything else in its group is gone.
kill -s TERM 0
