//! The durable memory of alerting: what each alert is, when each group was evaluated, what is
//! still to be delivered.
//!
//! ```text
//! rules ── changes ──┐                      ┌── open ──► JournalState ──► rules, notify
//! notify ── outbox ──┴─► append, commit ─► log
//!                                           └── maintain: a fresh segment begins with a
//!                                               snapshot of all that counts; older ones go
//! ```
//!
//! Invariants:
//! - The records of one [`Journal::append`] are one frame of the log: after a crash all of them
//!   are there or none. A transition and the notification it causes go into one call; where one frame
//!   can not hold an evaluation, [`Journal::append_all`] keeps the order of several.
//! - Records say what is, not what changed, so replaying any of them again, or a whole older
//!   part of the log before the newer, ends in the same state.
//! - Segments go only after everything in them that still counts is durable in a later one,
//!   the oldest first.
//! - Damage costs the frame that it hit, is named in [`Findings`], and the file that has it is
//!   set aside before it goes.
//!
//! Not here: what the states of an alert mean (`rules`), what is in an outbox entry (`notify`)
//! or a silence, and who calls `commit` and `maintain` when (the binary).

#![forbid(unsafe_code)]

mod codec;
mod error;
mod journal;
mod record;
mod state;
mod waiting;

pub use codec::{DecodeError, decode_frame, encode_frame};
pub use error::JournalError;
pub use journal::{Journal, JournalOptions, Taken};
pub use record::{Alert, AlertKey, AlertState, Gap, GroupKey, Record};
pub use state::{Findings, GAPS_MAX, JournalState};
pub use waiting::Waiting;
