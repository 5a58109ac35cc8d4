//! How `RUN.LISTENER` handles the listener's exit codes and signals, with a real bash.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use super::listener;

/// A directory with a listener that runs `body` at each start, with the number of the start in `$n`. Each second of a
/// pause is a line in the file `slept`, and takes no time.
struct Runner(TempDir);

impl Runner {
    fn new(body: &str) -> Runner {
        let directory = tempfile::tempdir().unwrap();
        let counts = "#!/bin/sh\necho start >> starts\nn=$(wc -l < starts)\n";
        let scripts = [
            ("bin/Runner.Listener", format!("{counts}{body}\n")),
            ("path/sleep", "#!/bin/sh\necho \"$1\" >> slept\n[ ! -e at_sleep ] || . ./at_sleep\n".to_owned()),
        ];
        for (name, text) in scripts {
            let file = directory.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Runner(directory)
    }

    fn bash(&self) -> Command {
        let mut command = Command::new("bash");
        let path = format!("{}:/usr/bin:/bin", self.0.path().join("path").display());
        command.args(["-c", &listener()]).env("PATH", path).current_dir(self.0.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn lines(&self, file: &str) -> usize {
        fs::read_to_string(self.0.path().join(file)).unwrap_or_default().lines().count()
    }

    /// The exit code, the number of starts, and the seconds of pauses.
    fn run(&self) -> (Option<i32>, usize, usize) {
        let output = self.bash().output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        (output.status.code(), self.lines("starts"), self.lines("slept"))
    }
}

#[test]
fn the_listener_is_restarted_if_its_exit_code_requests_it() {
    let cases = [
        ("exit 0", (0, 1, 0)),
        ("exit 1", (1, 1, 0)),
        ("exit 5", (5, 1, 0)),
        ("exit 7", (7, 1, 0)),
        ("exit 137", (137, 1, 0)),
        ("[ $n = 1 ] && exit 2; exit 0", (0, 2, 5)),
        ("[ $n = 1 ] && exit 6; exit 0", (0, 2, 1)),
        // Waits for the end of the update, at most 30 s.
        ("[ $n = 1 ] && exit 3; exit 0", (0, 2, 30)),
        ("[ $n = 1 ] && { touch update.finished; exit 3; }; exit 0", (0, 2, 0)),
        (
            "[ $n -lt 3 ] && { touch update.finished; exit 4; }; [ -e update.finished ] && exit 9; exit 1",
            (1, 3, 0),
        ),
        ("[ $n = 1 ] && { touch update.finished; exit 3; }; exit 7", (7, 2, 0)),
    ];
    for (listener, (code, starts, slept)) in cases {
        assert_eq!(Runner::new(listener).run(), (Some(code), starts, slept), "{listener}");
    }
}

#[test]
fn a_listener_that_never_works_ends_with_its_last_exit_code() {
    assert_eq!(Runner::new("touch update.finished; exit $((3 + n / 20))").run(), (Some(4), 20, 0));
}

#[test]
fn an_update_that_ends_during_the_wait_ends_the_wait() {
    let runner = Runner::new("[ $n = 1 ] && exit 3; exit 0");
    fs::write(runner.0.path().join("at_sleep"), "[ $(wc -l < slept) -lt 4 ] || touch update.finished\n")
        .unwrap();
    assert_eq!(runner.run(), (Some(0), 2, 4));
}

#[test]
fn a_signal_reaches_the_listener_and_the_shell_waits_for_its_end() {
    for signal in ["INT", "TERM"] {
        // It distinguishes the shell's signal from one that the shell translated, and continues for a while
        // afterwards.
        let body = format!(
            "trap 'kill -0 $PPID && echo {signal} > got; exit 100' {signal}\nkill -{signal} $PPID\n\
             while :; do /bin/sleep 0.01; done"
        );
        let runner = Runner::new(&body);
        let code = runner.bash().output().unwrap().status.code();
        assert_eq!((code, runner.lines("starts")), (Some(100), 1), "{signal}");
        assert_eq!(fs::read_to_string(runner.0.path().join("got")).unwrap().trim(), signal);
    }
}

#[test]
fn after_a_signal_nothing_is_restarted() {
    // While the listener is running and requests another start.
    let runner = Runner::new("trap 'exit 3' INT\nkill -INT $PPID\nwhile :; do /bin/sleep 0.01; done");
    assert_eq!(runner.run(), (Some(3), 1, 0));
    // While nothing is running.
    let runner = Runner::new("exit 2");
    fs::write(runner.0.path().join("at_sleep"), "kill -INT $PPID\n").unwrap();
    assert_eq!(runner.run(), (Some(2), 1, 1));
}

#[test]
fn the_task_log_gives_the_reason_for_a_restart() {
    let Output { stdout, .. } =
        Runner::new("[ $n = 1 ] && { touch update.finished; exit 3; }; exit 0").bash().output().unwrap();
    let said = String::from_utf8(stdout).unwrap();
    assert_eq!(said, "The listener ended with exit code 3 to update itself: restarting it.\n");
}
