//! Damaged files: whatever bit is changed, wherever a file ends, and whichever files are exchanged,
//! doubled, gone or not ours, the database opens, never answers with a sample that was not sent, and
//! says so when it lacks one.
//!
//! `TIDEWATCH_DAMAGE=all` changes every bit of every file and cuts each at every length; without it
//! a part of these, which takes seconds.

mod bits;
mod ends;
mod files;
#[path = "../ledger/mod.rs"]
mod ledger;
mod marks;
#[path = "../numbers/mod.rs"]
mod numbers;
mod reference;
#[path = "../support/mod.rs"]
mod support;
