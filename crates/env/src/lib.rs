//! The only door to disk, clock, randomness and parallel work.
//!
//! Everything above is handed an [`Env`] and reaches the outside through it alone, so that the
//! same code runs on the real machine and on a simulated one whose disk forgets, tears and
//! fails, and whose clock only moves when told.
//!
//! Invariants: nothing here knows what a file means. An operation that returned `Ok` on the
//! simulated disk has promised no more than POSIX does: data is durable after `sync` of the
//! file, names after `sync_dir` of the directory.
//!
//! Not here: sockets (`net`, `scrape`, `server`) and async timers, which belong to the binary.

mod durable;
mod heap;
mod mapped;
mod prefetch;
mod real;
pub mod sim;
mod traits;

pub use durable::{create_dir_durably, parent_of, remove_durably, replace_durably};
pub use heap::{share_heap, trim_heap};
pub use mapped::{give_back, unreadable};
pub use prefetch::prefetch;
pub use traits::{
    Clock, Disk, Entropy, Env, File, Job, Lock, Open, Parallel, Space, is_no_file, is_unreadable,
};
