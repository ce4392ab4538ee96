//! Aggregations over series: `sum by (job) (…)` and its kin.
//!
//! Those that need a fixed state for each group and step fold the rows of a stream as they are
//! made ([`fold`]), with memory of groups × steps. Those that keep rows or values ([`pick`],
//! [`values`]) say so in their own headers.

mod fold;
mod pick;
mod values;

use hashbrown::HashMap;
use tidewatch_model::{Labels, METRIC_NAME};
use tidewatch_parser::AggregateOp;

use crate::context::QueryError;
use crate::eval::{Evaluator, Output};
use crate::frame::{Frame, Name};
use crate::grid::Grid;
use crate::guard::Charge;
use crate::plan::Aggregate;
use crate::stream::{Stream, Strip};

pub(crate) fn eval(evaluator: &mut Evaluator<'_>, plan: &Aggregate, grid: Grid) -> Result<Frame, QueryError> {
    use AggregateOp as A;
    let param = match (&plan.param, plan.op) {
        (None, _) => Param::None,
        (Some(node), _) => match evaluator.eval(node, grid)? {
            Output::Scalar(values) => Param::Scalar(values),
            Output::Text(text) => Param::Text(text),
            Output::Rows(_) => unreachable!("the parser has checked types"),
        },
    };
    let stream = Stream::of(evaluator, &plan.input, grid)?;
    match (plan.op, param) {
        (A::Topk | A::Bottomk | A::Limitk | A::LimitRatio, Param::Scalar(values)) => {
            pick::eval(evaluator, plan, stream, values)
        }
        (A::Quantile, Param::Scalar(values)) => values::quantile(evaluator, plan, stream, &values),
        (A::CountValues, Param::Text(label)) => values::count_values(evaluator, plan, stream, &label),
        _ => fold::eval(evaluator, plan, stream),
    }
}

enum Param {
    None,
    Scalar(Vec<f64>),
    Text(String),
}

/// What a group takes beside the texts of its labels and of its key.
const GROUP_BYTES: usize = 128;

/// Which group each row of a stream belongs to.
struct Groups {
    of_row: Vec<u32>,
    names: Vec<Labels>,
    _charges: Vec<Charge>,
}

impl Groups {
    /// Groups in the order of their first rows. Names that are dropped already do not count.
    fn new(evaluator: &Evaluator<'_>, plan: &Aggregate, stream: &Stream) -> Result<Groups, QueryError> {
        let (guard, delayed) = (&evaluator.guard, evaluator.options.delayed_name_removal);
        let stripped = if delayed { Strip::Keep } else { stream.stripped() };
        let mut charges = vec![guard.charge(stream.len() as u64 * 4, 0)?];
        let mut groups =
            Groups { of_row: Vec::with_capacity(stream.len()), names: Vec::new(), _charges: Vec::new() };
        if !plan.without && plan.grouping.is_empty() {
            groups.of_row.resize(stream.len(), 0);
            groups.names.push(Labels::empty());
            groups._charges = charges;
            return Ok(groups);
        }
        let mut known = HashMap::<Box<[u8]>, u32, foldhash::fast::RandomState>::default();
        let (mut key, mut text) = (Vec::new(), 0);
        for row in 0..stream.len() {
            let labels = stream.base_labels(row);
            key.clear();
            for (name, value) in grouped(plan, stripped, labels) {
                // Lengths first, so that no two sets of labels have one key.
                key.extend_from_slice(&(name.len() as u32).to_le_bytes());
                key.extend_from_slice(&(value.len() as u32).to_le_bytes());
                key.extend_from_slice(name.as_bytes());
                key.extend_from_slice(value.as_bytes());
            }
            let group = match known.get(key.as_slice()) {
                Some(group) => *group,
                None => {
                    let group = groups.names.len() as u32;
                    groups.names.push(Labels::from_pairs(grouped(plan, stripped, labels)));
                    known.insert(key.as_slice().into(), group);
                    text += 2 * key.len() + GROUP_BYTES;
                    if text >= GROUP_BYTES * 512 {
                        guard.check()?;
                        charges.push(guard.charge(std::mem::take(&mut text) as u64, 0)?);
                    }
                    group
                }
            };
            groups.of_row.push(group);
        }
        groups._charges = charges;
        Ok(groups)
    }

    fn len(&self) -> usize {
        self.names.len()
    }
}

/// The labels by which a row is grouped.
fn grouped<'a>(
    plan: &'a Aggregate,
    stripped: Strip,
    labels: &'a Labels,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    labels.iter().filter(move |(name, _)| keeps(plan, stripped, name))
}

fn keeps(plan: &Aggregate, stripped: Strip, name: &str) -> bool {
    let gone = match stripped {
        Strip::Keep => false,
        Strip::Metadata => crate::eval::is_metadata(name),
        Strip::MetricName => name == METRIC_NAME,
    };
    let listed = plan.grouping.binary_search_by(|label| label.as_str().cmp(name)).is_ok();
    !gone && if plan.without { !listed && name != METRIC_NAME } else { listed }
}

/// Whether the name of a row is yet to be dropped, with delayed name removal.
fn drops_name(evaluator: &Evaluator<'_>, stream: &Stream, row: usize) -> bool {
    evaluator.options.delayed_name_removal && stream.name(evaluator, row).drop
}

fn name_of(labels: &Labels, drop: bool) -> Name {
    Name { labels: labels.clone(), drop }
}
