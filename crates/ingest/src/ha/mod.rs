//! Deduplication of replicas: of several senders of the same series one is heard.
//!
//! ```text
//! Batch ─► examine ─┬─ no cluster and replica ─────────────────────► as it is
//!                   ├─ of the elected replica ─► replica label off ─► taken
//!                   └─ of another ─► counted, left out
//! ```
//!
//! Two servers that scrape the same targets write the same series, told apart by a replica label.
//! Of each cluster one replica is *elected*: the first that is heard. Its samples are taken without
//! the label, those of the others are left out. When the elected one is silent for the
//! failover timeout, the next that writes takes over, unless what it sends is older than
//! what the elected one sent last: a replica that catches up is no reason to switch.
//!
//! Invariants: at any moment one replica of a cluster is elected; who it is survives a restart,
//! and then has the whole timeout again, since we were the ones who were away.
//!
//! Not here: the file (the binary), HTTP (`server`).

mod state;
mod tracker;

pub use state::{StateError, decode_state, encode_state};
pub use tracker::{ClusterStatus, Examined, HaOptions, HaTracker, Replaced};
