//! What goes in comes out, from any position, through any number of segments and processes.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tidewatch_env::Env;
use tidewatch_env::sim::Failure;
use tidewatch_wal::{
    FRAME_BYTES_MAX, Item, OpenReport, PENDING_BYTES_MAX, Position, Reader, Wal, WalError, WalOptions,
};

fn dir() -> &'static Path {
    Path::new("/wal")
}

fn open(env: &Env, segment_bytes: u64) -> (Wal, OpenReport) {
    Wal::open(env, dir(), WalOptions { segment_bytes, segment_min: 1, owner: 0 }).unwrap()
}

fn read(env: &Env, from: Position) -> Vec<(Position, Vec<u8>)> {
    let mut reader = Reader::open(env, dir(), from).unwrap();
    let mut frames = Vec::new();
    while let Some(item) = reader.read().unwrap() {
        match item {
            Item::Frame(frame) => frames.push((frame.position, frame.bytes.to_vec())),
            Item::Damage(damage) => panic!("{damage:?}"),
        }
    }
    frames
}

#[test]
fn frames_come_back_in_order_and_from_any_of_their_positions() {
    let env = Env::in_memory();
    let mut written = Vec::new();
    for process in 0..3 {
        let (wal, report) = open(&env, 200);
        assert_eq!(report.torn, None);
        for index in 0..20_u8 {
            let body = [process, index].repeat(usize::from(index));
            let position = wal.append(&[&body[..body.len() / 2], &body[body.len() / 2..]]).unwrap();
            written.push((position, body));
        }
        assert!(wal.durable() <= written[written.len() - 20].0, "nothing is durable before a commit");
        assert!(wal.commit().unwrap() > written.last().unwrap().0);
    }
    assert!(written.is_sorted());
    assert_eq!(read(&env, Position::START), written);
    for (index, (position, _)) in written.iter().enumerate() {
        assert_eq!(read(&env, *position), written[index..]);
    }
}

#[test]
fn a_real_file_system_keeps_a_log_as_the_simulated_one_does() {
    let env = Env::real().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("data/wal");
    let options = WalOptions { segment_bytes: 100_000, segment_min: 1, owner: 0 };
    let mut written = Vec::new();
    for process in 0..3_u8 {
        let (wal, report) = Wal::open(&env, &dir, options).unwrap();
        assert_eq!((report.torn, report.foreign.len()), (None, 0));
        for index in 0..10 {
            let body = vec![process * 10 + index; 30_000];
            written.push((wal.append(&[&body]).unwrap(), body));
            wal.commit().unwrap();
        }
        wal.remove_before(written[5].0.segment).unwrap();
    }
    let oldest = written[5].0.segment;
    written.retain(|(position, _)| position.segment >= oldest);
    let mut reader = Reader::open(&env, &dir, Position::START).unwrap();
    for (position, body) in written {
        let item = reader.read().unwrap();
        assert!(
            matches!(item, Some(Item::Frame(frame)) if frame.position == position && frame.bytes == body)
        );
    }
    assert_eq!(reader.read().unwrap(), None);
}

#[test]
fn a_segment_ends_in_front_of_the_frame_that_does_not_fit() {
    let env = Env::in_memory();
    let (wal, _) = open(&env, 100);
    let segments: Vec<u64> =
        [20, 16, 1, 1, 500, 1].iter().map(|len| wal.append(&[&vec![7; *len]]).unwrap().segment).collect();
    assert_eq!(segments, [1, 1, 2, 2, 3, 4], "32 + 16+20 + 16+16 are 100, and 500 fit nowhere");
    wal.commit().unwrap();
    assert_eq!(wal.segments(), [1, 2, 3, 4]);
}

#[test]
fn a_cut_parts_what_was_from_what_will_be() {
    let env = Env::in_memory();
    let (wal, _) = open(&env, 1 << 20);
    let before = wal.append(&[b"before"]).unwrap();
    let cut = wal.cut();
    assert_eq!(wal.cut(), cut, "an empty segment is not cut again");
    let after = wal.append(&[b"after"]).unwrap();
    assert!(before < cut && cut == after);
    wal.commit().unwrap();
    wal.remove_before(cut.segment).unwrap();
    assert_eq!(read(&env, Position::START), [(after, b"after".to_vec())]);
    wal.remove_before(u64::MAX).unwrap();
    assert_eq!(wal.segments(), [cut.segment], "the newest stays, so that numbers go on");
    let (wal, report) = open(&env, 1 << 20);
    assert_eq!((report.first_segment, report.segments), (3, vec![2]));
    assert!(wal.append(&[b"x"]).unwrap() > after);
}

#[test]
fn numbers_stay_above_the_callers_when_the_directory_was_emptied() {
    let env = Env::in_memory();
    let options = WalOptions { segment_bytes: 1 << 20, segment_min: 18, owner: 0 };
    let (wal, report) = Wal::open(&env, dir(), options).unwrap();
    assert_eq!((report.first_segment, wal.append(&[b"x"]).unwrap().segment), (18, 18));
}

#[test]
fn a_reader_of_the_past_stops_where_the_present_begins() {
    let env = Env::in_memory();
    open(&env, 1 << 20).0.append(&[b"lost with its process"]).unwrap();
    let (wal, _) = open(&env, 1 << 20);
    wal.append(&[b"past"]).unwrap();
    wal.commit().unwrap();
    let (wal, report) = open(&env, 1 << 20);
    wal.append(&[b"present"]).unwrap();
    wal.commit().unwrap();
    let mut reader = Reader::open(&env, dir(), Position::START).unwrap().until(report.first_segment);
    assert!(matches!(reader.read().unwrap(), Some(Item::Frame(frame)) if &frame.bytes[..] == b"past"));
    assert_eq!(reader.read().unwrap(), None);
}

#[test]
fn threads_append_and_commit_side_by_side() {
    let env = Env::in_memory();
    let (wal, _) = open(&env, 4_000);
    let wal = Arc::new(wal);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let wal = wal.clone();
            scope.spawn(move || {
                for index in 0..200_u8 {
                    let position = wal.append(&[&[thread], &[index], &[9; 30]]).unwrap();
                    if index % 3 == 0 {
                        assert!(wal.commit().unwrap() > position);
                        assert!(wal.durable() > position);
                    }
                }
                wal.commit().unwrap();
            });
        }
    });
    let frames = read(&env, Position::START);
    assert_eq!(frames.len(), 800);
    for thread in 0..4 {
        let own: Vec<u8> = frames.iter().filter(|(_, b)| b[0] == thread).map(|(_, b)| b[1]).collect();
        assert_eq!(own, (0..200).collect::<Vec<_>>(), "the frames of a thread keep their order");
    }
}

#[test]
fn one_sync_serves_all_that_was_appended() {
    let simulation = Env::simulated(1);
    let (wal, _) = open(&simulation.env, 1 << 20);
    wal.append(&[b"first"]).unwrap();
    wal.commit().unwrap();
    let before = simulation.disk.changes();
    for _ in 0..100 {
        wal.append(&[b"x"]).unwrap();
    }
    wal.commit().unwrap();
    wal.commit().unwrap();
    assert_eq!(simulation.disk.changes() - before, 2, "one write, one sync, and nothing for an idle commit");
}

#[test]
fn too_much_is_refused_and_can_be_sent_after_a_commit() {
    let env = Env::in_memory();
    let (wal, _) = open(&env, 64 << 20);
    let largest = vec![1; FRAME_BYTES_MAX];
    assert!(matches!(wal.append(&[&largest, b"x"]), Err(WalError::TooLarge { .. })));
    wal.append(&[&largest]).unwrap();
    assert!(matches!(
        wal.append(&[&largest, b""]),
        Err(WalError::Backlog { pending_bytes }) if pending_bytes < PENDING_BYTES_MAX
    ));
    wal.commit().unwrap();
    wal.append(&[&largest]).unwrap();
    wal.commit().unwrap();
    assert_eq!(read(&env, Position::START).len(), 2);
}

#[test]
fn a_failed_write_or_sync_closes_the_log_until_it_is_opened_again() {
    // The next operation of a commit is the write, the one after it the sync.
    for operation in [1, 2] {
        let simulation = Env::simulated(1);
        let (wal, _) = open(&simulation.env, 1 << 20);
        wal.append(&[b"safe"]).unwrap();
        let durable = wal.commit().unwrap();
        wal.append(&[b"risk"]).unwrap();
        simulation.disk.fail_at(simulation.disk.changes() + operation, Failure::Io);
        assert!(matches!(wal.commit(), Err(WalError::Latched { .. })));
        assert!(matches!(wal.commit(), Err(WalError::Latched { .. })), "a second attempt would lie");
        assert!(matches!(wal.append(&[b"more"]), Err(WalError::Latched { .. })));
        assert!(matches!(wal.write(), Err(WalError::Latched { .. })));
        assert_eq!(wal.durable(), durable);
        let (wal, _) = open(&simulation.env, 1 << 20);
        wal.append(&[b"again"]).unwrap();
        wal.commit().unwrap();
    }
}

#[test]
fn a_full_disk_keeps_what_was_appended_and_goes_on_when_there_is_room() {
    let simulation = Env::simulated(1);
    let (wal, _) = open(&simulation.env, 1 << 20);
    wal.append(&[b"one"]).unwrap();
    wal.commit().unwrap();
    let two = wal.append(&[b"two"]).unwrap();
    simulation.disk.fail_at(simulation.disk.changes() + 1, Failure::Full);
    for _ in 0..3 {
        assert!(matches!(wal.commit(), Err(WalError::Full { .. })));
        assert!(matches!(wal.append(&[b"refused"]), Err(WalError::Full { .. })));
        assert!(wal.durable() <= two);
    }
    simulation.disk.free_space();
    assert!(wal.commit().unwrap() > two);
    wal.append(&[b"three"]).unwrap();
    wal.commit().unwrap();
    let bodies: Vec<_> = read(&simulation.env, Position::START).into_iter().map(|(_, b)| b).collect();
    assert_eq!(bodies, [&b"one"[..], b"two", b"three"]);
}

#[test]
fn what_is_only_written_survives_the_process_but_not_the_power() {
    let simulation = Env::simulated(1);
    let (wal, _) = open(&simulation.env, 1 << 20);
    let position = wal.append(&[b"x"]).unwrap();
    assert!(wal.write().unwrap() > position && wal.durable() <= position);
    simulation.disk.kill();
    assert_eq!(read(&simulation.env, Position::START).len(), 1);
    simulation.disk.crash(0);
    assert_eq!(read(&simulation.env, Position::START).len(), 0);
}

#[test]
fn what_a_killed_process_wrote_is_durable_once_the_log_is_open_again() {
    let simulation = Env::simulated(1);
    let (wal, _) = open(&simulation.env, 1 << 20);
    wal.append(&[b"x"]).unwrap();
    wal.write().unwrap();
    simulation.disk.kill();
    open(&simulation.env, 1 << 20);
    simulation.disk.crash(0);
    assert_eq!(read(&simulation.env, Position::START).len(), 1, "a reader may already rely on it");
}

#[test]
fn equal_histories_under_equal_seeds_give_equal_bytes() {
    let bytes = || {
        let simulation = Env::simulated(5);
        let (wal, _) = open(&simulation.env, 64);
        wal.append(&[b"a"]).unwrap();
        wal.append(&[b"bb"]).unwrap();
        wal.commit().unwrap();
        let disk = &simulation.disk;
        disk.files().iter().map(|file| disk.peek(file).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(bytes(), bytes());
    let files = bytes();
    assert_eq!(files.len(), 2);
    assert_eq!((files[0].len(), files[1].len()), (32 + 16 + 1, 32 + 16 + 2));
    assert_eq!(files[1][12..16], 49_u32.to_le_bytes(), "the second knows where the first ended");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_frames_in_any_grouping_come_back(
        frames in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), 0..4_u8), 0..40),
        segment_bytes in 64..2_000_u64,
    ) {
        let env = Env::in_memory();
        let (mut wal, _) = open(&env, segment_bytes);
        let mut written = Vec::new();
        for (body, then) in frames {
            let position = wal.append(&[&body]).unwrap();
            written.push((position, body));
            match then {
                0 => { wal.commit().unwrap(); }
                1 => { wal.write().unwrap(); }
                2 => { wal.cut(); }
                _ => {
                    wal.commit().unwrap();
                    wal = open(&env, segment_bytes).0;
                }
            }
        }
        wal.commit().unwrap();
        prop_assert_eq!(read(&env, Position::START), written);
    }
}
