//! `histogram_quantile`, `histogram_quantiles` and `histogram_fraction`, of classic buckets and of
//! native histograms.
//!
//! Classic buckets are rows that differ in the label `le` alone: they are grouped by their other
//! labels once, and each group becomes a row. A native histogram with the same labels as a group
//! contradicts it, and neither gives anything at that step.

use hashbrown::HashMap;
use tidewatch_model::histogram::format_g;
use tidewatch_model::{Labels, METRIC_NAME};
use tidewatch_parser::{FunctionId, PosRange};

use super::{is_vector, text};
use crate::context::QueryError;
use crate::eval::Evaluator;
use crate::frame::{Frame, Name};
use crate::grid::Grid;
use crate::notes::{Monotonicity, Notes};
use crate::plan::Node;
use crate::quantile::{ClassicBucket, classic_fraction, classic_quantile, native_fraction, native_quantile};
use crate::row::{Cell, Row, bit};
use crate::stream::Strip;

const BUCKET: &str = "le";

/// What is asked of each histogram.
enum Question {
    Quantile(Vec<f64>),
    Fraction(Vec<f64>, Vec<f64>),
}

/// A question with the label that tells its answers apart, where there are several.
struct Asked {
    question: Question,
    label: Option<(String, Vec<String>)>,
}

pub(super) fn buckets_call(
    evaluator: &mut Evaluator<'_>,
    id: FunctionId,
    args: &[Node],
    grid: Grid,
) -> Result<Frame, QueryError> {
    let asked = questions(evaluator, id, args, grid)?;
    let vector = args.iter().find(|arg| is_vector(arg)).expect("the parser has checked types");
    let input = evaluator.rows(vector, grid)?;
    let pos = vector.pos;
    let mut notes = std::mem::take(&mut evaluator.notes);
    let delayed = evaluator.options.delayed_name_removal;
    let histograms = Histograms::group(&input, pos, delayed, &mut notes);
    let mut answers = Frame::new(grid.count);
    for asked in &asked {
        let answered = histograms.answer(evaluator, asked, grid, pos, &mut notes, &mut answers);
        if let Err(error) = answered {
            evaluator.notes = notes;
            return Err(error);
        }
    }
    evaluator.notes = notes;
    evaluator.strip_frame(answers, Strip::Metadata)
}

fn questions(
    evaluator: &mut Evaluator<'_>,
    id: FunctionId,
    args: &[Node],
    grid: Grid,
) -> Result<Vec<Asked>, QueryError> {
    if id == FunctionId::HistogramFraction {
        let bounds = (evaluator.scalar(&args[0], grid)?, evaluator.scalar(&args[1], grid)?);
        return Ok(vec![Asked { question: Question::Fraction(bounds.0, bounds.1), label: None }]);
    }
    let several = id == FunctionId::HistogramQuantiles;
    let quantiles = if several { &args[2..] } else { &args[..1] };
    let mut asked = Vec::new();
    for arg in quantiles {
        let values = evaluator.scalar(arg, grid)?;
        for q in values.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
            evaluator.notes.invalid_quantile(*q, arg.pos);
        }
        let label = several
            .then(|| (text(&args[1]).to_owned(), values.iter().map(|q| open_metrics_float(*q)).collect()));
        asked.push(Asked { question: Question::Quantile(values), label });
    }
    Ok(asked)
}

/// A number as OpenMetrics writes it: never without a dot or an exponent.
fn open_metrics_float(value: f64) -> String {
    let text = format_g(value);
    let plain = value.is_finite() && !text.contains(['.', 'e']);
    if plain { format!("{text}.0") } else { text }
}

/// Rows that are buckets of one classic histogram.
struct Group {
    name: Name,
    /// Upper bound and row.
    buckets: Vec<(f64, usize)>,
}

struct Histograms<'a> {
    input: &'a Frame,
    groups: Vec<Group>,
    /// Rows with native histograms, and the group that has their labels.
    native: Vec<(usize, Option<usize>)>,
}

impl<'a> Histograms<'a> {
    fn group(input: &'a Frame, pos: PosRange, delayed: bool, notes: &mut Notes) -> Histograms<'a> {
        let mut groups: Vec<Group> = Vec::new();
        let mut by_signature: HashMap<Labels, usize> = HashMap::new();
        for (i, (name, row)) in input.rows().enumerate() {
            let has_float =
                crate::row::set_steps(row.present).any(|step| matches!(row.get(step), Some(Cell::Float(_))));
            if !has_float {
                continue;
            }
            let bound = name.labels.get(BUCKET).unwrap_or_default();
            let Some(upper) = parse_bound(bound) else {
                notes.bad_bucket_label(name.labels.metric_name().unwrap_or_default(), bound, pos);
                continue;
            };
            let signature = name.labels.without(|label| label == BUCKET);
            let group = *by_signature.entry(signature.clone()).or_insert_with(|| {
                let labels = match delayed {
                    true => signature.clone(),
                    false => signature.without(|label| label == METRIC_NAME),
                };
                let name = Name { labels, drop: name.drop };
                groups.push(Group { name, buckets: Vec::new() });
                groups.len() - 1
            });
            groups[group].buckets.push((upper, i));
        }
        let native = input.rows().enumerate().filter(|(_, (_, row))| !row.histograms.is_empty());
        let native = native.map(|(i, (name, _))| (i, by_signature.get(&name.labels).copied())).collect();
        Histograms { input, groups, native }
    }

    fn answer(
        &self,
        evaluator: &Evaluator<'_>,
        asked: &Asked,
        grid: Grid,
        pos: PosRange,
        notes: &mut Notes,
        answers: &mut Frame,
    ) -> Result<(), QueryError> {
        let mut mixed = vec![0u64; self.groups.len() * crate::row::words(grid.count)];
        let words = crate::row::words(grid.count);
        let mut row = Row::default();
        for (i, group) in &self.native {
            evaluator.guard.check()?;
            self.answer_native(*i, *group, asked, pos, &mut mixed, words, &mut row, notes);
            push(evaluator, answers, &self.input.names[*i], asked, &row)?;
        }
        let mut buckets = Vec::new();
        for (number, group) in self.groups.iter().enumerate() {
            evaluator.guard.check()?;
            row.reset(grid.count);
            let mixed = &mixed[number * words..(number + 1) * words];
            for step in (0..grid.count).filter(|step| !bit(mixed, *step)) {
                buckets.clear();
                buckets.extend(group.buckets.iter().filter_map(
                    |(upper, i)| match self.input.row(*i).get(step) {
                        Some(Cell::Float(count)) => Some(ClassicBucket { upper: *upper, count }),
                        _ => None,
                    },
                ));
                if !buckets.is_empty() {
                    let value = ask_classic(asked, group, &mut buckets, step, grid, pos, notes);
                    row.set(step, value);
                }
            }
            push(evaluator, answers, &group.name, asked, &row)?;
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn answer_native(
        &self,
        i: usize,
        group: Option<usize>,
        asked: &Asked,
        pos: PosRange,
        mixed: &mut [u64],
        words: usize,
        row: &mut Row,
        notes: &mut Notes,
    ) {
        let cells = self.input.row(i);
        let name = self.input.names[i].labels.metric_name().unwrap_or_default();
        row.reset(cells.values.len());
        for step in crate::row::set_steps(cells.present) {
            let Some(Cell::Histogram(histogram)) = cells.get(step) else { continue };
            let has_buckets = |group: usize| {
                self.groups[group].buckets.iter().any(|(_, i)| bit(self.input.row(*i).present, step))
            };
            if let Some(group) = group.filter(|group| has_buckets(*group)) {
                notes.mixed_classic_native(name, pos);
                crate::row::set_bit(&mut mixed[group * words..(group + 1) * words], step);
                continue;
            }
            let value = match &asked.question {
                Question::Quantile(q) => native_quantile(q[step], histogram, name, pos, notes),
                Question::Fraction(lower, upper) => {
                    native_fraction(lower[step], upper[step], histogram, name, pos, notes)
                }
            };
            row.set(step, value);
        }
    }
}

fn ask_classic(
    asked: &Asked,
    group: &Group,
    buckets: &mut Vec<ClassicBucket>,
    step: usize,
    grid: Grid,
    pos: PosRange,
    notes: &mut Notes,
) -> f64 {
    match &asked.question {
        Question::Fraction(lower, upper) => classic_fraction(lower[step], upper[step], buckets),
        Question::Quantile(q) => {
            let (value, mended) = classic_quantile(q[step], buckets);
            if let Some(mended) = mended {
                let name = group.name.labels.metric_name().unwrap_or_default();
                let time = grid.time(step);
                let details = Monotonicity {
                    bucket_min: mended.bucket_min,
                    bucket_max: mended.bucket_max,
                    difference_max: mended.difference_max,
                    samples: 1,
                    time_min: time,
                    time_max: time,
                };
                notes.forced_monotonicity(name, pos, details);
            }
            value
        }
    }
}

/// Appends a row of answers; where the label that tells them apart changes with the step, a row
/// for each of its values.
fn push(
    evaluator: &Evaluator<'_>,
    answers: &mut Frame,
    name: &Name,
    asked: &Asked,
    row: &Row,
) -> Result<(), QueryError> {
    let Some((label, values)) = &asked.label else {
        if !row.is_empty() {
            answers.push(name.clone(), row.as_ref(), &evaluator.guard)?;
        }
        return Ok(());
    };
    let mut distinct: Vec<&String> = values.iter().collect();
    distinct.sort();
    distinct.dedup();
    for value in distinct {
        let mut part = row.clone();
        (0..values.len()).filter(|step| &values[*step] != value).for_each(|step| part.remove(step));
        if part.is_empty() {
            continue;
        }
        let mut labels = name.labels.to_builder();
        labels.set(label, value);
        let name = Name { labels: labels.build(), drop: name.drop };
        answers.push(name, part.as_ref(), &evaluator.guard)?;
    }
    Ok(())
}

/// A bound as Go's `ParseFloat` reads it.
fn parse_bound(text: &str) -> Option<f64> {
    if text.is_empty() || text.contains(char::is_whitespace) {
        return None;
    }
    text.parse().ok()
}
