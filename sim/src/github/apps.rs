//! GitHub Apps: their signed tokens (JWT), installations and installation tokens (contract §3).

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use rand::RngExt;
use serde_json::{Value, json};

use super::{
    GitHub, after,
    reply::Reply,
    token::{Kind, Level, Permissions, Reach, Token},
};
use crate::github::data::Detail;

/// A JWT may end at most ten minutes from now.
const LONGEST_JWT: i64 = 600;
/// The tolerated clock difference.
const LEEWAY: i64 = 5;

/// A GitHub App.
#[derive(Clone)]
pub struct App {
    /// Numeric ID.
    pub id: u64,
    /// The client ID, which `iss` may name instead.
    pub client_id: String,
    /// Its name in URLs.
    pub slug: String,
    /// The owner's ID.
    pub owner: u64,
    /// RSA public key: DER of PKCS#1's RSAPublicKey.
    pub public_key: Vec<u8>,
    /// The permissions that it requests when it is installed.
    pub permissions: Permissions,
}

/// An App installed for an owner.
#[derive(Clone)]
pub struct Installation {
    /// Numeric ID.
    pub id: u64,
    /// The App's ID.
    pub app: u64,
    /// The owner's ID.
    pub account: u64,
    /// The repositories that it can access.
    pub repositories: Reach,
    /// Its permissions.
    pub permissions: Permissions,
    /// Set while it is suspended by the owner.
    pub suspended_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
}

impl GitHub {
    /// Adds an App whose JWTs verify with this RSA public key (DER of PKCS#1's RSAPublicKey). Returns its ID.
    pub fn add_app(
        &mut self,
        owner: u64,
        client_id: &str,
        public_key: Vec<u8>,
        permissions: Permissions,
    ) -> u64 {
        let id = self.new_id();
        let slug = client_id.to_lowercase();
        self.apps
            .insert(id, App { id, client_id: client_id.to_string(), slug, owner, public_key, permissions });
        id
    }

    /// Installs an App for an owner, with all the permissions that it requests. Returns the installation's
    /// ID.
    pub fn install_app(&mut self, app: u64, account: u64, repositories: Reach) -> u64 {
        let id = self.new_id();
        let permissions = self.apps.get(&app).map(|app| app.permissions.clone()).unwrap_or_default();
        let created_at = self.now;
        let installation =
            Installation { id, app, account, repositories, permissions, suspended_at: None, created_at };
        self.installations.insert(id, installation);
        id
    }

    /// An installation, to suspend it or to change its permissions.
    pub fn installation_mut(&mut self, id: u64) -> Option<&mut Installation> {
        self.installations.get_mut(&id)
    }

    /// Invalidates the tokens of all installations.
    pub fn revoke_installation_tokens(&mut self) {
        self.tokens.retain(|_, token| !matches!(token.kind, Kind::Installation { .. }));
    }

    /// Uninstalls an App of an owner, and invalidates its tokens.
    pub fn uninstall(&mut self, id: u64) {
        self.installations.remove(&id);
    }

    /// POST /app/installations/{id}/access_tokens.
    pub(super) fn create_installation_token(&mut self, app: u64, id: u64, body: &Value, base: &str) -> Reply {
        let Some(installation) = self.installations.get(&id).filter(|known| known.app == app).cloned() else {
            return Reply::not_found();
        };
        if installation.suspended_at.is_some() {
            return Reply::error(403, "This installation has been suspended");
        }
        let mut permissions = installation.permissions.clone();
        if let Some(asked) = body.get("permissions").and_then(Value::as_object) {
            permissions.clear();
            for (name, level) in asked {
                let level = if level == "write" { Level::Write } else { Level::Read };
                if installation.permissions.get(name).is_none_or(|own| *own < level) {
                    return Reply::error(
                        422,
                        "The permissions requested are not granted to this installation.",
                    );
                }
                permissions.insert(name.clone(), level);
            }
        }
        let reach = match self.asked_repositories(&installation, body) {
            Ok(reach) => reach,
            Err(reply) => return reply,
        };
        let now = self.now;
        self.tokens.retain(|_, token| {
            !(matches!(token.kind, Kind::Installation { .. })
                && token.expires_at.is_some_and(|end| end <= now))
        });
        // Clients must not rely on a length or format.
        let length = self.rng.random_range(36..=280);
        let secret = format!("ghs_{}", self.random_text(length));
        let expires_at = after(now, self.options.token_life);
        let token = Token {
            kind: Kind::Installation { id },
            permissions: permissions.clone(),
            reach: reach.clone(),
            expires_at: Some(expires_at),
        };
        self.tokens.insert(secret.clone(), token);
        let mut answer = json!({
            "token": secret, "expires_at": super::reply::time(expires_at),
            "permissions": permissions_json(&permissions), "repository_selection": reach.selection(),
        });
        if let Reach::Only(ids) = &reach {
            let list = ids.iter().filter_map(|id| self.repository_json(*id, base, Detail::Short)).collect();
            answer["repositories"] = Value::Array(list);
        }
        Reply::json(201, answer)
    }

    /// The repositories that a token request names; by default all of the installation's.
    fn asked_repositories(&self, installation: &Installation, body: &Value) -> Result<Reach, Reply> {
        let names = body.get("repositories").and_then(Value::as_array);
        let numbers = body.get("repository_ids").and_then(Value::as_array);
        if names.is_none() && numbers.is_none() {
            return Ok(installation.repositories.clone());
        }
        let mut ids = BTreeSet::new();
        let own = |id: u64| {
            self.repositories.get(&id).is_some_and(|repository| {
                repository.owner == installation.account && installation.repositories.contains(id)
            })
        };
        let login =
            self.owners.get(&installation.account).map(|owner| owner.login.as_str()).unwrap_or_default();
        let by_name = names.into_iter().flatten().map(|name| {
            let name = name.as_str()?;
            self.names.get(&format!("{login}/{name}").to_lowercase()).copied()
        });
        for id in by_name.chain(numbers.into_iter().flatten().map(Value::as_u64)) {
            match id {
                Some(id) if own(id) => {
                    ids.insert(id);
                }
                _ => {
                    return Err(Reply::error(
                        422,
                        "There is at least one repository that does not exist or is not accessible to the parent \
                         installation.",
                    ));
                }
            }
        }
        Ok(Reach::Only(ids))
    }
}

pub(super) fn permissions_json(permissions: &Permissions) -> Value {
    let text = |level: &Level| if *level == Level::Write { "write" } else { "read" };
    permissions
        .iter()
        .map(|(name, level)| (name.clone(), json!(text(level))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Checks a JWT as GitHub does: RS256, `iat` not in the future, `exp` in at most ten minutes, a known `iss`.
pub(super) fn verify_jwt(apps: &BTreeMap<u64, App>, jwt: &str, now: Timestamp) -> Result<u64, Reply> {
    let undecodable = || Reply::error(401, "A JSON web token could not be decoded");
    let (signed, signature) = jwt.rsplit_once('.').ok_or_else(undecodable)?;
    let (header, claims) = signed.split_once('.').ok_or_else(undecodable)?;
    let part =
        |text: &str| -> Option<Value> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok() };
    let header = part(header).ok_or_else(undecodable)?;
    let claims = part(claims).ok_or_else(undecodable)?;
    if header.get("alg").and_then(Value::as_str) != Some("RS256") {
        return Err(undecodable());
    }
    let issuer = match claims.get("iss") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => return Err(Reply::error(401, "'Issuer' claim ('iss') must be an Integer")),
    };
    let app = apps
        .values()
        .find(|app| app.client_id == issuer || app.id.to_string() == issuer)
        .ok_or_else(|| Reply::error(404, "Integration not found"))?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| undecodable())?;
    let key = ring::signature::UnparsedPublicKey::new(
        &ring::signature::RSA_PKCS1_2048_8192_SHA256,
        app.public_key.as_slice(),
    );
    key.verify(signed.as_bytes(), &signature).map_err(|_| undecodable())?;
    let now = now.as_second();
    let issued = claims.get("iat").and_then(Value::as_i64);
    if issued.is_none_or(|issued| issued > now + LEEWAY) {
        return Err(Reply::error(
            401,
            "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
        ));
    }
    match claims.get("exp").and_then(Value::as_i64) {
        Some(end) if end <= now => Err(Reply::error(
            401,
            "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the \
             assertion expires",
        )),
        Some(end) if end > now + LONGEST_JWT + LEEWAY => {
            Err(Reply::error(401, "'Expiration time' claim ('exp') is too far in the future"))
        }
        Some(_) => Ok(app.id),
        None => Err(Reply::error(
            401,
            "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the \
             assertion expires",
        )),
    }
}
