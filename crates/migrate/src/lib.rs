//! What other stores write, read to plain values, and written from them.
//!
//! ```text
//!  file ─ Lines ─┬─► openmetrics ──────┐
//!                └─► jsonl ────────────┼─► labels, times, values ─► the store
//!  Prometheus' directory ─► prometheus ┘
//!
//!  the store ─► labels, times, values ─┬─► openmetrics, jsonl ─────► text
//!                                      └─► prometheus::BlockWriter ─► blocks
//! ```
//!
//! Invariants: no input panics, recurses, or makes us allocate more than it justifies; what can not
//! be read is named by its place and costs itself only; values are bit-exact where the format is.
//!
//! Not here: what the store takes (`tsdb`), how far an import has come and how that is shown (the
//! binary), what agents send (`ingest`).

#![forbid(unsafe_code)]

pub mod jsonl;
mod lines;
pub mod openmetrics;
pub mod prometheus;

pub use lines::{LINE_BYTES_MAX, Lines, Piece, Place};
