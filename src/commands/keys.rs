//! Single key presses from a terminal, while something is being redrawn.

use std::io::{self, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// At most this many key presses are buffered.
const KEPT: usize = 16;

/// A terminal with an alternate screen and unbuffered input. Dropping it restores the terminal.
pub(super) struct Keys {
    keys: mpsc::Receiver<u8>,
    before: Option<Termios>,
}

impl Keys {
    /// Takes over the terminal; Ctrl-C remains a signal.
    pub fn take() -> Keys {
        let before = io::stdin().is_terminal().then(|| tcgetattr(io::stdin()).ok()).flatten();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &raw);
        }
        let (sender, keys) = mpsc::channel(KEPT);
        if before.is_some() {
            // This thread ends with the process: reading from a terminal cannot be interrupted.
            std::thread::spawn(move || {
                let mut key = [0];
                while let Ok(1) = io::stdin().lock().read(&mut key) {
                    if sender.blocking_send(key[0]).is_err() {
                        return;
                    }
                }
            });
        }
        let _ = io::stdout().write_all(b"\x1b[?1049h\x1b[?25l");
        Keys { keys, before }
    }

    /// Waits for this key; forever if there is no terminal.
    pub async fn pressed(&mut self, wanted: u8) {
        loop {
            match self.keys.recv().await {
                Some(key) if key == wanted => return,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = io::stdout().write_all(b"\x1b[?25h\x1b[?1049l");
        let _ = io::stdout().flush();
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}
