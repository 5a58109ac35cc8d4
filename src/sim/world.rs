//! The world both simulators serve.
