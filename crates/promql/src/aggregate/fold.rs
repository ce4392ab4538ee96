//! Aggregations that fold each sample into a state: `sum`, `avg`, `min`, `max`, `count`, `group`,
//! `stddev`, `stdvar`.
//!
//! States are columns: one array for each part, groups × steps long. A worker folds its rows into
//! states of its own; at the end these are merged in the order of the rows.

use std::sync::Arc;

use tidewatch_model::FloatHistogram;
use tidewatch_model::histogram::{CounterResetHint, kahan_inc};
use tidewatch_parser::{AggregateOp, PosRange};

use super::{Groups, drops_name, name_of};
use crate::context::QueryError;
use crate::eval::Evaluator;
use crate::frame::Frame;
use crate::guard::{Charge, Guard};
use crate::notes::{Notes, Operation};
use crate::plan::Aggregate;
use crate::row::{Row, bit, set_steps};
use crate::stream::Stream;

pub(super) fn eval(
    evaluator: &mut Evaluator<'_>,
    plan: &Aggregate,
    stream: Stream,
) -> Result<Frame, QueryError> {
    let groups = Groups::new(evaluator, plan, &stream)?;
    let steps = stream.grid.count;
    let (op, pos, guard) = (plan.op, plan.input.pos, evaluator.guard.clone());
    let parts = stream.fold(
        evaluator,
        || States::new(op, groups.len() * steps, &guard),
        |states, i, row, notes| {
            let first = groups.of_row[i] as usize * steps;
            states.fold(first, row, pos, stream.base_labels(i), notes);
            Ok(())
        },
    )?;
    let mut parts = parts.into_iter();
    let mut states = parts.next().expect("at least one worker");
    for part in parts {
        states.merge(part, pos, &mut evaluator.notes);
    }
    let mut drop = vec![false; groups.len()];
    if evaluator.options.delayed_name_removal {
        for (row, group) in groups.of_row.iter().enumerate() {
            drop[*group as usize] |= drops_name(evaluator, &stream, row);
        }
    }
    let mut frame = Frame::new(steps);
    let mut row = Row::default();
    for (group, labels) in groups.names.iter().enumerate() {
        row.reset(steps);
        for step in 0..steps {
            states.finish(group * steps + step, step, pos, &mut row, &mut evaluator.notes);
        }
        if !row.is_empty() {
            frame.push(name_of(labels, drop[group]), row.as_ref(), &evaluator.guard)?;
        }
    }
    Ok(frame)
}

/// States of all groups at all steps. Which columns are in use depends on the operation.
struct States {
    op: AggregateOp,
    /// Samples folded, by place.
    counts: Vec<f64>,
    /// The sum, the extreme, or the squared distances.
    values: Vec<f64>,
    /// What the sum has rounded away; the mean's compensation once that is incremental.
    compensations: Vec<f64>,
    /// The mean: of `stddev`, or of `avg` once its sum has overflown.
    means: Vec<f64>,
    /// Places of `avg` that have gone over to an incremental mean.
    incremental: Vec<u64>,
    /// Empty until a histogram comes.
    histograms: Vec<Option<Box<HistogramState>>>,
    _charge: Charge,
}

/// The histograms of one group at one step.
struct HistogramState {
    value: FloatHistogram,
    compensation: FloatHistogram,
    count: f64,
    /// The value is a mean and no longer a sum.
    incremental: bool,
    reset: bool,
    not_reset: bool,
    incompatible: bool,
}

impl States {
    fn new(op: AggregateOp, places: usize, guard: &Guard) -> Result<States, QueryError> {
        use AggregateOp as A;
        let column = |wanted: bool| vec![0.0; if wanted { places } else { 0 }];
        let spread = matches!(op, A::Stddev | A::Stdvar);
        let sums = matches!(op, A::Sum | A::Avg);
        let columns = 1 + usize::from(!matches!(op, A::Count | A::Group)) + 2 * usize::from(sums);
        let charge = guard.charge((columns * places * 8) as u64, (places / 2) as u64)?;
        Ok(States {
            op,
            counts: column(true),
            values: column(!matches!(op, A::Count | A::Group)),
            compensations: column(sums),
            means: column(spread || op == A::Avg),
            incremental: vec![0; if op == A::Avg { places.div_ceil(64) } else { 0 }],
            histograms: Vec::new(),
            _charge: charge,
        })
    }

    fn fold(
        &mut self,
        first: usize,
        row: &Row,
        pos: PosRange,
        labels: &tidewatch_model::Labels,
        notes: &mut Notes,
    ) {
        use AggregateOp as A;
        if row.histograms.is_empty() {
            return self.fold_floats(first, row);
        }
        for step in set_steps(&row.present) {
            let place = first + step;
            match (&row.histograms[step], self.op) {
                (None, _) => self.fold_float(place, row.values[step]),
                (Some(_), A::Count | A::Group) => self.counts[place] += 1.0,
                (Some(histogram), A::Sum | A::Avg) => {
                    self.fold_histogram(place, histogram, pos, labels, notes);
                }
                (Some(_), op) => notes.histogram_ignored_in_aggregation(op.as_str(), pos),
            }
        }
    }

    /// The operation is decided once a row, so that the loops are of one operation each.
    fn fold_floats(&mut self, first: usize, row: &Row) {
        let places = first..first + row.values.len();
        let present = set_steps(&row.present).map(|step| (step, row.values[step]));
        match self.op {
            AggregateOp::Sum => {
                let counts = &mut self.counts[places.clone()];
                let (sums, rests) = (&mut self.values[places.clone()], &mut self.compensations[places]);
                if row.is_full() {
                    counts.iter_mut().for_each(|count| *count += 1.0);
                    let states = sums.iter_mut().zip(rests);
                    states.zip(&row.values).for_each(|((sum, rest), value)| kahan_inc(*value, sum, rest));
                    return;
                }
                for (step, value) in present {
                    counts[step] += 1.0;
                    kahan_inc(value, &mut sums[step], &mut rests[step]);
                }
            }
            AggregateOp::Count | AggregateOp::Group => {
                let counts = &mut self.counts[places];
                match row.is_full() {
                    true => counts.iter_mut().for_each(|count| *count += 1.0),
                    false => present.for_each(|(step, _)| counts[step] += 1.0),
                }
            }
            _ => present.for_each(|(step, value)| self.fold_float(first + step, value)),
        }
    }

    #[inline]
    fn fold_float(&mut self, place: usize, value: f64) {
        use AggregateOp as A;
        let count = self.counts[place];
        self.counts[place] = count + 1.0;
        match self.op {
            A::Count | A::Group => {}
            _ if count == 0.0 => self.first_float(place, value),
            A::Sum => kahan_inc(value, &mut self.values[place], &mut self.compensations[place]),
            A::Avg => self.fold_avg(place, value, count),
            A::Max => {
                let max = &mut self.values[place];
                *max = if *max < value || max.is_nan() { value } else { *max };
            }
            A::Min => {
                let min = &mut self.values[place];
                *min = if *min > value || min.is_nan() { value } else { *min };
            }
            _ => {
                let delta = value - self.means[place];
                self.means[place] += delta / (count + 1.0);
                self.values[place] += delta * (value - self.means[place]);
            }
        }
    }

    fn first_float(&mut self, place: usize, value: f64) {
        if let AggregateOp::Stddev | AggregateOp::Stdvar = self.op {
            self.values[place] = if value.is_finite() { 0.0 } else { f64::NAN };
            self.means[place] = value;
        } else {
            self.values[place] = value;
        }
    }

    fn fold_avg(&mut self, place: usize, value: f64, count: f64) {
        if !bit(&self.incremental, place) {
            let (mut sum, mut compensation) = (self.values[place], self.compensations[place]);
            kahan_inc(value, &mut sum, &mut compensation);
            if !sum.is_infinite() {
                (self.values[place], self.compensations[place]) = (sum, compensation);
                return;
            }
            self.make_incremental(place, count);
        }
        let q = count / (count + 1.0);
        self.means[place] *= q;
        self.compensations[place] *= q;
        kahan_inc(value / (count + 1.0), &mut self.means[place], &mut self.compensations[place]);
    }

    fn make_incremental(&mut self, place: usize, count: f64) {
        crate::row::set_bit(&mut self.incremental, place);
        self.means[place] = self.values[place] / count;
        self.compensations[place] /= count;
    }

    fn fold_histogram(
        &mut self,
        place: usize,
        histogram: &Arc<FloatHistogram>,
        pos: PosRange,
        labels: &tidewatch_model::Labels,
        notes: &mut Notes,
    ) {
        if self.histograms.is_empty() {
            self.histograms.resize_with(self.counts.len(), || None);
        }
        let average = self.op == AggregateOp::Avg;
        match &mut self.histograms[place] {
            Some(state) => state.add(histogram, average, pos, labels, notes),
            slot => *slot = Some(Box::new(HistogramState::new(histogram))),
        }
    }

    /// Takes in the states of the rows that come after.
    fn merge(&mut self, other: States, pos: PosRange, notes: &mut Notes) {
        for place in 0..self.counts.len() {
            let (a, b) = (self.counts[place], other.counts[place]);
            if b > 0.0 {
                self.counts[place] = a + b;
                self.merge_place(&other, place, a, b);
            }
        }
        if other.histograms.is_empty() {
            return;
        }
        if self.histograms.is_empty() {
            self.histograms = other.histograms;
            return;
        }
        let average = self.op == AggregateOp::Avg;
        for (mine, theirs) in self.histograms.iter_mut().zip(other.histograms) {
            match (mine, theirs) {
                (_, None) => {}
                (mine @ None, theirs) => *mine = theirs,
                (Some(mine), Some(theirs)) => mine.merge(*theirs, average, pos, notes),
            }
        }
    }

    fn merge_place(&mut self, other: &States, place: usize, a: f64, b: f64) {
        use AggregateOp as A;
        match self.op {
            A::Count | A::Group => {}
            _ if a == 0.0 => self.take(other, place),
            A::Sum => {
                kahan_inc(other.values[place], &mut self.values[place], &mut self.compensations[place]);
                if self.values[place].is_finite() {
                    self.compensations[place] += other.compensations[place];
                }
            }
            A::Avg => self.merge_avg(other, place, a, b),
            A::Max => {
                let (mine, theirs) = (self.values[place], other.values[place]);
                self.values[place] = if mine < theirs || mine.is_nan() { theirs } else { mine };
            }
            A::Min => {
                let (mine, theirs) = (self.values[place], other.values[place]);
                self.values[place] = if mine > theirs || mine.is_nan() { theirs } else { mine };
            }
            _ => {
                let delta = other.means[place] - self.means[place];
                self.means[place] += delta * b / (a + b);
                self.values[place] += other.values[place] + delta * delta * a * b / (a + b);
            }
        }
    }

    fn take(&mut self, other: &States, place: usize) {
        self.values[place] = other.values[place];
        for (mine, theirs) in
            [(&mut self.compensations, &other.compensations), (&mut self.means, &other.means)]
        {
            if let Some(value) = theirs.get(place) {
                mine[place] = *value;
            }
        }
        if !self.incremental.is_empty() && bit(&other.incremental, place) {
            crate::row::set_bit(&mut self.incremental, place);
        }
    }

    fn merge_avg(&mut self, other: &States, place: usize, a: f64, b: f64) {
        let mine = bit(&self.incremental, place);
        let theirs = bit(&other.incremental, place);
        if !mine && !theirs {
            let (mut sum, mut compensation) = (self.values[place], self.compensations[place]);
            kahan_inc(other.values[place], &mut sum, &mut compensation);
            if sum.is_finite() {
                self.values[place] = sum;
                self.compensations[place] = compensation + other.compensations[place];
                return;
            }
        }
        if !mine {
            self.make_incremental(place, a);
        }
        let (mean, compensation) = if theirs {
            (other.means[place], other.compensations[place])
        } else {
            (other.values[place] / b, other.compensations[place] / b)
        };
        let (q, p) = (a / (a + b), b / (a + b));
        self.means[place] = self.means[place] * q + mean * p;
        self.compensations[place] = self.compensations[place] * q + compensation * p;
    }

    /// Writes the result of a place to `row`.
    fn finish(&mut self, place: usize, step: usize, pos: PosRange, row: &mut Row, notes: &mut Notes) {
        use AggregateOp as A;
        let count = self.counts[place];
        if let Some(state) = self.histograms.get_mut(place).and_then(Option::take) {
            if count > 0.0 {
                return notes.mixed_aggregation(pos);
            }
            if let Some(histogram) = state.finish(self.op == A::Avg, pos, notes) {
                row.set_histogram(step, Arc::new(histogram));
            }
            return;
        }
        if count == 0.0 {
            return;
        }
        let value = match self.op {
            A::Count => count,
            A::Group => 1.0,
            A::Sum => self.values[place] + self.compensations[place],
            A::Avg if bit(&self.incremental, place) => self.means[place] + self.compensations[place],
            A::Avg => self.values[place] / count + self.compensations[place] / count,
            A::Stdvar => self.values[place] / count,
            A::Stddev => (self.values[place] / count).sqrt(),
            _ => self.values[place],
        };
        row.set(step, value);
    }
}

impl HistogramState {
    fn new(histogram: &FloatHistogram) -> HistogramState {
        let mut state = HistogramState {
            value: histogram.clone(),
            compensation: histogram.compensation(),
            count: 1.0,
            incremental: false,
            reset: false,
            not_reset: false,
            incompatible: false,
        };
        state.see(histogram.hint);
        state
    }

    fn see(&mut self, hint: CounterResetHint) {
        self.reset |= hint == CounterResetHint::Reset;
        self.not_reset |= hint == CounterResetHint::NotReset;
    }

    fn add(
        &mut self,
        histogram: &FloatHistogram,
        average: bool,
        pos: PosRange,
        labels: &tidewatch_model::Labels,
        notes: &mut Notes,
    ) {
        if self.incompatible {
            return;
        }
        self.see(histogram.hint);
        let outcome = if average {
            self.add_to_mean(histogram)
        } else {
            self.count += 1.0;
            self.value.kahan_add(histogram, &mut self.compensation).map(|r| r.custom_bounds)
        };
        match outcome {
            Ok(true) => notes.bounds_reconciled(Operation::Aggregation, pos),
            Ok(false) => {}
            Err(_) => {
                notes.mixed_exponential_custom(labels, pos);
                self.incompatible = true;
            }
        }
    }

    fn add_to_mean(
        &mut self,
        histogram: &FloatHistogram,
    ) -> Result<bool, tidewatch_model::histogram::IncompatibleSchemas> {
        let before = self.count;
        self.count += 1.0;
        if !self.incremental {
            let (mut sum, mut compensation) = (self.value.clone(), self.compensation.clone());
            let reconciled = sum.kahan_add(histogram, &mut compensation)?;
            if !sum.has_overflow() {
                (self.value, self.compensation) = (sum, compensation);
                return Ok(reconciled.custom_bounds);
            }
            self.make_incremental(before);
        }
        let q = before / self.count;
        let mut part = histogram.clone();
        part.div(self.count);
        self.value.mul(q);
        self.compensation.mul(q);
        Ok(self.value.kahan_add(&part, &mut self.compensation)?.custom_bounds)
    }

    fn make_incremental(&mut self, count: f64) {
        self.incremental = true;
        self.value.div(count);
        self.compensation.div(count);
    }

    fn merge(&mut self, mut other: HistogramState, average: bool, pos: PosRange, notes: &mut Notes) {
        self.reset |= other.reset;
        self.not_reset |= other.not_reset;
        self.incompatible |= other.incompatible;
        if self.incompatible {
            return;
        }
        let (a, b) = (self.count, other.count);
        self.count = a + b;
        if average {
            // As means, weighted: neither can overflow.
            for state in [(&mut *self, a), (&mut other, b)] {
                if !state.0.incremental {
                    state.0.make_incremental(state.1);
                }
            }
            self.value.mul(a / (a + b));
            self.compensation.mul(a / (a + b));
            other.value.mul(b / (a + b));
            other.compensation.mul(b / (a + b));
        }
        for part in [&other.value, &other.compensation] {
            match self.value.kahan_add(part, &mut self.compensation) {
                Ok(reconciled) if reconciled.custom_bounds => {
                    notes.bounds_reconciled(Operation::Aggregation, pos);
                }
                Ok(_) => {}
                Err(_) => {
                    notes.mixed_exponential_custom(&tidewatch_model::Labels::empty(), pos);
                    self.incompatible = true;
                    return;
                }
            }
        }
    }

    fn finish(mut self, average: bool, pos: PosRange, notes: &mut Notes) -> Option<FloatHistogram> {
        if self.incompatible {
            return None;
        }
        if self.reset && self.not_reset {
            notes.reset_collision(Operation::Aggregation, pos);
        }
        if average && !self.incremental {
            self.value.div(self.count);
            self.compensation.div(self.count);
        }
        if self.count > 1.0 {
            self.value.add(&self.compensation).ok()?;
        }
        self.value.compact();
        Some(self.value)
    }
}
