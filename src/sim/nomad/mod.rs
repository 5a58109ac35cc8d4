//! The simulated Nomad.
