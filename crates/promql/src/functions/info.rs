//! `info(v, {…})`: adds to each row the data labels of the info series that belong to it.
//!
//! An info series belongs to a row when both have the same `instance` and `job`. Where several
//! of one metric do, the one with the newest sample counts.

use std::sync::Arc;

use hashbrown::HashMap;
use tidewatch_model::{Labels, LabelsBuilder, METRIC_NAME, MatchOp, Matcher};

use crate::context::QueryError;
use crate::eval::Evaluator;
use crate::frame::{Frame, Name};
use crate::grid::Grid;
use crate::instant::Pick;
use crate::plan::{Kind, MatrixSource, Node, Selector, Shift};
use crate::row::Cell;
use crate::stream::Stream;
use crate::table::Table;

const IDENTIFYING: [&str; 2] = ["instance", "job"];

pub(super) fn info(evaluator: &mut Evaluator<'_>, args: &[Node], grid: Grid) -> Result<Frame, QueryError> {
    let base = evaluator.rows(&args[0], grid)?;
    let given: Vec<Matcher> = match args.get(1).map(|arg| &arg.kind) {
        Some(Kind::Select(selector)) => selector.matchers.to_vec(),
        Some(Kind::Invariant(inner)) => match &inner.kind {
            Kind::Select(selector) => selector.matchers.to_vec(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    let (mut names, data): (Vec<_>, Vec<_>) = given.into_iter().partition(|m| m.name() == METRIC_NAME);
    let positive = |matcher: &Matcher| matches!(matcher.op(), MatchOp::Equal | MatchOp::Regex);
    if names.is_empty() {
        names.push(Matcher::equal(METRIC_NAME, "target_info"));
    } else if !names.iter().any(positive) {
        // Conditions that only rule names out are about info metrics all the same.
        let all = Matcher::new(MatchOp::Regex, METRIC_NAME, ".+_info").expect("a valid pattern");
        names.push(all);
    }
    let is_info = |labels: &Labels| {
        let name = labels.metric_name().unwrap_or_default();
        names.iter().all(|matcher| matcher.matches(name))
    };
    let plain: Vec<bool> = base.names.iter().map(|name| is_info(&name.labels)).collect();
    let series = fetch(evaluator, &args[0], &base, &plain, &names, &data, grid)?;
    combine(evaluator, &base, &plain, &series, &data, grid)
}

/// The info series that may belong to a row of `base`, with the times of their samples.
fn fetch(
    evaluator: &mut Evaluator<'_>,
    arg: &Node,
    base: &Frame,
    plain: &[bool],
    names: &[Matcher],
    data: &[Matcher],
    grid: Grid,
) -> Result<Frame, QueryError> {
    let enriched = || base.names.iter().zip(plain).filter(|(_, plain)| !**plain).map(|(name, _)| name);
    let mut matchers: Vec<Matcher> = names.iter().chain(data).cloned().collect();
    let mut identified = false;
    for label in IDENTIFYING {
        let mut values: Vec<&str> = enriched().filter_map(|name| name.labels.get(label)).collect();
        values.sort_unstable();
        values.dedup();
        if values.is_empty() {
            continue;
        }
        identified = true;
        // A pattern that names each of very many values would be refused: then all are fetched,
        // and those that belong to no row are not used.
        let pattern: Vec<String> = values.iter().map(|value| escape(value)).collect();
        if let Ok(matcher) = Matcher::new(MatchOp::Regex, label, &pattern.join("|")) {
            matchers.push(matcher);
        }
    }
    if !identified {
        return Ok(Frame::new(grid.count));
    }
    let selector =
        Selector { matchers: Arc::from(matchers), shift: shift_of(arg), modifier: None, counts_only: false };
    let values = Stream::of_selector(evaluator, &selector, arg, grid, Pick::Value)?.collect(evaluator)?;
    for (name, row) in values.rows() {
        if !row.histograms.is_empty() {
            return Err(QueryError::Execution(format!(
                "this should be an info metric, with float samples: {}",
                name.labels
            )));
        }
    }
    Stream::of_selector(evaluator, &selector, arg, grid, Pick::Time)?.collect(evaluator)
}

/// A text as a pattern that matches it alone.
fn escape(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// The info series are looked at when the first selector of the argument is.
fn shift_of(node: &Node) -> Shift {
    first_shift(node).unwrap_or(Shift { at: None, offset: 0 })
}

/// Recursion is bounded: the parser limits the depth of a tree.
fn first_shift(node: &Node) -> Option<Shift> {
    match &node.kind {
        Kind::Select(selector) => Some(selector.shift),
        Kind::Number(_) | Kind::Text(_) => None,
        Kind::Matrix(matrix) => Some(matrix.shift),
        Kind::Call { args, .. } => args.iter().find_map(first_shift),
        Kind::Window(window) => match &window.matrix.source {
            MatrixSource::Selector(_) => Some(window.matrix.shift),
            MatrixSource::Subquery { node, .. } => first_shift(node),
        },
        Kind::Negate(inner) | Kind::Invariant(inner) => first_shift(inner),
        Kind::Binary(binary) => first_shift(&binary.lhs).or_else(|| first_shift(&binary.rhs)),
        Kind::Aggregate(aggregate) => first_shift(&aggregate.input),
    }
}

/// Values of the identifying labels: what a row and its info series share.
fn signature(labels: &Labels) -> [String; 2] {
    IDENTIFYING.map(|label| labels.get(label).unwrap_or_default().to_owned())
}

fn combine(
    evaluator: &Evaluator<'_>,
    base: &Frame,
    plain: &[bool],
    series: &Frame,
    data: &[Matcher],
    grid: Grid,
) -> Result<Frame, QueryError> {
    let mut by_signature: HashMap<[String; 2], Vec<usize>> = HashMap::new();
    for (i, name) in series.names.iter().enumerate() {
        by_signature.entry(signature(&name.labels)).or_default().push(i);
    }
    let requires = data.iter().any(|matcher| !matcher.matches_empty());
    let mut table = Table::new(grid.count);
    for (i, (name, row)) in base.rows().enumerate() {
        evaluator.guard.check()?;
        let candidates = by_signature.get(&signature(&name.labels)).map_or(&[][..], Vec::as_slice);
        let mut labels_at: HashMap<Vec<usize>, Option<Labels>> = HashMap::new();
        for step in crate::row::set_steps(row.present) {
            let labels = if plain[i] {
                Some(name.labels.clone())
            } else {
                evaluator.guard.check()?;
                let newest = newest(series, candidates, step)?;
                let known = labels_at.get(&newest).cloned();
                match known {
                    Some(labels) => labels,
                    None => {
                        let labels = enrich(&name.labels, series, &newest, data, requires)?;
                        labels_at.insert(newest, labels.clone());
                        labels
                    }
                }
            };
            let Some(labels) = labels else { continue };
            let place = table.place(Name { labels, drop: name.drop }, &evaluator.guard)?;
            let target = table.row(place);
            if crate::row::bit(&target.present, step) {
                return Err(crate::frame::same_labels_error());
            }
            match row.get(step).expect("the bit is set") {
                Cell::Float(value) => target.set(step, value),
                Cell::Histogram(histogram) => target.set_histogram(step, histogram.clone()),
            }
        }
    }
    table.into_frame(&evaluator.guard)
}

/// Of each info metric the series with the newest sample, in the order of the candidates.
fn newest(series: &Frame, candidates: &[usize], step: usize) -> Result<Vec<usize>, QueryError> {
    let mut found: Vec<(usize, f64)> = Vec::new();
    let mut places: HashMap<Option<&str>, usize> = HashMap::new();
    for &i in candidates {
        let Some(Cell::Float(time)) = series.row(i).get(step) else { continue };
        let place = *places.entry(series.names[i].labels.metric_name()).or_insert(found.len());
        match found.get_mut(place) {
            None => found.push((i, time)),
            Some(known) if known.1 < time => *known = (i, time),
            Some(known) if known.1 == time => {
                let ms = (time * 1000.0).round() as i64;
                return Err(QueryError::Execution(format!(
                    "found duplicate series for info metric: existing {} @ {ms}, new {} @ {ms}",
                    series.names[known.0].labels, series.names[i].labels
                )));
            }
            Some(_) => {}
        }
    }
    Ok(found.into_iter().map(|(i, _)| i).collect())
}

/// The labels of a row with those of its info series. `None` where data are required and there
/// is no info series.
fn enrich(
    base: &Labels,
    series: &Frame,
    newest: &[usize],
    data: &[Matcher],
    requires: bool,
) -> Result<Option<Labels>, QueryError> {
    if newest.is_empty() && requires {
        return Ok(None);
    }
    let mut added = LabelsBuilder::new();
    for &i in newest {
        for (label, value) in series.names[i].labels.iter() {
            let wanted = data.is_empty() || data.iter().any(|matcher| matcher.name() == label);
            if label == METRIC_NAME || !wanted {
                continue;
            }
            if added.get(label).is_some_and(|known| known != value) {
                return Err(QueryError::Execution(format!("conflicting label: {label}")));
            }
            if !base.has(label) {
                added.set(label, value);
            }
        }
    }
    let mut labels = base.to_builder();
    added.iter().for_each(|(label, value)| labels.set(label, value));
    Ok(Some(labels.build()))
}
