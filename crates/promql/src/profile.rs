//! What each node of a plan costs, for the query that asks for it ([`crate::PlanNode`]).
//!
//! ```text
//! eval(node), Stream::of(node) ── open ► … ◄ close ──►┐
//! fold: reading and kernels, maps, visits ── Meter ──►┴─► Cost of the node ─► PlanNode
//! ```
//!
//! Nodes whose rows are made one by one run interleaved, and on several cores: a [`Meter`] looks at
//! the clock between them. Times are therefore busy times of all workers, a node's own without what
//! stands below it, and their sum may be more than the query took.

use std::sync::Arc;

use tidewatch_env::Clock;

use crate::eval::Output;
use crate::plan::NodeId;
use crate::row::Row;

/// What one node has cost so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Without the nodes below.
    pub busy_ns: u64,
    /// Series that a selector resolved to.
    pub series: u64,
    /// Samples and bytes that the storage decoded for it.
    pub samples_read: u64,
    pub bytes_read: u64,
    /// Rows that it handed on, and the samples in them.
    pub rows: u64,
    pub points: u64,
    /// What its rows take where they are kept.
    pub bytes_held: u64,
    /// Its rows are those of an equal part.
    pub repeated: bool,
}

pub(crate) struct Profile {
    clock: Arc<dyn Clock>,
    costs: Vec<Cost>,
    /// Nodes that are being evaluated, the innermost last.
    open: Vec<Open>,
}

struct Open {
    node: NodeId,
    since_ns: u64,
    /// Time that is accounted for elsewhere: nodes below, and workers.
    elsewhere_ns: u64,
}

impl Profile {
    pub(crate) fn new(clock: Arc<dyn Clock>, nodes: usize) -> Profile {
        Profile { clock, costs: vec![Cost::default(); nodes], open: Vec::new() }
    }

    pub(crate) fn open(&mut self, node: NodeId) {
        self.open.push(Open { node, since_ns: self.clock.monotonic_ns(), elsewhere_ns: 0 });
    }

    pub(crate) fn close(&mut self) {
        let open = self.open.pop().expect("opened before");
        let elapsed_ns = self.clock.monotonic_ns() - open.since_ns;
        self.cost(open.node).busy_ns += elapsed_ns.saturating_sub(open.elsewhere_ns);
        if let Some(outer) = self.open.last_mut() {
            outer.elsewhere_ns += elapsed_ns;
        }
    }

    pub(crate) fn cost(&mut self, node: NodeId) -> &mut Cost {
        &mut self.costs[node.0 as usize]
    }

    /// Notes what a node gave as a whole; rows that a [`Meter`] has counted are not counted again.
    pub(crate) fn gave(&mut self, node: NodeId, output: &Output) {
        let cost = self.cost(node);
        match output {
            Output::Rows(frame) => {
                cost.bytes_held = cost.bytes_held.max(frame.bytes());
                if cost.rows == 0 {
                    cost.rows = frame.len() as u64;
                    cost.points = frame.rows().map(|(_, row)| points(row.present)).sum();
                }
            }
            Output::Scalar(values) => cost.points = values.len() as u64,
            Output::Text(_) => {}
        }
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.clock.monotonic_ns()
    }

    /// Ends a stretch in which workers made rows, begun at `since_ns`: the node that is open has waited, and its visits were its own work.
    pub(crate) fn end_fold(
        &mut self,
        since_ns: u64,
        source: Option<NodeId>,
        maps: &[NodeId],
        meters: &[Meter],
    ) {
        let elapsed_ns = self.clock.monotonic_ns() - since_ns;
        let stages = source.into_iter().chain(maps.iter().copied());
        for (stage, node) in stages.enumerate() {
            // A frame as the source was accounted for when it was made: only maps are left.
            let stage = stage + usize::from(source.is_none());
            for meter in meters {
                let (ns, rows, points) = meter.stages.get(stage).copied().unwrap_or_default();
                let cost = self.cost(node);
                cost.busy_ns += ns;
                cost.rows += rows;
                cost.points += points;
            }
        }
        let Some(open) = self.open.last_mut() else { return };
        open.elsewhere_ns += elapsed_ns;
        let node = open.node;
        self.cost(node).busy_ns += meters.iter().map(|meter| meter.visit_ns).sum::<u64>();
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    pub(crate) fn into_costs(self) -> Vec<Cost> {
        self.costs
    }
}

/// One worker's look at the clock between the stages of a stream.
pub(crate) struct Meter {
    clock: Arc<dyn Clock>,
    /// Of the source, then of each map: nanoseconds, rows that are not empty, samples in them.
    stages: Vec<(u64, u64, u64)>,
    visit_ns: u64,
    began_ns: u64,
    last_ns: u64,
}

impl Meter {
    pub(crate) fn new(clock: Arc<dyn Clock>, maps: usize) -> Meter {
        let now_ns = clock.monotonic_ns();
        let stages = vec![(0, 0, 0); maps + 1];
        Meter { clock, stages, visit_ns: 0, began_ns: now_ns, last_ns: now_ns }
    }

    /// A stage, the source being 0, has made its row.
    pub(crate) fn stage(&mut self, stage: usize, row: &Row) {
        let lap_ns = self.lap();
        let (ns, rows, samples) = &mut self.stages[stage];
        let count = points(&row.present);
        *ns += lap_ns;
        *rows += u64::from(count > 0);
        *samples += count;
    }

    /// The row was taken.
    pub(crate) fn visited(&mut self) {
        self.visit_ns += self.lap();
    }

    /// No row follows: what is left was reading.
    pub(crate) fn end(&mut self) {
        let lap_ns = self.lap();
        self.stages[0].0 += lap_ns;
        debug_assert!(self.last_ns >= self.began_ns);
    }

    fn lap(&mut self) -> u64 {
        let now_ns = self.clock.monotonic_ns();
        now_ns - std::mem::replace(&mut self.last_ns, now_ns)
    }
}

fn points(present: &[u64]) -> u64 {
    present.iter().map(|word| u64::from(word.count_ones())).sum()
}
