//! Tools for tests: Prometheus' script language and its runner, and the plainest store.
//!
//! ```text
//! script text ── Script ──► load ──► TestStore ◄── Engine ◄── eval
//!                                        │                     │
//!                                    MemoryStore            compare ──► Report
//!
//! seed ── madeup ──► samples, queries ──► Engine and Oracle: the same answers?
//! ```
//!
//! The runner works on any store that can load samples and answer selectors; `tidewatch test
//! promql` and the conformance tests run it on [`MemoryStore`], which is meant to be read in one
//! sitting and is what other stores are compared with.
//!
//! Invariants: a script never reaches outside of the store that it was given; the runner reports
//! every failing command and goes on.
//!
//! Not here: the engine (`promql`), and what rule unit tests mean (`rules`), for which this is the
//! laboratory.

#![forbid(unsafe_code)]

mod lab;
pub mod madeup;
mod oracle;
mod run;
pub mod script;
mod store;

pub use lab::{MemoryBench, MemoryLab};
pub use oracle::{Oracle, OracleAnswer};
pub use run::{Report, TestStore, almost_equal, run_script, script_engine_options};
pub use store::{MemoryStore, SampleData};
