//! What goes wrong on the simulated disk, and when.

use std::io;

/// What happens to an operation that is chosen to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The power goes while the operation runs. Everything fails from then on, until
    /// [`crash`](super::SimDisk::crash) or [`kill`](super::SimDisk::kill).
    Crash,
    /// The operation fails once. What it was to change may be there in part.
    Io,
    /// This operation and all later changes fail, until [`repair`](super::SimDisk::repair).
    IoForGood,
    /// There is no room for this operation or any later one that needs some, until
    /// [`free_space`](super::SimDisk::free_space).
    Full,
}

/// What an operation wants of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// More room: creates, writes, reserves.
    Room,
    /// Only change: syncs, renames, removals, cuts.
    Change,
}

/// Why a change fails and whether a part of it happens all the same.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) error: io::Error,
    pub(super) partial: bool,
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> io::Error {
        fault.error
    }
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    changes: u64,
    reads: u64,
    planned_change: Option<(u64, Failure)>,
    planned_read: Option<u64>,
    fired: bool,
    pub(super) power_off: bool,
    pub(super) broken: bool,
    pub(super) full: bool,
}

impl Faults {
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn reads(&self) -> u64 {
        self.reads
    }

    pub(super) fn fired(&self) -> bool {
        self.fired
    }

    pub(super) fn plan_change(&mut self, n: u64, failure: Failure) {
        self.planned_change = Some((n, failure));
        self.fired = false;
    }

    pub(super) fn plan_read(&mut self, n: u64) {
        self.planned_read = Some(n);
        self.fired = false;
    }

    /// A new process begins: the power is on, and what was planned for the last one is off.
    pub(super) fn restart(&mut self) {
        self.power_off = false;
        self.planned_change = None;
        self.planned_read = None;
    }

    /// Counts a change and says whether it may be done.
    pub(super) fn change(&mut self, need: Need) -> Result<(), Fault> {
        self.check_power().map_err(|error| Fault { error, partial: false })?;
        self.changes += 1;
        if let Some((n, failure)) = self.planned_change
            && n == self.changes
        {
            self.planned_change = None;
            self.fired = true;
            return self.fire(failure, need);
        }
        if self.broken {
            return Err(Fault { error: broken(), partial: false });
        }
        if self.full && need == Need::Room {
            return Err(Fault { error: io::ErrorKind::StorageFull.into(), partial: false });
        }
        Ok(())
    }

    fn fire(&mut self, failure: Failure, need: Need) -> Result<(), Fault> {
        match failure {
            Failure::Crash => {
                self.power_off = true;
                Err(Fault { error: power_off(), partial: true })
            }
            Failure::Io => Err(Fault { error: broken(), partial: true }),
            Failure::IoForGood => {
                self.broken = true;
                Err(Fault { error: broken(), partial: true })
            }
            Failure::Full => {
                self.full = true;
                match need {
                    Need::Room => Err(Fault { error: io::ErrorKind::StorageFull.into(), partial: true }),
                    Need::Change => Ok(()),
                }
            }
        }
    }

    /// Counts a read and says whether it may be done.
    pub(super) fn read(&mut self) -> io::Result<()> {
        self.check_power()?;
        self.reads += 1;
        if self.planned_read == Some(self.reads) {
            self.planned_read = None;
            self.fired = true;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }

    pub(super) fn check_power(&self) -> io::Result<()> {
        if self.power_off { Err(power_off()) } else { Ok(()) }
    }
}

fn power_off() -> io::Error {
    io::Error::other("simulated: the power is off")
}

fn broken() -> io::Error {
    io::Error::other("simulated: the disk failed")
}
