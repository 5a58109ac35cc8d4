# Runs the official runner's listener. Like run.sh, it restarts the listener after exit codes 2 (temporary error), 3 and 4 (self-update)
# and 6 (refreshed configuration). The task exits with any other code, and with the code of the 20th start.
# A signal is passed to the listener, which is then not restarted.
code=0 pid= stopped=
trap 'stopped=1 interrupted=1; kill -INT $pid 2>/dev/null' INT
trap 'stopped=1 interrupted=1; kill -TERM $pid 2>/dev/null' TERM
pause() {
  local left=$1
  while [ "$left" -gt 0 ] && [ -z "$stopped" ]; do
    if [ -n "$2" ] && [ -e "$2" ]; then rm -f "$2"; return; fi
    sleep 1
    left=$((left - 1))
  done
}
for start in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  if [ -n "$stopped" ]; then break; fi
  # A shell lets its background processes ignore SIGINT.
  (trap - INT TERM; exec ./bin/Runner.Listener run) &
  pid=$!
  # The signal came before the process existed.
  if [ -n "$stopped" ]; then kill -INT "$pid"; fi
  interrupted=1
  while [ -n "$interrupted" ]; do
    interrupted=
    wait "$pid"
    code=$?
  done
  pid=
  if [ "$start" -eq 20 ]; then break; fi
  case $code in
    2) echo "The listener ended with exit code 2, a temporary error: restarting it in 5 s."; pause 5 ;;
    3 | 4) echo "The listener ended with exit code $code to update itself: restarting it."; pause 30 update.finished ;;
    6) echo "The listener ended with exit code 6 because its configuration was refreshed: restarting it."; pause 1 ;;
    *) break ;;
  esac
done
exit "$code"
