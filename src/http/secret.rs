//! Secrets as header values.

use hyper::header::{HeaderValue, InvalidHeaderValue};

use crate::secret::Secret;

/// A header value of `prefix` and a secret, marked sensitive: hyper does not show it either.
///
/// # Errors
/// When the secret has a byte that no header may have, such as a newline.
pub(super) fn header(prefix: &str, secret: &Secret) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::try_from(format!("{prefix}{}", secret.expose()))?;
    value.set_sensitive(true);
    Ok(value)
}
