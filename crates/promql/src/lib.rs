//! Evaluates PromQL over any storage, by column.

#![forbid(unsafe_code)]

mod context;
mod engine;

pub use context::{Answer, EngineOptions, QueryContext, QueryError, QueryStatistics};
pub use engine::Engine;
