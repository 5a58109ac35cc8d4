//! Secrets as header values.

use hyper::header::{HeaderValue, InvalidHeaderValue};

use crate::secret::Secret;

/// A header value of `prefix` and a secret, marked as sensitive so that hyper does not show it either.
///
/// # Errors
/// The secret contains a byte that is not allowed in a header, such as a newline.
pub(super) fn header(prefix: &str, secret: &Secret) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::try_from(format!("{prefix}{}", secret.expose()))?;
    value.set_sensitive(true);
    Ok(value)
}
