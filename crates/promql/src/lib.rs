//! Evaluates PromQL over any storage, by column.
//!
//! ```text
//! Expr ─ plan ─► Node ─ eval ─► Stream (rows one by one) ─ fold, collect ─► Frame ─► Value
//!                                 ▲
//!             Select ─ scan ─► Samples ─ window kernels
//! ```
//!
//! The meaning is that of Prometheus 3.14: ranges and lookback are open on the left,
//! annotations carry positions, errors have its words. A range query is evaluated by series and
//! not by step: a selector is resolved once, each series is read once, and a kernel writes a row
//! with a value for every step. What can be folded is folded as rows are made, so that memory
//! grows with groups × steps and not with samples.
//!
//! Invariants: the engine holds no state between queries and owns no thread; parallel work goes
//! through the environment. Every query is bounded by its deadline, its cancel flag and its budget
//! of bytes and samples. Nothing recurses on data; plans are as deep as the parser allows.
//!
//! Not here: syntax (`parser`), chunks (`tsdb`), JSON (`server`).

#![forbid(unsafe_code)]

mod aggregate;
mod binary;
mod context;
mod engine;
mod eval;
mod explain;
mod frame;
mod functions;
mod grid;
mod guard;
mod hash;
mod instant;
mod matrix;
mod memory;
mod notes;
mod plan;
mod profile;
mod quantile;
mod row;
mod samples;
mod stream;
mod table;
mod window;

pub use context::{Answer, EngineOptions, Held, QueryContext, QueryError, QueryStatistics};
pub use engine::Engine;
pub use explain::PlanNode;
pub use memory::{Lease, MemoryPool};
