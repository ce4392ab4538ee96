//! The binary's library: configuration, wiring, and the embedded engine for test harnesses.
//!
//! Not here: anything a lower layer can do without knowing the others.

pub mod cli;
pub mod config;
mod embed;
mod evaluate;
pub mod exposition;
pub mod files;
pub mod host;
pub mod logging;
mod serve;
pub mod time;

pub use embed::{Alert, Builder, EmbedError, Tidewatch, minutes, seconds};
