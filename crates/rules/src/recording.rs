//! What an evaluation of a recording rule gives.

use std::collections::HashSet;

use tidewatch_model::{InstantSample, METRIC_NAME};

use crate::alerting::Moment;
use crate::definition::Rule;
use crate::effects::RuleSample;

/// The elements of the expression under the rule's name and labels.
pub(crate) fn evaluate(
    rule: &Rule,
    vector: Vec<InstantSample>,
    moment: &Moment<'_>,
) -> Result<Vec<RuleSample>, String> {
    if moment.limit > 0 && vector.len() > moment.limit {
        return Err(format!("exceeded limit of {} with {} series", moment.limit, vector.len()));
    }
    let timestamp = moment.at_ms - moment.offset_ms;
    let mut seen = HashSet::with_capacity(vector.len());
    let mut samples = Vec::with_capacity(vector.len());
    for InstantSample { labels, value, .. } in vector {
        let mut labels = labels.to_builder();
        labels.set(METRIC_NAME, rule.name());
        for (name, value) in &rule.labels {
            labels.set(name, value);
        }
        let labels = labels.build();
        if !seen.insert(labels.clone()) {
            return Err(
                "vector contains metrics with the same labelset after applying rule labels".to_owned()
            );
        }
        samples.push(RuleSample { labels, timestamp, value });
    }
    Ok(samples)
}
