//! Rows that come to be step by step, found by their labels.

use hashbrown::HashMap;
use tidewatch_model::Labels;

use crate::context::QueryError;
use crate::frame::{Frame, Name};
use crate::guard::{Charge, Guard};
use crate::row::{Row, words};

/// Rows by labels, in the order in which they were first named.
pub(crate) struct Table {
    steps: usize,
    rows: Vec<(Name, Row)>,
    place: HashMap<Labels, usize, foldhash::fast::RandomState>,
    /// The budget's part that the rows hold.
    charges: Vec<Charge>,
}

impl Table {
    pub(crate) fn new(steps: usize) -> Table {
        Table { steps, rows: Vec::new(), place: HashMap::default(), charges: Vec::new() }
    }

    /// The number of the row with these labels, which is made where there is none; the first
    /// name decides whether it is dropped at the end.
    pub(crate) fn place(&mut self, name: Name, guard: &Guard) -> Result<usize, QueryError> {
        if let Some(place) = self.place.get(&name.labels) {
            return Ok(*place);
        }
        // The present steps twice, as joins keep beside them which they have computed.
        let bytes = self.steps * 8 + 2 * words(self.steps) * 8 + 2 * name.labels.as_bytes().len() + 128;
        self.charges.push(guard.charge(bytes as u64, self.steps as u64)?);
        let mut row = Row::default();
        row.reset(self.steps);
        let place = self.rows.len();
        self.place.insert(name.labels.clone(), place);
        self.rows.push((name, row));
        Ok(place)
    }

    pub(crate) fn row(&mut self, place: usize) -> &mut Row {
        &mut self.rows[place].1
    }

    /// The rows that have any sample.
    pub(crate) fn into_frame(self, guard: &Guard) -> Result<Frame, QueryError> {
        let mut frame = Frame::new(self.steps);
        for (name, row) in self.rows {
            if !row.is_empty() {
                frame.push(name, row.as_ref(), guard)?;
            }
        }
        Ok(frame)
    }
}
