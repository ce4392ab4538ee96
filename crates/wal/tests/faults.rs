//! Every disk operation of a workload fails in every way, and still: what was acknowledged is
//! read, what is read was sent, in order, and the log opens again.

use std::collections::BTreeMap;
use std::path::Path;

use tidewatch_env::Env;
use tidewatch_env::sim::{Failure, Simulation};
use tidewatch_wal::{Item, Position, Reader, Wal, WalError, WalOptions};

const OPTIONS: WalOptions = WalOptions { segment_bytes: 1_200, segment_min: 1, owner: 0 };

fn dir() -> &'static Path {
    Path::new("/data/wal")
}

/// What the clients know.
#[derive(Default)]
struct Ledger {
    /// Every frame that was ever appended, in order.
    sent: Vec<(Position, Vec<u8>)>,
    /// How many of `sent` were acknowledged, by index.
    acknowledged: Vec<bool>,
    /// Index of the first frame of the process that lives.
    process_start: usize,
    /// By segment, how far it was acknowledged as durable.
    durable: BTreeMap<u64, u64>,
    /// Segments below were removed.
    removed_below: u64,
}

impl Ledger {
    fn commit(&mut self, wal: &Wal) -> Result<(), WalError> {
        let durable = wal.commit()?;
        assert_eq!(durable, wal.durable());
        // A frame of an earlier process that was not acknowledged then never will be.
        for index in self.process_start..self.sent.len() {
            let (position, body) = &self.sent[index];
            if *position < durable {
                self.acknowledged[index] = true;
                self.durable.insert(position.segment, position.offset + 16 + body.len() as u64);
            }
        }
        Ok(())
    }

    fn check(&self, simulation: &Simulation) {
        if !simulation.env.disk.exists(dir()).unwrap() {
            assert!(!self.acknowledged.contains(&true), "the log is gone");
            return;
        }
        let mut reader = Reader::open(&simulation.env, dir(), Position::START).unwrap();
        let mut read = Vec::new();
        while let Some(item) = reader.read().unwrap() {
            match item {
                Item::Frame(frame) => read.push((frame.position, frame.bytes.to_vec())),
                // A crash may leave holes, but only behind what was acknowledged.
                Item::Damage(damage) => {
                    let number = damage.path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
                    let durable = self.durable.get(&number).copied().unwrap_or(0);
                    assert!(damage.len > 0 && damage.offset >= durable, "{damage:?} below {durable}");
                }
            }
        }
        assert!(read.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, nothing twice");
        for frame in &read {
            assert!(self.sent.contains(frame), "read but never sent: {frame:?}");
        }
        for (index, frame) in self.sent.iter().enumerate() {
            let due = self.acknowledged[index] && frame.0.segment >= self.removed_below;
            assert!(!due || read.contains(frame), "acknowledged but not read: {frame:?}");
        }
    }
}

/// One process' life: open, append, commit, cut, remove, commit without room.
fn live(simulation: &Simulation, ledger: &mut Ledger, process: u8) -> Result<(), WalError> {
    ledger.process_start = ledger.sent.len();
    let (wal, _) = Wal::open(&simulation.env, dir(), OPTIONS)?;
    for index in 0..12_u8 {
        let body = [process, index].repeat(usize::from(index) * 17 + 1);
        let position = match wal.append(&[&body]) {
            Err(WalError::Full { .. }) => {
                // The operator makes room, and the same process goes on.
                simulation.disk.free_space();
                ledger.commit(&wal)?;
                wal.append(&[&body])?
            }
            other => other?,
        };
        ledger.sent.push((position, body));
        ledger.acknowledged.push(false);
        if index % 3 == 2 {
            match ledger.commit(&wal) {
                Err(WalError::Full { .. }) => {}
                other => other?,
            }
        }
        if index == 7 {
            let cut = wal.cut();
            ledger.removed_below = ledger.removed_below.max(cut.segment - 2);
            wal.remove_before(ledger.removed_below)?;
        }
    }
    simulation.disk.free_space();
    ledger.commit(&wal)
}

/// Three lives with a crash behind the first and the last and a kill behind the second, and the
/// `n`-th operation of the disk failing. Says whether there was such an operation.
fn run(failure: Failure, n: u64, crash_seed: u64) -> bool {
    let simulation = Env::simulated(n);
    let mut ledger = Ledger::default();
    let mut fired = false;
    for process in 0..3 {
        if !fired {
            simulation.disk.fail_at(n, failure);
        }
        let outcome = live(&simulation, &mut ledger, process);
        fired |= simulation.disk.fired();
        assert!(outcome.is_ok() || fired, "{outcome:?}");
        simulation.disk.repair();
        simulation.disk.free_space();
        match process {
            0 => simulation.disk.crash(crash_seed),
            1 => simulation.disk.kill(),
            _ => simulation.disk.crash(crash_seed + 1),
        }
        ledger.check(&simulation);
    }
    assert!(fired || ledger.acknowledged.iter().all(|done| *done));
    fired
}

#[test]
fn acknowledged_is_read_and_read_was_sent_whatever_operation_fails() {
    for failure in [Failure::Crash, Failure::Io, Failure::IoForGood, Failure::Full] {
        // Not short-circuited: each n meets each kind of crash.
        let count = (1..)
            .take_while(|n| [0, 1, n * 7 + 2, n * 13 + 3].map(|seed| run(failure, *n, seed)).contains(&true))
            .count();
        assert!(count > 50, "{failure:?} had {count} operations to meet");
    }
}

#[test]
fn every_failed_read_is_survived() {
    for n in 1.. {
        let simulation = Env::simulated(n);
        let mut ledger = Ledger::default();
        live(&simulation, &mut ledger, 0).unwrap();
        simulation.disk.fail_read_at(n);
        let outcome = live(&simulation, &mut ledger, 1);
        let fired = simulation.disk.fired();
        assert!(outcome.is_ok() || fired);
        simulation.disk.kill();
        ledger.check(&simulation);
        if !fired {
            break;
        }
    }
}
