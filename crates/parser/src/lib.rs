//! PromQL: text to a typed tree with byte positions, and back to text.
//!
//! ```text
//! text ── lexer ──► tokens ── parser ──► [Expr] ── check ──► promql, rules
//!                                         │
//!                                         └── Display, pretty ──► text
//! ```
//!
//! The language is that of Prometheus 3.14, its experimental parts behind [`ParserOptions`];
//! messages and positions of errors are Prometheus' too. Beside queries this crate reads metric
//! selectors and the notation in which tests describe series.
//!
//! Invariants: a tree that was returned follows the rules of types, is at most
//! [`ParserOptions::depth`] high and has at most [`ParserOptions::nodes`] nodes, which are counted
//! while parsing; so visitors may recurse. Printing a tree and parsing it again gives the same tree
//! but for positions and the sign of infinity. No input makes the parser panic.
//!
//! Not here: what a query means (`promql`), and values for `step()` and `range()`, which only an
//! evaluation knows.

#![forbid(unsafe_code)]

pub mod ast;
mod check;
mod duration;
mod error;
mod expr;
mod functions;
mod lexer;
mod literal;
mod notation;
mod options;
mod parser;
mod pretty;
mod print;
mod scan;
mod selector;
mod series;
mod token;

pub use ast::*;
pub use error::{ParseError, ParseErrors};
pub use functions::{FUNCTIONS, Function, FunctionId};
pub use notation::histogram_notation;
pub use options::ParserOptions;
pub use parser::{
    parse_expr, parse_expr_bytes, parse_metric_selector, parse_series_description, token_places,
};
pub use pretty::{pretty, pretty_within};
pub use series::SequenceValue;
