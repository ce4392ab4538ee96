//! Which elements of two vectors belong together: those whose matching labels are equal.

use hashbrown::HashMap;
use tidewatch_model::{Labels, METRIC_NAME};
use tidewatch_parser::VectorMatching;

use crate::context::QueryError;
use crate::frame::Frame;
use crate::guard::{Charge, Guard};

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
    _charges: Vec<Charge>,
}

/// What a signature takes beside its text: places in tables and a list of rows on either side.
const SIGNATURE_BYTES: usize = 192;

impl Matched {
    pub(super) fn new(
        signer: &Signer,
        left: &Frame,
        right: &Frame,
        guard: &Guard,
    ) -> Result<Matched, QueryError> {
        let (mut charges, mut bytes) = (Vec::new(), 0);
        let mut known = HashMap::<Labels, usize, foldhash::fast::RandomState>::default();
        let mut signatures = Vec::new();
        let mut number = |labels: &Labels| {
            let signature = signer.signature(labels);
            if let Some(number) = known.get(&signature) {
                return Ok(*number);
            }
            bytes += SIGNATURE_BYTES + signature.as_bytes().len();
            if bytes >= SIGNATURE_BYTES * 256 {
                guard.check()?;
                charges.push(guard.charge(std::mem::take(&mut bytes) as u64, 0)?);
            }
            signatures.push(signature.clone());
            known.insert(signature, signatures.len() - 1);
            Ok::<_, QueryError>(signatures.len() - 1)
        };
        let right = right.names.iter().map(|name| number(&name.labels)).collect::<Result<Vec<_>, _>>()?;
        let left = left.names.iter().map(|name| number(&name.labels)).collect::<Result<Vec<_>, _>>()?;
        let group = |of_row: &[usize]| {
            let mut rows = vec![Vec::new(); signatures.len()];
            of_row.iter().enumerate().for_each(|(row, signature)| rows[*signature].push(row));
            rows
        };
        let (left_rows, right_rows) = (group(&left), group(&right));
        Ok(Matched { left_rows, right_rows, signatures, left, right, _charges: charges })
    }
}
