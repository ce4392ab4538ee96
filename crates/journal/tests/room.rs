//! What does not fit: one frame, the memory of the log, the disk.

use std::path::Path;

use bytes::Bytes;
use tidewatch_env::Env;
use tidewatch_journal::{Journal, Record, Waiting};

fn dir() -> &'static Path {
    Path::new("/data/journal")
}

fn put(id: u64, megabytes: usize) -> Record {
    Record::OutboxPut { id, bytes: Bytes::from(vec![id as u8; megabytes << 20]) }
}

fn ids(env: &Env) -> Vec<u64> {
    let (_, state) = Journal::open(env, dir()).expect("the journal opens");
    state.outbox.into_keys().collect()
}

// Ten thousand alerts for three Alertmanagers are more than a frame holds: the journal refused them.
#[test]
fn what_one_frame_can_not_hold_goes_into_several_in_its_order() {
    let simulation = Env::simulated(1);
    let (journal, _) = Journal::open(&simulation.env, dir()).expect("the journal opens");
    // More than the log takes without a commit, and one that no frame holds among them.
    let mut records: Vec<Record> = (0..90).map(|id| put(id, 1)).collect();
    records.insert(40, put(1_000, 33));
    let taken = journal.append_all(records);
    assert!(taken.rest.is_empty() && taken.error.is_none() && taken.too_large == 1, "{:?}", taken.error);
    journal.commit().expect("there is room");
    drop(journal);
    simulation.disk.kill();
    assert_eq!(ids(&simulation.env), (0..90).collect::<Vec<_>>());
}

#[test]
fn what_finds_no_room_waits_and_goes_first_when_there_is_some() {
    let simulation = Env::simulated(2);
    let (journal, _) = Journal::open(&simulation.env, dir()).expect("the journal opens");
    assert!(journal.append_all(vec![put(1, 1)]).error.is_none());
    journal.commit().expect("there is room");
    simulation.disk.set_capacity(0);
    let mut waiting = Waiting::default();
    let mut refusals = 0;
    for id in 2..6 {
        waiting.add([put(id, 1)]);
        let taken = journal.append_all(waiting.take());
        refusals += usize::from(taken.error.is_some_and(|error| error.may_pass()));
        waiting.add(taken.rest);
        // Taken into memory until the first commit finds no room.
        assert!(journal.commit().is_err());
    }
    assert!(refusals > 0 && !waiting.is_empty());
    waiting.add([Record::OutboxRemoved { id: 5 }, Record::OutboxRemoved { id: 1 }]);
    simulation.disk.set_capacity(u64::MAX);
    let taken = journal.append_all(waiting.take());
    assert!(taken.error.is_none() && taken.rest.is_empty() && waiting.is_empty(), "{:?}", taken.error);
    journal.commit().expect("there is room again");
    drop(journal);
    assert_eq!(ids(&simulation.env), [2, 3, 4]);
}
