//! Brings alerts to Alertmanagers: a state machine that returns the requests to send.
//!
//! ```text
//! rules ─ enqueue ─► [Notifier] ─ due(now) ─► requests ─► net
//!                     │      ▲                              │
//!        take_changes │      └──────── completed ◄──────────┘
//!                     ▼
//!                  journal ─ restore, after a crash
//! ```
//!
//! Invariants: an alert waits for each receiver by itself until that one has it, so that a dead
//! receiver delays no other; of an alert the newest state waits, and one that is resolved waits
//! like one that fires; what is dropped is counted by cause.
//!
//! Not here: sockets and clocks (the binary drives), discovery (`scrape`), and for now grouping,
//! silences and receivers other than an Alertmanager.

#![forbid(unsafe_code)]

mod alert;
mod notifier;
mod queue;

pub use alert::Alert;
pub use notifier::{
    Counters, Endpoint, Notifier, Options, OutboxChanges, Outcome, ReceiverStatus, Request, RequestId,
    alerts_url,
};
