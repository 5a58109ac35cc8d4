//! Rendering within real limits. Fuel limits a template's steps, but a single step can join lists of a billion
//! items.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use minijinja::{Environment, Error, ErrorKind, Value};

use super::RENDERED_MAX;

/// A rendering takes a few milliseconds. It is aborted after this time.
const WITHIN: Duration = Duration::from_secs(2);

/// At most this many threads are abandoned, then nothing is rendered until one of them has ended: a thread cannot be
/// stopped from outside.
const GIVEN_UP_AT_MOST: usize = 2;

/// A rendering's stack, in bytes: twice what the recursion limit needs in a build without optimization.
const STACK: usize = 16 * 1024 * 1024;

/// Renders templates in a separate thread.
pub(super) struct Bounded {
    environment: Arc<Environment<'static>>,
    worker: Mutex<Option<Worker>>,
    given_up: Arc<AtomicUsize>,
}

/// A thread that renders on request until all senders are gone.
struct Worker {
    ask: Sender<(String, Value)>,
    rendered: Receiver<Result<String, Error>>,
}

impl Bounded {
    pub fn new(environment: Environment<'static>) -> Self {
        Bounded { environment: Arc::new(environment), worker: Mutex::default(), given_up: Arc::default() }
    }

    /// The rendered text of a template, at most [`RENDERED_MAX`] bytes.
    ///
    /// # Errors
    /// The template's own; or it takes too long, or its text is too long.
    pub fn render(&self, name: &str, variables: Value) -> Result<String, Error> {
        let failed = |detail: String| Error::new(ErrorKind::InvalidOperation, detail);
        let mut place = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        let worker = match place.take() {
            Some(worker) => worker,
            None if self.given_up.load(Ordering::Acquire) >= GIVEN_UP_AT_MOST => {
                return Err(failed("earlier renderings took too long and are still running".to_owned()));
            }
            None => self
                .worker()
                .map_err(|error| failed(format!("cannot start a thread to render on: {error}")))?,
        };
        // If the thread has ended, there will be no answer either.
        let _ = worker.ask.send((name.to_owned(), variables));
        match worker.rendered.recv_timeout(WITHIN) {
            Ok(result) => {
                *place = Some(worker);
                result
            }
            Err(RecvTimeoutError::Timeout) => {
                self.given_up.fetch_add(1, Ordering::AcqRel);
                Err(failed(format!("it takes longer than {} s", WITHIN.as_secs())))
            }
            Err(RecvTimeoutError::Disconnected) => Err(failed("the rendering ended unexpectedly".to_owned())),
        }
    }

    fn worker(&self) -> io::Result<Worker> {
        let (environment, given_up) = (Arc::clone(&self.environment), Arc::clone(&self.given_up));
        let ((ask, asked), (answer, rendered)) = (channel::<(String, Value)>(), channel());
        thread::Builder::new().name("render".to_owned()).stack_size(STACK).spawn(move || {
            for (name, variables) in asked {
                if answer.send(render(&environment, &name, variables)).is_err() {
                    // It had been abandoned.
                    given_up.fetch_sub(1, Ordering::AcqRel);
                }
            }
        })?;
        Ok(Worker { ask, rendered })
    }
}

/// A writer with the size limit of a job.
struct Output(Vec<u8>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > RENDERED_MAX {
            return Err(io::Error::other(format!("the job is longer than {RENDERED_MAX} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn render(environment: &Environment, name: &str, variables: Value) -> Result<String, Error> {
    let mut output = Output(Vec::new());
    environment.get_template(name)?.render_captured_to(variables, &mut output)?;
    String::from_utf8(output.0).map_err(|_| Error::new(ErrorKind::InvalidOperation, "the job is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use minijinja::context;

    use super::*;

    #[test]
    fn a_rendering_that_takes_too_long_is_aborted_and_others_continue() {
        let (release, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let mut environment = Environment::new();
        environment.add_function("wait", move || {
            // Until the test is over.
            let _ = wait.lock().unwrap().recv();
            String::new()
        });
        environment.add_template("stuck", "{{ wait() }}").unwrap();
        environment.add_template("quick", "{{ 1 + 1 }}").unwrap();
        let templates = Bounded::new(environment);
        for _ in 0..GIVEN_UP_AT_MOST {
            let error = templates.render("stuck", context! {}).unwrap_err();
            assert!(error.to_string().contains("longer than 2 s"), "{error}");
            if templates.given_up.load(Ordering::Acquire) < GIVEN_UP_AT_MOST {
                assert_eq!(templates.render("quick", context! {}).unwrap(), "2");
                // The next rendering gets a new thread.
                assert!(templates.worker.lock().unwrap().is_some());
            }
        }
        let error = templates.render("quick", context! {}).unwrap_err();
        assert!(error.to_string().contains("still run"), "{error}");
        drop(release);
        while templates.given_up.load(Ordering::Acquire) > 0 {
            thread::yield_now();
        }
        assert_eq!(templates.render("quick", context! {}).unwrap(), "2");
    }
}
