//! The simulated Nomad behind an in-memory endpoint, and the processes of its tasks.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use githubrunner::http::Endpoint;
use githubrunner_sim::{
    clock::Clock,
    nomad::{Exit, Nomad, TaskEvent},
};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{sync::Notify, task::JoinHandle, time::Instant};

/// A running cluster. Ends when it is dropped.
pub struct SimNomad {
    /// Its endpoint.
    pub endpoint: Endpoint,
    driver: JoinHandle<()>,
}

struct Inside {
    nomad: Nomad,
    clock: Clock,
    /// When processes end by themselves, by allocation.
    ends: BTreeMap<String, (Instant, Exit)>,
}

impl SimNomad {
    /// Serves a cluster. Time is tokio's: if paused, it is virtual.
    pub fn serve(nomad: Nomad, clock: Clock) -> SimNomad {
        let inside = Arc::new(Mutex::new(Inside { nomad, clock, ends: BTreeMap::new() }));
        let changed = Arc::new(Notify::new());
        let driver = tokio::spawn(drive(inside.clone(), changed.clone()));
        let connect = move || {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let (inside, changed) = (inside.clone(), changed.clone());
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let (inside, changed) = (inside.clone(), changed.clone());
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                    let response = inside.lock().unwrap().answer(hyper::Request::from_parts(head, body));
                    changed.notify_one();
                    Ok::<_, Infallible>(response.map(Full::new))
                }
            });
            tokio::spawn(async move {
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(theirs), service)
                    .await
                    .ok();
            });
            Ok(ours)
        };
        let endpoint = Endpoint::Memory { name: "nomad.sim".into(), connect: Arc::new(connect) };
        SimNomad { endpoint, driver }
    }
}

impl Drop for SimNomad {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Advances time: sleeps until something is due, or a request changed what is.
async fn drive(inside: Arc<Mutex<Inside>>, changed: Arc<Notify>) {
    loop {
        let next = inside.lock().unwrap().advance();
        tokio::select! {
            biased;
            () = changed.notified() => {}
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

impl Inside {
    fn answer(&mut self, request: hyper::Request<Bytes>) -> hyper::Response<Bytes> {
        let now = self.clock.now();
        let mut response = self.nomad.handle(&request, now);
        response
            .headers_mut()
            .entry(hyper::header::DATE)
            .or_insert_with(|| now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string().parse().unwrap());
        response
    }

    /// Does everything that is due. Returns when the next is.
    fn advance(&mut self) -> Instant {
        let now = self.clock.now();
        self.nomad.advance(now);
        self.take_events();
        let due: Vec<String> = self
            .ends
            .iter()
            .filter(|(_, (at, _))| *at <= Instant::now())
            .map(|(allocation, _)| allocation.clone())
            .collect();
        for allocation in due {
            if let Some((_, exit)) = self.ends.remove(&allocation) {
                self.nomad.exit_task(&allocation, exit, now);
            }
        }
        self.take_events();
        let far = Instant::now() + Duration::from_secs(3600);
        let event = self.nomad.next_event().map(|time| self.clock.instant(time));
        let end = self.ends.values().map(|(at, _)| *at).min();
        event.into_iter().chain(end).min().unwrap_or(far)
    }

    /// Processes behave according to their environment (see `place.rs`); all of them ignore interrupts.
    fn take_events(&mut self) {
        for event in self.nomad.take_events() {
            match event {
                TaskEvent::Started { allocation, env, .. } => {
                    let text = |name: &str| env.get(name).map(String::as_str).unwrap_or_default();
                    let (exit, seconds) = if text("JIT") == text("RUN_WANTS") || text("RUN_WANTS").is_empty()
                    {
                        (text("RUN_EXIT").parse().unwrap(), text("RUN_SECONDS").parse().unwrap())
                    } else {
                        (9, 0)
                    };
                    let at = Instant::now() + Duration::from_secs(seconds);
                    self.ends.insert(allocation, (at, Exit::code(exit)));
                }
                TaskEvent::Ended { allocation, .. } => {
                    self.ends.remove(&allocation);
                }
                TaskEvent::KillRequested { .. } => {}
            }
        }
    }
}
