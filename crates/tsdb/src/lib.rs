//! The storage engine: series in, durable, and out again by column.
//!
//! ```text
//!  Batch ─► head ─► frame ─► wal ─► commit                    Selection ◄─ select
//!            │ open run ─► sealed run ─► block (every 2 h) ─► larger block    │
//!            └───────────────────────────────┴───────────────────┴────────────┘
//! ```
//!
//! Invariants: a batch is acknowledged when [`Db::durable`] has reached its ticket, and then
//! survives a crash; a query sees a snapshot, complete or refused; the first value of a series
//! at a time stays; damage on disk is set aside, named in [`Db::status`], and costs no more than
//! what was damaged. The engine owns no thread: the caller commits and runs jobs.
//!
//! Not here: PromQL, HTTP, what a request looks like (`ingest`), the log's bytes (`wal`), how
//! columns are compressed (`chunk`).

#![forbid(unsafe_code)]

mod backfill;
pub mod block;
mod blocks;
pub mod compact;
mod counters;
mod cut;
mod db;
mod debt;
mod deferred;
mod delete;
mod directory;
mod durable;
mod exemplars;
mod expected;
mod fields;
mod files;
mod floats;
mod frames;
mod gather;
mod growth;
mod head;
mod ids;
mod image;
pub mod index;
mod intervals;
mod jobs;
mod late;
mod log;
mod mend;
mod metadata;
pub mod offline;
mod options;
mod owner;
mod recover;
mod regain;
mod repeat;
mod request;
mod resolve;
mod rows;
mod select;
mod snapshot;
mod split;
mod stale;
mod status;
mod stored;
mod stretches;
mod texts;
mod whole;
mod wire;
mod wounds;

#[doc(hidden)]
pub use expected::walk as walk_block_list;
#[doc(hidden)]
pub use head::image::walk as walk_image;
#[doc(hidden)]
pub use log::walk as walk_frame;

pub use backfill::{Backfill, BackfillCounts, BackfillError, Conflicts, SortedBlock};
pub use db::Db;
pub use jobs::{Expired, Job, JobError, RetentionRule};
pub use metadata::FamilyMetadata;
pub use options::{BLOCK_MS, DbOptions, OpenError, Retention, STALE_SHARE};
pub use status::{
    BlockStatus, Cardinality, Counters, Damage, DbStatus, DiskStatus, Growth, HeadStatus, Memory, Replay,
    TopEntry,
};
pub use stored::Stored;
