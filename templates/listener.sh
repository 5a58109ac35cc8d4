# Runs the official runner's listener and, as run.sh does, starts it again where its exit code asks for that: 2 an error
# that may pass, 3 and 4 an update of itself, 6 a refreshed configuration. Any other code is the task's, and so
# is the one of its 20th start.
# A signal goes to the listener, and then nothing is started again.
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
  # The signal came before there was a process to have it.
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
    2) echo "The listener ended with exit code 2, an error that may pass: it is started again in 5 s."; pause 5 ;;
    3 | 4) echo "The listener ended with exit code $code to be updated: it is started again."; pause 30 update.finished ;;
    6) echo "The listener ended with exit code 6, its configuration refreshed: it is started again."; pause 1 ;;
    *) break ;;
  esac
done
exit "$code"
