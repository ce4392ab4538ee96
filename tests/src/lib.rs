//! End-to-end tests with real processes and real peers, and tests of the house itself.
//!
//! [`peers`] finds the programs that a test needs and says what it lacks; [`process`] starts a
//! program on a free port of 127.0.0.1 and ends it by id; [`cage`] limits its memory; [`power`] is a
//! disk whose power can be cut; [`remote`] writes to a server and reads everything back, which
//! [`ledger`] compares with what was acknowledged; [`backend`] is a service that a test can
//! disconnect, or that receives pages. The tests stand in `tests/`.
//!
//! Not here: what can be tested without a process (each crate's own tests), and timing
//! (`benches`).

pub mod backend;
pub mod cage;
pub mod http;
pub mod ledger;
pub mod peers;
pub mod power;
pub mod process;
pub mod remote;

use std::path::{Path, PathBuf};

/// The root of the project's checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the root").to_owned()
}
