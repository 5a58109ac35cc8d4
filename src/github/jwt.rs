//! The JSON Web Token with which a GitHub App authenticates (contract §3).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};

use crate::secret::Secret;

/// How far in the past a token begins, to tolerate wrong clocks, in seconds.
const BACKDATED: i64 = 60;

/// How long after now it ends, in seconds. GitHub accepts at most 10 minutes.
const LIFETIME: i64 = 9 * 60;

/// A token for `issuer` (the App's client ID or ID), signed with the private key in `pem` (PKCS#1 or PKCS#8).
///
/// # Errors
/// A text for display if the key is invalid.
pub fn sign(issuer: &str, pem: &Secret, now: Timestamp) -> Result<Secret, String> {
    let key = PrivateKeyDer::from_pem_slice(pem.expose().as_bytes()).map_err(|_| {
        "the App's private key is not a PEM file (-----BEGIN RSA PRIVATE KEY-----)".to_owned()
    })?;
    let key = match &key {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
        _ => return Err("the App's private key is not an RSA key".to_owned()),
    }
    .map_err(|error| format!("invalid App private key: {error}"))?;
    let seconds = now.as_second();
    let claims = serde_json::json!({
        "iat": seconds - BACKDATED,
        "exp": seconds + LIFETIME,
        "iss": issuer,
    });
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let message =
        format!("{}.{}", encode(br#"{"alg":"RS256","typ":"JWT"}"#), encode(claims.to_string().as_bytes()));
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
        .map_err(|_| "signing with the App's private key failed".to_owned())?;
    Ok(Secret::new(format!("{message}.{}", encode(&signature))))
}
