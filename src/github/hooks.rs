//! Webhooks: their settings and their delivery log (contract §5, §8).

use std::fmt;

use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    api::{GitHub, Repeat},
    auth::{Principal, Which},
    error::Error,
    listed::Listed,
    pages::Caching,
    wire::Page,
};
use crate::{
    http::escape_segment,
    model::{RepoEntry, RepositoryId, Timestamp},
    secret::Secret,
};

/// The only event that our webhooks subscribe to.
pub const HOOK_EVENT: &str = "workflow_job";

/// The owner of webhooks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookPlace {
    /// An App's own webhook, of which there is only one.
    App(Which),
    /// An organization's.
    Organization(String),
    /// A repository's.
    Repository { owner: String, name: String },
}

impl fmt::Display for HookPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(_) => f.write_str("the App"),
            Self::Organization(login) => f.write_str(login),
            Self::Repository { owner, name } => write!(f, "{owner}/{name}"),
        }
    }
}

impl HookPlace {
    /// Whose webhook delivers for an entry of `repos`; `*` has none.
    pub fn of(entry: &RepoEntry) -> Option<Self> {
        match entry {
            RepoEntry::Owner(login) => Some(Self::Organization(login.clone())),
            RepoEntry::Repository { owner, name } => {
                Some(Self::Repository { owner: owner.clone(), name: name.clone() })
            }
            RepoEntry::All => None,
        }
    }

    /// The owner whose repositories it covers, if there is only one.
    pub fn owner(&self) -> Option<&str> {
        match self {
            Self::App(_) => None,
            Self::Organization(owner) | Self::Repository { owner, .. } => Some(owner),
        }
    }

    fn principal(&self) -> Principal {
        match self {
            Self::App(app) => Principal::App(*app),
            Self::Organization(owner) | Self::Repository { owner, .. } => Principal::Owner(owner.clone()),
        }
    }

    /// The path of its webhooks.
    fn path(&self) -> String {
        match self {
            Self::App(_) => "/app/hook".to_owned(),
            Self::Organization(login) => format!("/orgs/{}/hooks", escape_segment(login)),
            Self::Repository { owner, name } => {
                format!("/repos/{}/{}/hooks", escape_segment(owner), escape_segment(name))
            }
        }
    }
}

/// A webhook's settings. Its secret is never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub id: u64,
    /// Whether it delivers.
    #[serde(default)]
    pub active: bool,
    /// Which events it delivers.
    #[serde(default)]
    pub events: Vec<String>,
    #[serde(default)]
    pub config: HookConfig,
}

/// Where and how a webhook delivers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookConfig {
    /// The target URL.
    #[serde(default)]
    pub url: Option<String>,
    /// `json` or `form`.
    #[serde(default)]
    pub content_type: Option<String>,
    /// `********` if there is one.
    #[serde(default)]
    pub secret: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct HooksPage(Vec<Hook>);

impl Page for HooksPage {
    type Item = Hook;
    fn items(&self) -> impl Iterator<Item = (u64, Hook)> {
        self.0.iter().map(|hook| (hook.id, hook.clone()))
    }
    fn total(&self) -> Option<u64> {
        None
    }
}

/// A delivery in a webhook's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookDelivery {
    /// Its ID in the log. A redelivery has another one.
    pub id: u64,
    /// The same for each redelivery.
    #[serde(default)]
    pub guid: String,
    /// When it was delivered.
    #[serde(default)]
    pub delivered_at: Option<Timestamp>,
    /// Its result for display: `OK`, `Invalid HTTP Response: 401`.
    #[serde(default)]
    pub status: String,
    /// The HTTP status of our response; 0 if there was none.
    #[serde(default)]
    pub status_code: u16,
    /// The event.
    #[serde(default)]
    pub event: String,
    /// The event's action.
    #[serde(default)]
    pub action: Option<String>,
    /// The repository that it is about.
    #[serde(default)]
    pub repository_id: Option<u64>,
}

impl HookDelivery {
    /// The repository, if a job in it was queued, started or completed.
    pub fn job_of(&self) -> Option<RepositoryId> {
        let moved = matches!(self.action.as_deref(), Some("queued" | "in_progress" | "completed"));
        self.repository_id.filter(|_| moved && self.event == HOOK_EVENT).map(RepositoryId)
    }

    /// Whether it was delivered successfully.
    pub fn arrived(&self) -> bool {
        (200..300).contains(&self.status_code)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct DeliveriesPage(Vec<HookDelivery>);

impl Page for DeliveriesPage {
    type Item = HookDelivery;
    fn items(&self) -> impl Iterator<Item = (u64, HookDelivery)> {
        self.0.iter().map(|delivery| (delivery.id, delivery.clone()))
    }
    fn total(&self) -> Option<u64> {
        None
    }
}

impl GitHub {
    /// The webhook of each App.
    pub fn app_hooks(&self) -> Vec<HookPlace> {
        let apps = self.keyring().all().filter(|which| self.keyring().is_app(*which));
        apps.map(HookPlace::App).collect()
    }

    /// All webhooks of an organization or a repository.
    ///
    /// # Errors
    /// Those of a list.
    pub async fn hooks(&self, place: &HookPlace) -> Result<Listed<Hook>, Error> {
        let first = self.path(&format!("{}?per_page=100", place.path()));
        Ok(self.all_pages::<HooksPage>(&place.principal(), first, Caching::Nothing).await?.list)
    }

    /// Creates a webhook for jobs' events, and returns its ID.
    ///
    /// # Errors
    /// The token lacks the permission; or it was created and the response was lost: list them.
    pub async fn create_hook(&self, place: &HookPlace, url: &str, secret: &Secret) -> Result<u64, Error> {
        let mut hook = settings(url, secret);
        hook["name"] = json!("web");
        let made: Hook = self.write_hook(place, Method::POST, place.path(), &hook, secret, 201).await?;
        Ok(made.id)
    }

    /// Updates a webhook's settings and secret.
    ///
    /// # Errors
    /// The token lacks the permission, or the webhook no longer exists.
    pub async fn update_hook(
        &self,
        place: &HookPlace,
        id: u64,
        url: &str,
        secret: &Secret,
    ) -> Result<(), Error> {
        let path = format!("{}/{id}", place.path());
        let _: Hook =
            self.write_hook(place, Method::PATCH, path, &settings(url, secret), secret, 200).await?;
        Ok(())
    }

    /// Removes a webhook. Returns whether it existed.
    ///
    /// # Errors
    /// The token lacks the permission.
    pub async fn delete_hook(&self, place: &HookPlace, id: u64) -> Result<bool, Error> {
        let path = self.path(&format!("{}/{id}", place.path()));
        let (response, _) = self
            .authorized(&place.principal(), "hook", Repeat::AfterFailures, |_| {
                self.request(Method::DELETE, path.as_str())
            })
            .await?;
        match response.status.as_u16() {
            204 => Ok(true),
            404 => Ok(false),
            _ => Err(Error::from_answer(&response)),
        }
    }

    async fn write_hook<T: serde::de::DeserializeOwned>(
        &self,
        place: &HookPlace,
        method: Method,
        path: String,
        body: &serde_json::Value,
        secret: &Secret,
        expected: u16,
    ) -> Result<T, Error> {
        let path = self.path(&path);
        // A response may echo the secret as it was sent.
        let escaped = serde_json::Value::from(secret.expose()).to_string();
        let escaped = Secret::new(escaped.trim_matches('"'));
        let (response, _) = self
            .authorized(&place.principal(), "hook", Repeat::Never, |_| {
                self.request(method.clone(), path.as_str()).json(body).hiding(secret).hiding(&escaped)
            })
            .await?;
        if response.status.as_u16() == expected {
            Ok(response.json()?)
        } else {
            Err(Error::from_answer(&response))
        }
    }

    /// The latest deliveries, newest first: pages of 100 until `enough`, at most `pages`. One request while nothing is
    /// new.
    ///
    /// # Errors
    /// Those of a list.
    pub async fn deliveries(
        &self,
        place: &HookPlace,
        hook: Option<u64>,
        pages: usize,
        enough: impl FnMut(&[HookDelivery]) -> bool,
    ) -> Result<Vec<HookDelivery>, Error> {
        let path = match hook {
            Some(hook) => format!("{}/{hook}/deliveries?per_page=100", place.path()),
            None => format!("{}/deliveries?per_page=100", place.path()),
        };
        self.first_pages::<DeliveriesPage>(&place.principal(), self.path(&path), pages, enough).await
    }
}

/// The settings of our webhooks.
fn settings(url: &str, secret: &Secret) -> serde_json::Value {
    json!({
        "active": true,
        "events": [HOOK_EVENT],
        "config": { "url": url, "content_type": "json", "insecure_ssl": "0", "secret": secret.expose() },
    })
}
