//! `status`: the running daemon's state, from its status port.

mod print;
#[cfg(test)]
mod tests;
mod view;

use std::{collections::BTreeMap, io::Write, net::SocketAddr, time::Duration};

use anyhow::{Context, anyhow, bail};
use view::View;

use super::{Exit, Style};
use crate::{
    config::StatusConfig,
    http::{Client, Endpoint, Options, Proxy, Request, Response, StatusCode},
    secret::Secret,
    text::harmless_json,
};

/// The path of the state.
const PATH: &str = "/api/v1/state";

/// The daemon answers from memory, and someone is waiting at a terminal.
const DEADLINE: Duration = Duration::from_secs(10);

/// The deadline if the state only adds notes to something else.
const BESIDE: Duration = Duration::from_secs(2);

/// The largest response body. The daemon truncates its lists to about 1,100 rows with a few short texts each.
const MAX_BODY: usize = 8 << 20;

/// The daemon's address and token.
#[derive(Debug)]
pub struct Daemon {
    client: Client,
    token: Option<Secret>,
    /// The address without user and password.
    shown: String,
    /// Whether failing to reach it is acceptable, because its address was not given explicitly.
    optional: bool,
}

impl Daemon {
    /// The daemon at `address`, or else at the configuration's address.
    ///
    /// # Errors
    /// The address is missing or invalid.
    pub fn new(address: Option<&str>, config: &StatusConfig) -> anyhow::Result<Daemon> {
        let endpoint = match address {
            Some(address) => Endpoint::parse(&with_scheme(address)).context("--address")?,
            None => Endpoint::parse(&configured(config)?)?,
        };
        if config.token.is_some() && endpoint.is_exposed() {
            tracing::warn!(
                "status.token is sent over plain http to another machine, where others can read it; use https"
            );
        }
        let shown = endpoint.shown();
        let options = Options {
            deadline: DEADLINE,
            max_body: MAX_BODY,
            proxy: Proxy::Environment,
            ..Options::default()
        };
        let client = Client::new(endpoint, options).context("--address")?;
        Ok(Daemon { client, token: config.token.clone(), shown, optional: false })
    }

    /// The daemon that may be running on this machine with this configuration. It may also run elsewhere, so failing to
    /// reach it is not an error.
    pub fn beside(config: &StatusConfig) -> Option<Daemon> {
        let daemon = configured(config).ok().and_then(|address| Daemon::new(Some(&address), config).ok())?;
        Some(Daemon { optional: true, ..daemon })
    }

    /// Why runners are held, by their IDs.
    ///
    /// # Errors
    /// Its address was given, and it cannot be asked.
    pub async fn holds_of_runners(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let asked = async { self.read(&self.ask().await?) };
        let view = match self.optional {
            false => asked.await.context("asking the daemon for its status")?,
            true => match tokio::time::timeout(BESIDE, asked).await {
                Ok(Ok(view)) => view,
                Ok(Err(error)) => {
                    tracing::debug!("no notes from the daemon: {error:#}");
                    return Ok(BTreeMap::new());
                }
                Err(_) => return Ok(BTreeMap::new()),
            },
        };
        let of_runners = view.holds.items.into_iter().filter(|hold| hold.about == "runner");
        Ok(of_runners.map(|hold| (hold.subject, hold.reason.text)).collect())
    }

    /// Prints the daemon's state. 0: it reaches Nomad and GitHub; 1: it does not.
    ///
    /// # Errors
    /// The daemon cannot be asked, or `out` cannot be written.
    pub async fn show(&self, json: bool, style: Style, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let answer = self.ask().await.context("asking the daemon for its status")?;
        let view = self.read(&answer)?;
        if json {
            let value: serde_json::Value = answer.json()?;
            writeln!(out, "{}", harmless_json(&serde_json::to_string_pretty(&value)?))?;
        } else {
            print::table(&view, &self.shown, style, out)?;
        }
        Ok(Exit::from(view.is_well()))
    }

    async fn ask(&self) -> anyhow::Result<Response> {
        let mut request = Request::get(PATH);
        if let Some(token) = &self.token {
            request = request.bearer(token);
        }
        let answer = match self.client.send(request).await {
            Ok(answer) => answer,
            Err(error @ crate::http::Error::Connect { .. }) => {
                bail!("{error}. Does `githubrunner run` run there, with this status.listen?")
            }
            Err(error) => return Err(error.into()),
        };
        let what = &answer.exchange;
        match answer.status {
            StatusCode::UNAUTHORIZED if self.token.is_some() => {
                bail!("{what}: status 401: the daemon's status.token differs from the one that was sent")
            }
            StatusCode::UNAUTHORIZED => bail!(
                "{what}: status 401: it requires status.token: pass the configuration that has it with -c, or set \
                 GITHUBRUNNER_STATUS_TOKEN"
            ),
            StatusCode::FORBIDDEN => Err(answer.error().into()),
            status if !status.is_success() => Err(self.something_else(format!("status {}", status.as_u16()))),
            _ => Ok(answer),
        }
    }

    fn read(&self, answer: &Response) -> anyhow::Result<View> {
        answer.json().map_err(|error| {
            tracing::debug!("{error}");
            let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&answer.body).is_ok();
            let detail =
                if is_json { "the JSON is not a daemon's state" } else { "the response is not JSON" };
            self.something_else(detail.to_owned())
        })
    }

    fn something_else(&self, detail: String) -> anyhow::Error {
        anyhow!(
            "{} does not serve githubrunner's status: {detail}; check the address. The log of `githubrunner run` \
             shows it after `status on`",
            self.shown
        )
    }
}

/// An address as people write it, completed to a URL.
fn with_scheme(address: &str) -> String {
    if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
}

/// Where a daemon with this configuration serves its status, as seen from the same machine.
fn configured(config: &StatusConfig) -> anyhow::Result<String> {
    let listen = config.listen.ok_or_else(|| {
        anyhow!(
            "the configuration has no status.listen, so its daemon serves no status: set it and restart the daemon, or \
             pass --address HOST:PORT"
        )
    })?;
    if listen.port() == 0 {
        bail!(
            "status.listen has port 0, so the system chose the port: pass --address HOST:PORT; the log of `githubrunner run` \
             shows it after `status on`"
        );
    }
    let ip = match listen {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        other => other.ip(),
    };
    Ok(format!("http://{}", SocketAddr::new(ip, listen.port())))
}
