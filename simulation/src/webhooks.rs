//! GitHub's webhooks in a run: they reach whichever daemon is alive, and are lost, delayed, duplicated and forged
//! on the way.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use githubrunner::hints::{Hints, webhook};
use githubrunner_sim::{
    carrier::{carry, request},
    github::{GitHub, HookPlace, Parcel, sign},
    world::{Shared, lock},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::task::JoinHandle;

use crate::{deployment::WEBHOOK_SECRET, findings::Findings};

/// The URL of the webhooks.
const URL: &str = "http://daemon.test/webhook";

/// The status for an invalid signature.
const UNAUTHORIZED: u16 = 401;

/// The live daemons, by their number.
#[derive(Clone, Default)]
pub struct Inboxes(Arc<Mutex<BTreeMap<usize, Hints>>>);

impl Inboxes {
    /// A daemon starts to listen.
    pub fn open(&self, number: usize, hints: Hints) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number, hints);
    }

    /// A daemon no longer listens.
    pub fn close(&self, number: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    /// The daemon that a delivery reaches, as behind a load balancer.
    fn of(&self, parcel: &Parcel) -> Option<Hints> {
        let inboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let nth = usize::try_from(parcel.delivery).unwrap_or(0) % inboxes.len().max(1);
        inboxes.values().nth(nth).cloned()
    }
}

/// Creates the webhooks of these organizations.
pub fn install(github: &mut GitHub, organizations: impl IntoIterator<Item = u64>) {
    for organization in organizations {
        github.make_hook(HookPlace::Organization(organization), URL, WEBHOOK_SECRET);
    }
}

/// Carries deliveries to the daemons. A forged delivery that is accepted is a finding.
pub fn deliver(shared: &Shared, inboxes: &Inboxes, findings: &Findings) -> JoinHandle<()> {
    let (world, inboxes, findings) = (Arc::clone(shared), inboxes.clone(), findings.clone());
    let post = move |parcel: Parcel| {
        let (world, inboxes, findings) = (Arc::clone(&world), inboxes.clone(), findings.clone());
        async move {
            let hints = inboxes.of(&parcel)?;
            let (head, _) = request(&parcel, webhook::PATH, "daemon.test")?.into_parts();
            let status = webhook::accept(&hints, &head.headers, parcel.body.as_bytes()).await.status();
            let is_real = parcel.signature == Some(sign(WEBHOOK_SECRET, parcel.body.as_bytes()));
            if is_real == (status == UNAUTHORIZED) {
                let now = lock(&world).clock.now();
                findings.add(now, format!("a webhook that is real: {is_real} is answered with {status}"));
            }
            Some(status)
        }
    };
    tokio::spawn(carry(Arc::clone(shared), post, std::future::pending()))
}

/// The faults of deliveries, determined by a seed.
pub struct DeliveryFaults(StdRng);

impl DeliveryFaults {
    /// Those of a run.
    pub fn new(seed: u64) -> DeliveryFaults {
        DeliveryFaults(StdRng::seed_from_u64(seed ^ 0x7765_6268_6f6f))
    }

    /// Each copy that arrives, and how much later.
    pub fn of(&mut self, parcel: Parcel) -> Vec<(Duration, Parcel)> {
        let rng = &mut self.0;
        let soon = Duration::from_millis(rng.random_range(50..=2_000));
        let late = Duration::from_secs(rng.random_range(3..=180));
        match rng.random_range(0..10) {
            0 => Vec::new(),
            1 => vec![(late, parcel)],
            2 => vec![(soon, parcel.clone()), (late, parcel)],
            3 => {
                let forged = Parcel { signature: Some(sign("guessed", parcel.body.as_bytes())), ..parcel };
                vec![(soon, forged)]
            }
            4 => {
                // A valid signature of another body.
                let body = parcel.body.replacen("queued", "in_progress", 1) + " ";
                vec![(soon, Parcel { body, ..parcel.clone() }), (soon, parcel)]
            }
            _ => vec![(soon, parcel)],
        }
    }
}
