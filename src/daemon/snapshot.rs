//! What the status receives: passes, and the exchanges of both adapters.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::Pass;
use crate::{
    config::Config,
    github::{self, GitHub},
    http::{Exchanged, Method, Observer},
    nomad::{self, Nomad},
    status::{Access, Deed, Exchange, Rate, Seen, Status},
};

/// Applies this configuration to the status.
pub(super) fn configure(status: &Status, config: &Config) {
    let settings = &config.status;
    status.per_repository(settings.per_repository);
    status.classes(config.classes.iter().map(|class| class.name.as_str()));
    let is_local = settings.listen.is_some_and(|listen| listen.ip().is_loopback());
    status.open_to(match &settings.token {
        Some(token) => Access::Token(token.clone()),
        None if settings.public => Access::Public,
        None if is_local => Access::Local,
        None => Access::Closed,
    });
}

/// Reports a pass that has ended.
pub(super) fn tell(status: &Status, pass: &Pass, github: &GitHub, took: Duration) {
    let deeds = pass.done().map(Deed::new);
    let mut rates: BTreeMap<(&str, String), Rate> = BTreeMap::new();
    let told = github.rates();
    for ((who, bucket), rate) in &told {
        let credential = credential(who);
        let rate = Rate {
            credential: credential.to_owned(),
            bucket: bucket.clone(),
            limit: rate.limit,
            remaining: rate.remaining,
            reset: rate.reset,
        };
        // After a token rotation there are two for a while: the later response counts.
        let known = rates.entry((credential, bucket.clone())).or_insert_with(|| rate.clone());
        if known.reset < rate.reset {
            *known = rate;
        }
    }
    status.pass(&Seen {
        at: Timestamp::now(),
        observation: &pass.observation,
        plan: &pass.plan,
        deeds: &deeds.collect::<Vec<_>>(),
        errors: &pass.errors,
        rates: &rates.into_values().collect::<Vec<_>>(),
        took,
        leads: pass.led,
    });
}

/// The name of a credential: `token`, `app`, or an installation's ID. A token's hash is not shown.
fn credential(who: &str) -> &str {
    ["token", "app"].into_iter().find(|name| who.starts_with(&format!("{name}-"))).unwrap_or(who)
}

/// Makes both adapters report each exchange to the status.
pub(super) fn watch(status: &Status, github: &GitHub, nomad: &Nomad) {
    github.observed_by(Arc::new(Watch { status: status.clone(), host: Host::GitHub }));
    nomad.observed_by(Arc::new(Watch { status: status.clone(), host: Host::Nomad }));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    GitHub,
    Nomad,
}

#[derive(Debug)]
struct Watch {
    status: Status,
    host: Host,
}

impl Observer for Watch {
    fn exchanged(&self, exchange: Exchanged<'_>) {
        let reads = *exchange.method == Method::GET;
        let (host, route, points) = match self.host {
            // Points as GitHub counts them (contract github.md §4).
            Host::GitHub => ("github", github::route(exchange.path), if reads { 1 } else { 5 }),
            Host::Nomad => ("nomad", nomad::route(exchange.path), 0),
        };
        let code = exchange.status.map(|status| status.as_u16());
        self.status.exchange(Exchange { host, route, code, took: exchange.took, points });
    }
}
