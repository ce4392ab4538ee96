//! Paying for memory after it was taken, a part at a time.
//!
//! To ask before each small allocation would cost more than the allocation; what is owed is never more
//! than [`ASKED_BYTES`] and the last part.
//!
//! Not here: whose memory it is (`storage::Room`).

use tidewatch_storage::{Room, SelectError};

/// Memory that was taken and is asked for after the fact, a part at a time.
pub(crate) struct Debt<'a, 'r> {
    room: &'a mut Room<'r>,
    owed: usize,
    /// Whether the room has said no.
    is_refused: bool,
}

/// Bytes that are asked for at once.
const ASKED_BYTES: usize = 64 << 10;

impl<'a, 'r> Debt<'a, 'r> {
    pub(crate) fn new(room: &'a mut Room<'r>) -> Debt<'a, 'r> {
        Debt { room, owed: 0, is_refused: false }
    }

    pub(crate) fn owe(&mut self, bytes: usize) -> Result<(), SelectError> {
        self.owed += bytes;
        if self.owed < ASKED_BYTES {
            return Ok(());
        }
        self.goes_on();
        self.check()
    }

    /// Asks for what is owed, which may be nothing: "no" may mean that there is no more time.
    pub(crate) fn goes_on(&mut self) -> bool {
        let owed = std::mem::take(&mut self.owed) as u64;
        self.is_refused |= !(self.room)(owed);
        !self.is_refused
    }

    /// Fails where the room has said no.
    pub(crate) fn check(&self) -> Result<(), SelectError> {
        if self.is_refused { Err(SelectError::NoRoom) } else { Ok(()) }
    }
}
