//! Which credentials are used for which owner. Each owner has exactly one, so that no limit is evaded.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::auth::{Auth, Authenticator, Principal, Which};
use crate::model::OwnerPattern;

/// Credentials for some owners only.
#[derive(Debug, Clone)]
pub struct Assigned {
    /// Its name in metrics and messages; not a secret.
    pub name: String,
    /// The owners whose requests use it.
    pub owners: Vec<OwnerPattern>,
    /// How to authenticate.
    pub auth: Auth,
}

/// All credentials.
pub(super) struct Keyring {
    default: Authenticator,
    assigned: Vec<Held>,
    known_as: Mutex<KnownAs>,
}

struct Held {
    name: Arc<str>,
    owners: Vec<OwnerPattern>,
    authenticator: Authenticator,
}

#[derive(Default)]
struct KnownAs {
    /// By payer: the ID of its credentials in cache and limits.
    payers: BTreeMap<String, Arc<str>>,
    /// By that ID: the names of assigned credentials.
    names: BTreeMap<Arc<str>, Arc<str>>,
}

impl Keyring {
    pub(super) fn new(default: Auth, assigned: Vec<Assigned>) -> Self {
        let held = |assigned: Assigned| Held {
            name: assigned.name.into(),
            owners: assigned.owners,
            authenticator: Authenticator::new(assigned.auth),
        };
        Self {
            default: Authenticator::new(default),
            assigned: assigned.into_iter().map(held).collect(),
            known_as: Mutex::default(),
        }
    }

    /// The credentials for an owner: the entry that names it, else the first one with a matching pattern,
    /// else the default.
    pub(super) fn of(&self, owner: &str) -> Which {
        let named = |held: &Held, exact: bool| {
            held.owners.iter().any(|pattern| pattern.is_exact() == exact && pattern.covers(owner))
        };
        let find = |exact| self.assigned.iter().position(|held| named(held, exact));
        find(true).or_else(|| find(false)).map_or(Which::DEFAULT, |at| Which(at + 1))
    }

    pub(super) fn of_principal(&self, principal: &Principal) -> Which {
        match principal {
            Principal::Owner(owner) => self.of(owner),
            Principal::Token(which) | Principal::App(which) => *which,
        }
    }

    fn held(&self, which: Which) -> Option<&Held> {
        self.assigned.get(which.0.checked_sub(1)?)
    }

    pub(super) fn authenticator(&self, which: Which) -> &Authenticator {
        self.held(which).map_or(&self.default, |held| &held.authenticator)
    }

    pub(super) fn is_app(&self, which: Which) -> bool {
        matches!(self.authenticator(which).auth, Auth::App { .. })
    }

    /// The name of assigned credentials; `None` for the default.
    pub(super) fn name(&self, which: Which) -> Option<&str> {
        self.held(which).map(|held| held.name.as_ref())
    }

    /// All credentials. The default is omitted if it has no token and there are others.
    pub(super) fn all(&self) -> impl Iterator<Item = Which> + '_ {
        let has_default = self.assigned.is_empty() || !self.default.is_missing();
        (0..=self.assigned.len()).map(Which).filter(move |which| *which != Which::DEFAULT || has_default)
    }

    /// An error message if an owner has no credentials but others do.
    pub(super) fn lacks(&self, principal: &Principal) -> Option<String> {
        let Principal::Owner(owner) = principal else { return None };
        let is_missing = self.of(owner) == Which::DEFAULT && self.default.is_missing();
        (is_missing && !self.assigned.is_empty()).then(|| {
            format!(
                "{owner} has no credentials: add it to the owners of an entry of github.tokens or github.apps, or set \
                 github.token_file for all other owners"
            )
        })
    }

    /// The name under which requests for an owner's repositories are counted. A login contains no spaces.
    pub(super) fn payer(&self, owner: &str) -> String {
        let which = self.of(owner);
        if self.is_app(which) { owner.to_ascii_lowercase() } else { self.payer_of_token(which) }
    }

    fn payer_of_token(&self, which: Which) -> String {
        self.name(which).map(|name| format!("token {name}")).unwrap_or_default()
    }

    /// The ID of a payer's credentials in cache and limits, once it has made a request.
    pub(super) fn who(&self, payer: &str) -> Option<Arc<str>> {
        self.known().payers.get(payer).cloned()
    }

    /// The display name of an ID in cache and limits.
    pub(super) fn named(&self, who: &str) -> String {
        self.known().names.get(who).map_or(who, AsRef::as_ref).to_owned()
    }

    /// Stores the ID of a principal's credentials.
    pub(super) fn is_known_as(&self, principal: &Principal, who: &Arc<str>) {
        let which = self.of_principal(principal);
        let payer = match principal {
            Principal::Owner(owner) => Some(self.payer(owner)),
            Principal::Token(which) => Some(self.payer_of_token(*which)),
            Principal::App(_) => None,
        };
        // Installations are identified by their IDs.
        let is_named = !self.is_app(which) || matches!(principal, Principal::App(_));
        let name = self.held(which).filter(|_| is_named).map(|held| Arc::clone(&held.name));
        let mut known = self.known();
        if let Some(payer) = payer
            && known.payers.get(&payer) != Some(who)
        {
            known.payers.insert(payer, Arc::clone(who));
        }
        if let Some(name) = name
            && !known.names.contains_key(who)
        {
            known.names.insert(Arc::clone(who), name);
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, KnownAs> {
        self.known_as.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn keyring(default: &str, assigned: &[(&str, &[&str])]) -> Keyring {
        let assigned = assigned.iter().map(|(name, owners)| Assigned {
            name: (*name).to_owned(),
            owners: owners.iter().map(|text| OwnerPattern::new(text).unwrap()).collect(),
            auth: Auth::Token(Secret::new(*name)),
        });
        Keyring::new(Auth::Token(Secret::new(default)), assigned.collect())
    }

    #[test]
    fn an_owner_has_one_credential_and_its_exact_name_wins_over_patterns() {
        let keyring = keyring("default", &[("one", &["other-*"]), ("two", &["other-a", "o*"])]);
        let name = |owner: &str| keyring.name(keyring.of(owner)).map(str::to_owned);
        assert_eq!(name("Other-B").as_deref(), Some("one"));
        assert_eq!(name("other-a").as_deref(), Some("two"));
        assert_eq!(name("octo").as_deref(), Some("two"));
        assert_eq!(name("acme"), None);
        assert_eq!((keyring.payer("acme"), keyring.payer("octo")), (String::new(), "token two".to_owned()));
        assert_eq!(keyring.all().count(), 3);
    }

    #[test]
    fn without_a_default_other_owners_have_no_credentials_and_an_error_says_so() {
        let keyring = keyring("", &[("one", &["acme"])]);
        let lacks = |owner: &str| keyring.lacks(&Principal::Owner(owner.to_owned()));
        assert!(lacks("other").unwrap().contains("github.tokens"));
        assert_eq!(lacks("acme"), None);
        assert_eq!(keyring.all().collect::<Vec<_>>(), [Which(1)]);
        let alone = super::tests::keyring("", &[]);
        assert_eq!(alone.lacks(&Principal::Owner("acme".to_owned())), None);
        assert_eq!(alone.all().count(), 1);
    }
}
