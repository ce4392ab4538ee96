//! Which elements of two vectors belong together: those whose matching labels are equal.

use hashbrown::HashMap;
use tidewatch_model::{Labels, METRIC_NAME};
use tidewatch_parser::VectorMatching;

use crate::frame::Frame;

/// The labels by which elements match.
pub(super) struct Signer {
    labels: Vec<String>,
    on: bool,
}

impl Signer {
    pub(super) fn new(matching: &VectorMatching) -> Signer {
        let mut labels = matching.labels.clone();
        if !matching.on {
            labels.push(METRIC_NAME.to_owned());
        }
        labels.sort();
        Signer { labels, on: matching.on }
    }

    fn takes(&self, name: &str) -> bool {
        self.labels.binary_search_by(|label| label.as_str().cmp(name)).is_ok() == self.on
    }

    /// The labels that two elements must share to match.
    pub(super) fn signature(&self, labels: &Labels) -> Labels {
        labels.without(|name| !self.takes(name))
    }
}

/// Rows of both sides by signature.
pub(super) struct Matched {
    /// Signatures in the order in which they first occur, right side first.
    pub signatures: Vec<Labels>,
    pub left: Vec<usize>,
    pub right: Vec<usize>,
    /// The rows of each signature, in order.
    pub left_rows: Vec<Vec<usize>>,
    pub right_rows: Vec<Vec<usize>>,
}

impl Matched {
    pub(super) fn new(signer: &Signer, left: &Frame, right: &Frame) -> Matched {
        let mut known = HashMap::<Labels, usize, foldhash::fast::RandomState>::default();
        let mut signatures = Vec::new();
        let mut number = |labels: &Labels| {
            let signature = signer.signature(labels);
            *known.entry(signature).or_insert_with_key(|signature| {
                signatures.push(signature.clone());
                signatures.len() - 1
            })
        };
        let right: Vec<usize> = right.names.iter().map(|name| number(&name.labels)).collect();
        let left: Vec<usize> = left.names.iter().map(|name| number(&name.labels)).collect();
        let group = |of_row: &[usize]| {
            let mut rows = vec![Vec::new(); signatures.len()];
            of_row.iter().enumerate().for_each(|(row, signature)| rows[*signature].push(row));
            rows
        };
        let (left_rows, right_rows) = (group(&left), group(&right));
        Matched { left_rows, right_rows, signatures, left, right }
    }
}
