//! Aggregations that look at all values of a group: `quantile` and `count_values`. They hold one
//! number for each sample, or one counter for each distinct value.

use hashbrown::HashMap;
use tidewatch_model::{Labels, format_float};

use super::{Groups, drops_name, name_of};
use crate::context::QueryError;
use crate::eval::Evaluator;
use crate::frame::{Frame, Name};
use crate::plan::Aggregate;
use crate::row::{Cell, Row, set_steps};
use crate::stream::Stream;
use crate::table::Table;

pub(super) fn quantile(
    evaluator: &mut Evaluator<'_>,
    plan: &Aggregate,
    stream: Stream,
    quantiles: &[f64],
) -> Result<Frame, QueryError> {
    let param_pos = plan.param.as_ref().map_or(plan.input.pos, |param| param.pos);
    for q in quantiles.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
        evaluator.notes.invalid_quantile(*q, param_pos);
    }
    let groups = Groups::new(evaluator, plan, &stream)?;
    let steps = stream.grid.count;
    let pos = plan.input.pos;
    let guard = evaluator.guard.clone();
    let parts = stream.fold(
        evaluator,
        || {
            let places = groups.len() * steps;
            let charge = guard.charge(places as u64 * 24, 0)?;
            Ok((vec![Vec::<f64>::new(); places], vec![charge]))
        },
        |(values, charges), i, row, notes| {
            let mut count = 0;
            for step in set_steps(&row.present) {
                if let Some(Some(_)) = row.histograms.get(step) {
                    notes.histogram_ignored_in_aggregation("quantile", pos);
                    continue;
                }
                values[groups.of_row[i] as usize * steps + step].push(row.values[step]);
                count += 1;
            }
            charges.push(guard.charge(count * 8 + 32, count)?);
            Ok(())
        },
    )?;
    let mut frame = Frame::new(steps);
    let mut row = Row::default();
    let mut all = Vec::new();
    for (group, labels) in groups.names.iter().enumerate() {
        evaluator.guard.check()?;
        row.reset(steps);
        for step in 0..steps {
            all.clear();
            parts.iter().for_each(|(values, _)| all.extend_from_slice(&values[group * steps + step]));
            if !all.is_empty() {
                row.set(step, crate::quantile::quantile(quantiles[step], &mut all));
            }
        }
        if !row.is_empty() {
            let rows = groups.of_row.iter().enumerate().filter(|(_, g)| **g as usize == group);
            let drop = evaluator.options.delayed_name_removal
                && rows.into_iter().any(|(i, _)| drops_name(evaluator, &stream, i));
            frame.push(name_of(labels, drop), row.as_ref(), &evaluator.guard)?;
        }
    }
    Ok(frame)
}

/// `count_values("label", v)`: one row for each distinct value of a group.
pub(super) fn count_values(
    evaluator: &mut Evaluator<'_>,
    plan: &Aggregate,
    stream: Stream,
    label: &str,
) -> Result<Frame, QueryError> {
    let input = stream.collect(evaluator)?;
    let mut table = Table::new(input.steps);
    for (name, cells) in input.rows() {
        evaluator.guard.check()?;
        let mut by_value: HashMap<String, usize> = HashMap::new();
        for step in set_steps(cells.present) {
            let value = match cells.get(step).expect("the bit is set") {
                Cell::Float(value) => format_float(value),
                Cell::Histogram(histogram) => histogram.to_string(),
            };
            let place = match by_value.get(&value) {
                Some(place) => *place,
                None => {
                    let labels = value_labels(plan, &name.labels, label, &value);
                    let place = table.place(Name::keep(labels), &evaluator.guard)?;
                    by_value.insert(value, place);
                    place
                }
            };
            let row = table.row(place);
            let count = if crate::row::bit(&row.present, step) { row.values[step] } else { 0.0 };
            row.set(step, count + 1.0);
        }
    }
    table.into_frame(&evaluator.guard)
}

/// The group's labels with the value among them; the grouping of `by` names its label already.
fn value_labels(plan: &Aggregate, labels: &Labels, label: &str, value: &str) -> Labels {
    let mut builder = labels.to_builder();
    builder.set(label, value);
    builder.retain(|name| super::keeps(plan, crate::stream::Strip::Keep, name));
    builder.build()
}
