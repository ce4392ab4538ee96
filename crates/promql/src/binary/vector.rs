//! Arithmetic and comparison between vectors.
//!
//! Matching is by series and not by step: signatures, result labels and the pairs of rows are
//! found once, and then each pair is computed over its columns. What may change with the step is
//! which rows of a signature are present; two at once on a side that must have one are an error.

use std::cell::OnceCell;
use std::sync::Arc;

use tidewatch_model::Labels;
use tidewatch_parser::{BinaryOp, Cardinality, PosRange, VectorMatching};

use super::changes_meaning;
use super::element::{Outcome, compute};
use super::matching::{Matched, Signer};
use crate::context::QueryError;
use crate::eval::{Evaluator, is_metadata};
use crate::frame::{Frame, Name, merge_row};
use crate::grid::Grid;
use crate::guard::Guard;
use crate::notes::Notes;
use crate::plan::Binary;
use crate::row::{Cell, Row, RowRef, bit, clear_bit, words};
use crate::table::Table;

pub(super) fn eval(
    evaluator: &mut Evaluator<'_>,
    pos: PosRange,
    plan: &Binary,
    grid: Grid,
) -> Result<Frame, QueryError> {
    let lhs = evaluator.rows(&plan.lhs, grid)?;
    let rhs = evaluator.rows(&plan.rhs, grid)?;
    let matching = plan.matching.clone().unwrap_or_default();
    // The "one" side is on the right from here on.
    let swapped = matching.cardinality == Cardinality::OneToMany;
    let (many, one) = if swapped { (&rhs, &lhs) } else { (&lhs, &rhs) };
    let signer = Signer::new(&matching);
    let matched = Matched::new(&signer, many, one, &evaluator.guard)?;
    let mut join = Join {
        plan,
        matching: &matching,
        swapped,
        pos,
        many,
        one,
        matched: &matched,
        // As in Prometheus these do not change sides: `fill_right` stands in for the "one" side,
        // `fill_left` for the "many" side, also with `group_right`.
        fill_many: matching.fill.lhs,
        fill_one: matching.fill.rhs,
        steps: grid.count,
        occupied: OnceCell::new(),
        delayed: evaluator.options.delayed_name_removal,
        table: Table::new(grid.count),
        taken: Vec::new(),
        guard: evaluator.guard.clone(),
        notes: std::mem::take(&mut evaluator.notes),
    };
    let joined = join.run(evaluator);
    evaluator.notes = std::mem::take(&mut join.notes);
    joined?;
    join.table.into_frame(&evaluator.guard)
}

struct Join<'a> {
    plan: &'a Binary,
    matching: &'a VectorMatching,
    swapped: bool,
    pos: PosRange,
    many: &'a Frame,
    one: &'a Frame,
    matched: &'a Matched,
    /// Stand in for a missing element of either side.
    fill_many: Option<f64>,
    fill_one: Option<f64>,
    steps: usize,
    /// The steps at which the "many" side has any element, once that is asked for.
    occupied: OnceCell<Vec<u64>>,
    delayed: bool,
    table: Table,
    /// What has been computed of each row of the table.
    taken: Vec<Taken>,
    guard: Guard,
    notes: Notes,
}

/// Pairs of rows between two looks at clock and cancel flag.
const ROWS_A_CHECK: usize = 256;

/// What has been computed of a row of the result.
struct Taken {
    /// Steps at which a pair was computed, whether it passed or not.
    steps: Vec<u64>,
    signature: usize,
}

impl Join<'_> {
    fn run(&mut self, evaluator: &Evaluator<'_>) -> Result<(), QueryError> {
        let one_to_one = self.matching.cardinality == Cardinality::OneToOne;
        for (signature, ones) in self.matched.right_rows.iter().enumerate() {
            self.refuse_duplicates(signature, ones)?;
        }
        for signature in 0..self.matched.signatures.len() {
            evaluator.guard.check()?;
            let ones = &self.matched.right_rows[signature];
            let manys = &self.matched.left_rows[signature];
            if one_to_one {
                self.refuse_many(ones, manys)?;
            }
            let mut met = vec![0u64; words(self.steps)];
            for &many in manys {
                let row = self.many.row(many);
                met.iter_mut().zip(row.present).for_each(|(met, present)| *met |= present);
                self.join_many(signature, many, ones)?;
            }
            if let Some(fill) = self.fill_many {
                for &one in ones {
                    self.fill_lonely(signature, one, &met, fill)?;
                }
            }
        }
        Ok(())
    }

    /// Two rows of the "one" side with one signature must not meet at a step at which they would
    /// be used: when the other vector is empty there, nothing is looked at.
    fn refuse_duplicates(&self, signature: usize, ones: &[usize]) -> Result<(), QueryError> {
        if ones.len() < 2 {
            return Ok(());
        }
        let mut seen: Vec<Option<usize>> = vec![None; self.steps];
        for &one in ones {
            for step in crate::row::set_steps(self.one.row(one).present) {
                let Some(other) = seen[step].replace(one) else { continue };
                if !self.looks(step) {
                    continue;
                }
                let side = if self.swapped { "left" } else { "right" };
                let group = &self.matched.signatures[signature];
                let labels = |row: usize| &self.one.names[row].labels;
                return Err(QueryError::Execution(format!(
                    "found duplicate series for the match group {group} on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
                    labels(other),
                    labels(one)
                )));
            }
        }
        Ok(())
    }

    /// Whether the operation looks at its elements at a step: not when one side has none at all
    /// and nothing stands in for it.
    fn looks(&self, step: usize) -> bool {
        let fills = self.fill_many.is_some() || self.fill_one.is_some();
        fills || bit(self.occupied.get_or_init(|| union(self.many, self.steps)), step)
    }

    /// Of two rows on the left with one signature, one at most may find a partner at a step.
    fn refuse_many(&self, ones: &[usize], manys: &[usize]) -> Result<(), QueryError> {
        if manys.len() < 2 {
            return Ok(());
        }
        let mut partner = vec![0u64; words(self.steps)];
        for &one in ones {
            partner.iter_mut().zip(self.one.row(one).present).for_each(|(a, b)| *a |= b);
        }
        if self.fill_one.is_some() {
            partner.fill(u64::MAX);
        }
        let mut seen = vec![0u64; words(self.steps)];
        for &many in manys {
            for (i, present) in self.many.row(many).present.iter().enumerate() {
                let used = present & partner[i];
                if seen[i] & used != 0 {
                    return Err(QueryError::Execution(
                        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
                            .to_owned(),
                    ));
                }
                seen[i] |= used;
            }
        }
        Ok(())
    }

    fn join_many(&mut self, signature: usize, many: usize, ones: &[usize]) -> Result<(), QueryError> {
        let (many_frame, one_frame) = (self.many, self.one);
        let row = many_frame.row(many);
        let mut alone: Vec<u64> = row.present.to_vec();
        for (i, &one) in ones.iter().enumerate() {
            if i % ROWS_A_CHECK == 0 {
                self.guard.check()?;
            }
            let partner = one_frame.row(one);
            alone.iter_mut().zip(partner.present).for_each(|(alone, present)| *alone &= !present);
            let names = (&many_frame.names[many], &one_frame.names[one].labels);
            self.pair(signature, names, row, partner)?;
        }
        if let Some(fill) = self.fill_one
            && alone.iter().any(|word| *word != 0)
        {
            let filled = filled_row(self.steps, fill, alone);
            let group = self.matched.signatures[signature].clone();
            self.pair(signature, (&many_frame.names[many], &group), row, filled.as_ref())?;
        }
        Ok(())
    }

    /// Pairs a row of the "one" side with the fill value where it met no other.
    fn fill_lonely(
        &mut self,
        signature: usize,
        one: usize,
        met: &[u64],
        fill: f64,
    ) -> Result<(), QueryError> {
        let one_frame = self.one;
        let row = one_frame.row(one);
        let lonely: Vec<u64> = row.present.iter().zip(met).map(|(a, b)| a & !b).collect();
        if lonely.iter().all(|word| *word == 0) {
            return Ok(());
        }
        let filled = filled_row(self.steps, fill, lonely);
        let name = Name::keep(self.matched.signatures[signature].clone());
        self.pair(signature, (&name, &one_frame.names[one].labels), filled.as_ref(), row)
    }

    /// Computes a row of the many side with one of the one side where both are present.
    fn pair(
        &mut self,
        signature: usize,
        (many_name, one_labels): (&Name, &Labels),
        many: RowRef<'_>,
        one: RowRef<'_>,
    ) -> Result<(), QueryError> {
        let both: Vec<u64> = many.present.iter().zip(one.present).map(|(a, b)| a & b).collect();
        if both.iter().all(|word| *word == 0) {
            return Ok(());
        }
        let (lhs, rhs) = if self.swapped { (one, many) } else { (many, one) };
        let mut result = Row::default();
        result.reset(self.steps);
        let computed = compute_row(self.plan, lhs, rhs, &both, self.pos, &mut result, &mut self.notes);
        self.emit(signature, self.result_name(many_name, one_labels), computed, &result)
    }

    /// Adds a pair's result to the row of its labels.
    fn emit(
        &mut self,
        signature: usize,
        name: Name,
        computed: Vec<u64>,
        result: &Row,
    ) -> Result<(), QueryError> {
        let place = self.table.place(name, &self.guard)?;
        if place == self.taken.len() {
            self.taken.push(Taken { steps: computed, signature });
            return merge_row(self.table.row(place), result.as_ref());
        }
        let taken = &mut self.taken[place];
        let again = taken.steps.iter().zip(&computed).any(|(a, b)| a & b != 0);
        if again && taken.signature == signature && self.matching.cardinality != Cardinality::OneToOne {
            return Err(QueryError::Execution(
                "multiple matches for labels: grouping labels must ensure unique matches".to_owned(),
            ));
        }
        taken.steps.iter_mut().zip(&computed).for_each(|(a, b)| *a |= b);
        merge_row(self.table.row(place), result.as_ref())
    }

    /// The labels of a result: those of the many side, of which only the matching ones are left
    /// where both sides have one, and those that are taken from the one side.
    fn result_name(&self, many: &Name, one: &Labels) -> Name {
        let drops = changes_meaning(self.plan.op) || self.plan.return_bool && !self.delayed;
        let one_to_one = self.matching.cardinality == Cardinality::OneToOne;
        let listed = |name: &str| self.matching.labels.iter().any(|label| label == name);
        let kept = many
            .labels
            .without(|name| drops && is_metadata(name) || one_to_one && listed(name) != self.matching.on);
        let drop = many.drop || self.plan.return_bool && self.delayed;
        if self.matching.include.is_empty() {
            return Name { labels: kept, drop };
        }
        let mut labels = kept.to_builder();
        for name in &self.matching.include {
            labels.set(name, one.get(name).unwrap_or_default());
        }
        Name { labels: labels.build(), drop }
    }
}

/// The steps at which any row of a frame is present.
fn union(frame: &Frame, steps: usize) -> Vec<u64> {
    let mut union = vec![0u64; words(steps)];
    for (_, row) in frame.rows() {
        union.iter_mut().zip(row.present).for_each(|(a, b)| *a |= b);
    }
    union
}

/// A row of one value at the steps of `present`.
fn filled_row(steps: usize, value: f64, present: Vec<u64>) -> Row {
    Row { values: vec![value; steps], present, histograms: Vec::new() }
}

/// Computes the steps of `both` into `result`, which has those that pass. Returns the steps at
/// which there was anything to compute.
fn compute_row(
    plan: &Binary,
    lhs: RowRef<'_>,
    rhs: RowRef<'_>,
    both: &[u64],
    pos: PosRange,
    result: &mut Row,
    notes: &mut Notes,
) -> Vec<u64> {
    let mut computed = both.to_vec();
    if lhs.histograms.is_empty() && rhs.histograms.is_empty() && compute_floats(plan, lhs, rhs, both, result)
    {
        return computed;
    }
    for step in crate::row::set_steps(both) {
        let (Some(left), Some(right)) = (lhs.get(step), rhs.get(step)) else { continue };
        match compute(plan.op, left.into(), right.into(), pos, notes) {
            None => clear_bit(&mut computed, step),
            Some(Outcome::Float(value)) => result.set(step, value),
            Some(Outcome::Histogram(histogram)) => result.set_histogram(step, Arc::new(histogram)),
            Some(Outcome::Holds(holds)) if plan.return_bool => {
                result.set(step, f64::from(u8::from(holds)));
            }
            Some(Outcome::Holds(false)) => {}
            Some(Outcome::Holds(true)) => match left {
                Cell::Float(value) => result.set(step, value),
                Cell::Histogram(histogram) => result.set_histogram(step, Arc::clone(histogram)),
            },
        }
    }
    computed
}

/// The loops for floats alone. `false` for operators that have none.
fn compute_floats(plan: &Binary, lhs: RowRef<'_>, rhs: RowRef<'_>, both: &[u64], result: &mut Row) -> bool {
    use BinaryOp as B;
    let Row { values, present, .. } = result;
    present.copy_from_slice(both);
    let pairs = values.iter_mut().zip(lhs.values.iter().zip(rhs.values));
    match plan.op {
        B::Add => pairs.for_each(|(value, (a, b))| *value = a + b),
        B::Sub => pairs.for_each(|(value, (a, b))| *value = a - b),
        B::Mul => pairs.for_each(|(value, (a, b))| *value = a * b),
        B::Div => pairs.for_each(|(value, (a, b))| *value = a / b),
        B::Mod | B::Pow | B::Atan2 => {
            pairs.for_each(|(value, (a, b))| *value = super::scalar_op(plan.op, *a, *b));
        }
        op if op.is_comparison() => {
            for (step, (value, (a, b))) in pairs.enumerate() {
                let holds = super::scalar_op(op, *a, *b);
                *value = if plan.return_bool { holds } else { *a };
                if holds == 0.0 && !plan.return_bool {
                    clear_bit(present, step);
                }
            }
        }
        _ => {
            present.fill(0);
            return false;
        }
    }
    true
}
