//! Parts of a query that stand in it more than once, as in `a / (a + b)`: evaluated once.
//!
//! Two parts are the same when their trees print the same; positions do not count. Looked for are nodes
//! whose rows are collected anyway, and functions over ranges, whose rows are kept where they are few
//! enough for it (`eval`). Other streams are not kept, as that costs memory of series × steps for
//! little work; their selectors are resolved once all the same.

use std::cell::RefCell;

use hashbrown::HashMap;
use tidewatch_parser::{Expr, ValueType};

/// A part's number among those of one plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommonId(pub u32);

/// The parts that were seen while a plan is built.
#[derive(Debug, Default)]
pub(super) struct CommonParts {
    known: RefCell<HashMap<String, CommonId>>,
    uses: RefCell<Vec<u32>>,
}

impl CommonParts {
    /// The number of a part; `context` is what the builder knows of it beside its tree.
    pub(super) fn number(&self, expr: &Expr, context: [bool; 2]) -> Option<CommonId> {
        let collects = match expr {
            Expr::Aggregate(_) => true,
            Expr::Call(call) => call.args.iter().any(|arg| arg.value_type() == ValueType::Matrix),
            Expr::Binary(binary) => {
                let vector = |expr: &Expr| expr.value_type() == ValueType::Vector;
                vector(&binary.lhs) && vector(&binary.rhs)
            }
            _ => false,
        };
        if !collects {
            return None;
        }
        let mut uses = self.uses.borrow_mut();
        let mut known = self.known.borrow_mut();
        let id = *known.entry(format!("{context:?}{expr}")).or_insert_with(|| {
            uses.push(0);
            CommonId(uses.len() as u32 - 1)
        });
        uses[id.0 as usize] += 1;
        Some(id)
    }

    pub(super) fn into_uses(self) -> Vec<u32> {
        self.uses.into_inner()
    }
}
