//! PromQL: text to a typed tree with byte positions, and back to text.

#![forbid(unsafe_code)]

pub mod ast;
mod functions;

pub use ast::*;
pub use functions::{FUNCTIONS, Function, FunctionId};
