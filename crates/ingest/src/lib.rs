//! What clients send, turned into batches; and back where we send.
//!
//! ```text
//! POST /api/v1/write ─► remote_write: snappy ─► protobuf ─┐
//!                                                 (ha: of several replicas one is heard)
//! GET /metrics of a target ─► exposition: text ─► entries ┴─► model::Batch ─► tsdb
//! ```
//!
//! Invariants: no input panics, recurses, or makes us allocate more than it justifies: every
//! declared size is compared with a limit and with the bytes at hand before memory is taken.
//! The hot paths borrow from the body and reuse the caller's buffers, so that the steady state
//! allocates nothing for a series or a sample.
//!
//! Not here: whether a label set or a sample is acceptable to the store (`tsdb`), what a target
//! is and when it is scraped (`scrape`), HTTP itself (`server`, `net`).

#![forbid(unsafe_code)]

pub mod exposition;
pub mod ha;
pub mod remote_write;

pub use exposition::{
    Entry, Exemplar, Format, ParseError, ParsedText, Parser, Series, negotiate, parse_text,
};
pub use ha::{
    ClusterStatus, Examined, HaOptions, HaTracker, Replaced, StateError, decode_state, encode_state,
};
pub use remote_write::{
    LeftOut, Spelling, WriteError, WriteSummary, compress, decode_write_request, decode_write_request_v2,
    decompress, encode_write_request,
};
