//! The seam between the engine that stores and the engine that asks: traits, no code.
//!
//! ```text
//! ingest, scrape, rules ── Append ──► tsdb ── Select ─► Selection ── scan ──► promql, server
//! ```
//!
//! The storage tower implements these traits and does not know PromQL; the language tower uses
//! them and does not know chunks. Data crosses by column: one call for each run of a series,
//! never one for each sample.
//!
//! Invariants: a [`Selection`] is a consistent snapshot that stays readable however the store
//! changes; its series are sorted by labels; the runs of a series ascend in time and do not
//! overlap.
//!
//! Not here: what a chunk or a plan is.

mod append;
mod select;

pub use append::{Append, AppendError, AppendOutcome, Refusal, Ticket};
pub use select::{
    ClockId, Latest, Room, Run, RunValues, Scratch, Select, SelectError, Selection, Statistics, TimeRange,
};
