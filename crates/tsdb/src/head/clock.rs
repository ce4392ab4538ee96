//! Clocks: columns of timestamps that the series of one source share.
//!
//! A scrape gives every series of its target one timestamp, so a shard keeps it once. A series
//! holds a clock, the first row that is its own, and how many rows it has taken; its next
//! sample takes the next row, adding it if it is the first to come. A series that differs
//! *forks*: it goes on in a copy of its rows, which others that differ alike share in turn.
//!
//! ```text
//!            start                    take (row there or new)
//!   no run ────────► open run ───────────────────────────────┐
//!                    │    ▲  ◄───────────────────────────────┘
//!    clock full:     │    │ fork (row is there with another time)
//!    seal, start ◄───┘    └──► copy of the rows, maybe shared
//! ```
//!
//! Invariants: rows ascend; a full clock never changes, so sealed runs refer to clocks too and no
//! timestamp is stored twice in the head; a clock lives while runs refer to it.

use super::cells::NONE;

/// Rows of one clock, and so the longest run of the head: where the strong codec has nearly
/// reached its best, and reading over-reads little.
pub(crate) const ROWS_MAX: usize = 120;

/// Rows that a clock must have left, taken by others or not, for a run that joins it before its newest row: shorter
/// runs would cost more than a clock of its own.
const JOINED_MIN: usize = ROWS_MAX / 4;

/// Recent clocks that a series may join. A request brings few sources at a time.
const RECENT: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Clock {
    pub(crate) rows: Vec<i64>,
    /// Rows at which it is full.
    limit: u8,
    /// Open and sealed runs that refer to this clock.
    references: u32,
    /// The clock that went on when this one was full; perhaps freed or reused since.
    successor: Option<u32>,
}

#[derive(Debug, Default)]
pub(crate) struct Clocks {
    clocks: Vec<Clock>,
    free: Vec<u32>,
    /// Clocks that were started or forked last, newest at `next_recent - 1`.
    recent: [Option<u32>; RECENT],
    next_recent: usize,
    /// The clock in which the newest series began: others of the request may begin there, be it that it filled many
    /// clocks since.
    first: Option<u32>,
    forks: [Option<Fork>; RECENT],
    next_fork: usize,
}

/// A fork that was made: another series in the same state goes the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fork {
    from: u32,
    first_row: u8,
    row: u8,
    timestamp: i64,
    to: u32,
}

/// When the first clock of a source is full: between a quarter and all of [`ROWS_MAX`], so that
/// sources which began together do not seal together. Else all open runs of a server would be
/// at their longest at once, and their memory with them.
fn first_limit(timestamp: i64) -> u8 {
    let scattered = (timestamp as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (ROWS_MAX / 4 + scattered as usize % (ROWS_MAX - ROWS_MAX / 4 + 1)) as u8
}

impl Clocks {
    #[inline]
    pub(crate) fn get(&self, clock: u32) -> &Clock {
        &self.clocks[clock as usize]
    }

    /// The rows of a run.
    #[inline]
    pub(crate) fn rows(&self, clock: u32, first_row: u8, count: u8) -> &[i64] {
        &self.clocks[clock as usize].rows[usize::from(first_row)..usize::from(first_row) + usize::from(count)]
    }

    /// Whether `timestamp` is, or has now become, the row after those of a run.
    #[inline]
    pub(crate) fn take(&mut self, clock: u32, first_row: u8, count: u8, timestamp: i64) -> bool {
        let Clock { rows, limit, .. } = &mut self.clocks[clock as usize];
        let row = usize::from(first_row) + usize::from(count);
        match rows.get(row) {
            Some(have) => *have == timestamp,
            None if row == usize::from(*limit) || rows[row - 1] >= timestamp => false,
            None => {
                debug_assert!(row == rows.len(), "a run ends within its clock");
                rows.push(timestamp);
                true
            }
        }
    }

    /// Whether a run has all rows that its clock will have.
    pub(crate) fn is_full(&self, clock: u32, first_row: u8, count: u8) -> bool {
        first_row + count == self.clocks[clock as usize].limit
    }

    /// A clock and row for a run that begins at `timestamp`: the successor of the run's former
    /// clock, or one that others of the request have just taken, or a new one.
    pub(crate) fn start(&mut self, former: u32, timestamp: i64) -> (u32, u8) {
        if former != NONE
            && let Some(next) = self.clocks[former as usize].successor
            && let Some(row) = self.joinable(next, timestamp)
        {
            self.clocks[next as usize].references += 1;
            return (next, row);
        }
        for at in 0..=RECENT {
            let Some(clock) = self.recent.get(at).map_or(self.first, |recent| *recent) else { continue };
            if let Some(row) = self.joinable(clock, timestamp) {
                self.clocks[clock as usize].references += 1;
                return (clock, row);
            }
        }
        if former != NONE {
            let clock = self.create(vec![timestamp], ROWS_MAX as u8);
            self.clocks[former as usize].successor = Some(clock);
            return (clock, 0);
        }
        let clock = self.create(vec![timestamp], first_limit(timestamp));
        self.first = Some(clock);
        (clock, 0)
    }

    /// The row in which a run begins that follows one of `count` rows in the same clock, where
    /// `timestamp` is, or has now become, that row.
    pub(crate) fn go_on(&mut self, clock: u32, first_row: u8, count: u8, timestamp: i64) -> Option<u8> {
        self.take(clock, first_row, count, timestamp).then(|| {
            self.clocks[clock as usize].references += 1;
            first_row + count
        })
    }

    /// Lets later runs of this request join `clock`.
    #[inline]
    pub(crate) fn remember(&mut self, clock: u32) {
        if self.recent[(self.next_recent + RECENT - 1) % RECENT] != Some(clock) {
            self.recent[self.next_recent] = Some(clock);
            self.next_recent = (self.next_recent + 1) % RECENT;
        }
    }

    /// The row of `timestamp` in a living clock, if a run that begins there has room: it is the newest of those that
    /// follow, or the others may be what a request brings of this series next, as it brought of the one before.
    fn joinable(&self, clock: u32, timestamp: i64) -> Option<u8> {
        let Clock { rows, limit, .. } = &self.clocks[clock as usize];
        let limit = usize::from(*limit);
        if rows.last() == Some(&timestamp) {
            return (rows.len() < limit).then(|| rows.len() as u8 - 1);
        }
        let row = rows.binary_search(&timestamp).ok()?;
        (limit - row >= JOINED_MIN).then_some(row as u8)
    }

    /// Moves a run of `count` rows, whose next sample is at `timestamp`, to a clock where that
    /// is so. The run's rows begin at 0 there.
    pub(crate) fn fork(&mut self, from: u32, first_row: u8, count: u8, timestamp: i64) -> u32 {
        let row = first_row + count;
        let known = self.forks.iter().flatten().find(|fork| {
            (fork.from, fork.first_row, fork.row, fork.timestamp) == (from, first_row, row, timestamp)
        });
        if let Some(to) = known.map(|fork| fork.to) {
            self.clocks[to as usize].references += 1;
            self.release(from);
            return to;
        }
        let mut rows = Vec::with_capacity(usize::from(count) + 16);
        rows.extend_from_slice(self.rows(from, first_row, count));
        rows.push(timestamp);
        let to = self.create(rows, ROWS_MAX as u8);
        self.forks[self.next_fork] = Some(Fork { from, first_row, row, timestamp, to });
        self.next_fork = (self.next_fork + 1) % RECENT;
        self.release(from);
        to
    }

    fn create(&mut self, rows: Vec<i64>, limit: u8) -> u32 {
        let clock = Clock { rows, limit, references: 1, successor: None };
        match self.free.pop() {
            Some(at) => {
                self.clocks[at as usize] = clock;
                at
            }
            None => {
                self.clocks.push(clock);
                self.clocks.len() as u32 - 1
            }
        }
    }

    /// Numbers and rows of the clocks that runs refer to.
    pub(crate) fn living(&self) -> impl Iterator<Item = (u32, &[i64])> {
        let clocks = self.clocks.iter().enumerate().filter(|(_, clock)| !clock.rows.is_empty());
        clocks.map(|(number, clock)| (number as u32, clock.rows.as_slice()))
    }

    /// Puts a clock back to which no run refers yet.
    pub(crate) fn restore(&mut self, rows: Vec<i64>) -> u32 {
        self.clocks.push(Clock { rows, limit: ROWS_MAX as u8, references: 0, successor: None });
        self.clocks.len() as u32 - 1
    }

    /// A restored run refers to the clock; `false` if the clock lacks its rows.
    pub(crate) fn refer(&mut self, clock: u32, first_row: u8, count: u8) -> bool {
        let this = &mut self.clocks[clock as usize];
        let within = count > 0 && usize::from(first_row) + usize::from(count) <= this.rows.len();
        this.references += u32::from(within);
        within
    }

    /// Frees restored clocks whose runs were damaged.
    pub(crate) fn release_unused(&mut self) {
        for (number, clock) in self.clocks.iter_mut().enumerate() {
            if clock.references == 0 && !clock.rows.is_empty() {
                *clock = Clock::default();
                self.free.push(number as u32);
            }
        }
    }

    /// One run refers to the clock no more.
    pub(crate) fn release(&mut self, clock: u32) {
        let this = &mut self.clocks[clock as usize];
        this.references -= 1;
        if this.references > 0 {
            return;
        }
        *this = Clock::default();
        self.free.push(clock);
        // A fork names rows, which are gone. Whoever else still has the number may follow it: a
        // clock is joined for a row that it has, and a freed one has none.
        let names = |fork: &Fork| fork.from == clock || fork.to == clock;
        self.forks.iter_mut().filter(|at| at.as_ref().is_some_and(names)).for_each(|at| *at = None);
    }

    pub(crate) fn bytes_held(&self) -> usize {
        let rows: usize = self.clocks.iter().map(|clock| clock.rows.capacity() * 8).sum();
        rows + self.clocks.capacity() * size_of::<Clock>()
    }

    pub(crate) fn count(&self) -> usize {
        self.clocks.len() - self.free.len()
    }
}
