//! The random ID of a deployment.

use rand::{Rng, RngExt};

/// A random ID for a deployment: 26 letters and digits, 130 bits.
pub fn deployment_id(random: &mut impl Rng) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    (0..26).map(|_| char::from(ALPHABET[usize::from(random.random::<u8>() % 32)])).collect()
}
