//! The random deployment ID.

use rand::{Rng, RngExt};

/// A random deployment ID: 26 letters and digits, 130 bits.
pub fn deployment_id(random: &mut impl Rng) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    (0..26).map(|_| char::from(ALPHABET[usize::from(random.random::<u8>() % 32)])).collect()
}
