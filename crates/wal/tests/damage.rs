//! Damage costs the damaged frame, never its neighbours, and no frame ever comes back wrong.

use std::path::{Path, PathBuf};

use tidewatch_env::sim::{SimDisk, Simulation};
use tidewatch_env::{Disk, Env, Open};
use tidewatch_wal::{
    Damage, FRAME_HEADER_SIZE, Frame, Item, OpenReport, Position, Reader, SEGMENT_HEADER_SIZE, Wal, WalError,
    WalOptions,
};

const OPTIONS: WalOptions = WalOptions { segment_bytes: 150, segment_min: 1, owner: 0 };

fn dir() -> &'static Path {
    Path::new("/wal")
}

fn file(number: u64) -> PathBuf {
    dir().join(format!("{number:08}.wal"))
}

/// Three segments, of three, three and one frame.
fn small_log() -> (Simulation, Vec<Frame>) {
    let simulation = Env::simulated(3);
    let (wal, _) = Wal::open(&simulation.env, dir(), OPTIONS).unwrap();
    for index in 0..7_u8 {
        wal.append(&[&[index; 20]]).unwrap();
    }
    wal.commit().unwrap();
    assert_eq!(wal.segments(), [1, 2, 3]);
    let (frames, damage) = read(&simulation.env);
    assert_eq!((frames.len(), damage), (7, vec![]));
    (simulation, frames)
}

fn read(env: &Env) -> (Vec<Frame>, Vec<Damage>) {
    read_from(env, Position::START)
}

fn read_from(env: &Env, from: Position) -> (Vec<Frame>, Vec<Damage>) {
    let mut reader = Reader::open(env, dir(), from).unwrap();
    let (mut frames, mut damage) = (Vec::new(), Vec::new());
    while let Some(item) = reader.read().unwrap() {
        match item {
            Item::Frame(frame) => frames.push(frame),
            Item::Damage(found) => damage.push(found),
        }
    }
    (frames, damage)
}

/// The frames that have nothing of the bytes `from..until` of segment `number`.
fn unharmed(frames: &[Frame], number: u64, from: usize, until: usize) -> Vec<Frame> {
    let harmed = |frame: &&Frame| {
        frame.position.segment == number
            && (frame.position.offset as usize) < until
            && from < frame.end.offset as usize
    };
    frames.iter().filter(|frame| !harmed(frame)).cloned().collect()
}

fn copy(disk: &SimDisk, from: u64, to: u64) {
    let bytes = disk.peek(&file(from)).unwrap();
    if !disk.exists(&file(to)).unwrap() {
        disk.open(&file(to), Open::Create).unwrap();
    }
    disk.poke(&file(to), &bytes).unwrap();
}

#[test]
fn every_flipped_bit_costs_its_frame_alone_and_is_named() {
    let (simulation, frames) = small_log();
    for number in 1..=3 {
        let good = simulation.disk.peek(&file(number)).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            simulation.disk.poke(&file(number), &bad).unwrap();
            let (left, damage) = read(&simulation.env);
            assert_eq!(
                left,
                unharmed(&frames, number, bit / 8, bit / 8 + 1),
                "bit {bit} of segment {number}"
            );
            let at = (bit / 8) as u64;
            let named =
                damage.iter().any(|d| d.path == file(number) && (d.offset..d.offset + d.len).contains(&at));
            let is_last_frame = number == 3 && bit / 8 >= SEGMENT_HEADER_SIZE;
            assert_eq!(named, !is_last_frame, "bit {bit} of segment {number}: {damage:?}");
            if is_last_frame {
                // It could be a write that was under way, so opening tells of it.
                let (_, report) = Wal::open(&simulation.env, dir(), OPTIONS).unwrap();
                assert_eq!(report.torn.map(|torn| torn.path), Some(file(3)));
            }
        }
        simulation.disk.poke(&file(number), &good).unwrap();
    }
}

#[test]
fn a_file_cut_at_any_byte_keeps_what_is_in_front_of_it() {
    let (simulation, frames) = small_log();
    for number in 1..=3 {
        let good = simulation.disk.peek(&file(number)).unwrap();
        for len in 0..good.len() {
            simulation.disk.poke(&file(number), &good[..len]).unwrap();
            let (left, damage) = read(&simulation.env);
            assert_eq!(left, unharmed(&frames, number, len, good.len()), "{len} bytes of segment {number}");
            let named = damage.iter().any(|d| d.path == file(number));
            assert!(named || number == 3, "{len} bytes of segment {number}: {damage:?}");
        }
        simulation.disk.poke(&file(number), &good).unwrap();
    }
}

#[test]
fn a_log_opens_and_goes_on_whatever_its_newest_segment_looks_like() {
    let (reference, _) = small_log();
    let good = reference.disk.peek(&file(3)).unwrap();
    for len in 0..=good.len() {
        let (simulation, frames) = small_log();
        simulation.disk.poke(&file(3), &good[..len]).unwrap();
        let changes = simulation.disk.changes();
        let looked = OpenReport::look(&simulation.env, dir(), OPTIONS).unwrap();
        assert_eq!(simulation.disk.changes(), changes);
        let (wal, report) = Wal::open(&simulation.env, dir(), OPTIONS).unwrap();
        assert_eq!((looked.first_segment, looked.end, &looked.torn), (4, report.end, &report.torn));
        let is_whole = [SEGMENT_HEADER_SIZE, good.len()].contains(&len);
        assert_eq!(report.torn.is_none(), is_whole, "{len} bytes: {report:?}");
        wal.append(&[b"new"]).unwrap();
        wal.commit().unwrap();
        let (left, damage) = read(&simulation.env);
        let mut expected: Vec<&[u8]> = frames[..6].iter().map(|frame| &frame.bytes[..]).collect();
        if len == good.len() {
            expected.push(&frames[6].bytes);
        }
        expected.push(b"new");
        assert_eq!(left.iter().map(|frame| &frame.bytes[..]).collect::<Vec<_>>(), expected);
        assert_eq!(damage, [], "a torn end stays a torn end after the log went on");
        assert_eq!(simulation.disk.peek(&file(3)).unwrap(), good[..len], "and is left as it is");
    }
}

#[test]
fn zeros_behind_the_last_frame_are_a_torn_end() {
    let (simulation, frames) = small_log();
    let mut bytes = simulation.disk.peek(&file(3)).unwrap();
    bytes.resize(bytes.len() + 5_000, 0);
    simulation.disk.poke(&file(3), &bytes).unwrap();
    let (_, report) = Wal::open(&simulation.env, dir(), OPTIONS).unwrap();
    assert_eq!(report.torn.map(|torn| torn.len), Some(5_000));
    assert_eq!(read(&simulation.env), (frames, vec![]));
}

#[test]
fn a_range_that_the_disk_cannot_read_costs_the_frames_in_it() {
    let (simulation, _) = small_log();
    let (wal, _) =
        Wal::open(&simulation.env, dir(), WalOptions { segment_bytes: 1 << 20, segment_min: 1, owner: 0 })
            .unwrap();
    for index in 0..100_u8 {
        wal.append(&[&[index; 200]]).unwrap();
    }
    wal.commit().unwrap();
    let (frames, _) = read(&simulation.env);
    simulation.disk.make_unreadable(&file(4), 9_000..9_001).unwrap();
    let (left, damage) = read(&simulation.env);
    assert_eq!(left, unharmed(&frames, 4, 8_192, 12_288), "4 KiB around it are given up");
    assert_eq!((damage.len(), &damage[0].path, damage[0].reason), (1, &file(4), "the disk cannot read this"));
    Wal::open(&simulation.env, dir(), OPTIONS).unwrap();
}

#[test]
fn a_missing_segment_is_named() {
    let (simulation, frames) = small_log();
    simulation.disk.remove(&file(2)).unwrap();
    let (left, damage) = read(&simulation.env);
    assert_eq!(left, unharmed(&frames, 2, 0, usize::MAX));
    assert_eq!((damage.len(), &damage[0].path, damage[0].reason), (1, &file(2), "the segment is missing"));
    let (_, damage) = read_from(&simulation.env, frames[3].position);
    assert_eq!(damage[0].path, file(2), "also where reading was to begin in it");
}

#[test]
fn segments_under_each_others_names_are_not_believed() {
    let (simulation, frames) = small_log();
    copy(&simulation.disk, 1, 9);
    copy(&simulation.disk, 2, 1);
    copy(&simulation.disk, 9, 2);
    simulation.disk.remove(&file(9)).unwrap();
    let (left, damage) = read(&simulation.env);
    assert_eq!(left, frames[6..]);
    assert_eq!(damage.iter().map(|d| &d.path).collect::<Vec<_>>(), [&file(1), &file(2)]);
}

#[test]
fn a_doubled_segment_does_not_double_its_frames() {
    let (simulation, frames) = small_log();
    copy(&simulation.disk, 2, 4);
    let (left, damage) = read(&simulation.env);
    assert_eq!((left, damage.len()), (frames, 1));
    let (wal, _) = Wal::open(&simulation.env, dir(), OPTIONS).unwrap();
    assert_eq!(wal.append(&[b"x"]).unwrap().segment, 5);
}

#[test]
fn foreign_files_are_named_and_left_alone() {
    let (simulation, frames) = small_log();
    let stranger = dir().join("00000001.wal.bak");
    simulation.disk.open(&stranger, Open::Create).unwrap().append(b"?").unwrap();
    let (wal, report) = Wal::open(&simulation.env, dir(), OPTIONS).unwrap();
    wal.remove_before(u64::MAX).unwrap();
    assert_eq!(report.foreign, std::slice::from_ref(&stranger));
    assert_eq!(simulation.disk.peek(&stranger).unwrap(), b"?");
    assert_eq!(read(&simulation.env), (frames[6..].to_vec(), vec![]));
}

/// A log of some owner, of three segments, with frames of this byte.
fn owned_log(owner: u64, byte: u8, frames: usize, len: usize) -> Simulation {
    let simulation = Env::simulated(owner);
    let options = WalOptions { owner, ..OPTIONS };
    let (wal, _) = Wal::open(&simulation.env, dir(), options).unwrap();
    for _ in 0..frames {
        wal.append(&[&vec![byte; len]]).unwrap();
    }
    wal.commit().unwrap();
    assert_eq!(wal.segments(), [1, 2, 3]);
    simulation
}

// Frames of another log, at the same places, were taken for those of this one.
#[test]
fn no_segment_of_another_owner_is_believed() {
    // Its segments end before ours: what they say of that is not of ours.
    let other = owned_log(9, 9, 6, 30);
    for number in 1..=3 {
        let ours = owned_log(8, 8, 3, 100);
        ours.disk.poke(&file(number), &other.disk.peek(&file(number)).unwrap()).unwrap();
        let read = |owner: u64| {
            let mut reader = Reader::open(&ours.env, dir(), Position::START).unwrap().of(owner);
            let items = std::iter::from_fn(|| reader.read().unwrap());
            items
                .map(|item| match item {
                    Item::Frame(frame) => format!("{}", frame.bytes[0]),
                    Item::Damage(damage) => damage.reason.split(':').next().unwrap().to_owned(),
                })
                .collect::<Vec<_>>()
        };
        let mut expected = ["8"; 3];
        expected[number as usize - 1] = "the segment is of another data directory";
        assert_eq!(read(8), expected);
        // Who does not say who he is asks nobody.
        assert_eq!(read(0).iter().filter(|text| *text == "9").count(), 2);
        let (wal, report) = Wal::open(&ours.env, dir(), WalOptions { owner: 8, ..OPTIONS }).unwrap();
        assert_eq!((report.first_segment, report.end.is_some()), (4, number < 3));
        wal.append(&[&[8; 100]]).unwrap();
        wal.commit().unwrap();
        assert_eq!(read(8)[3..], ["8"]);
    }
}

#[test]
fn a_segment_of_a_newer_release_is_an_error_of_its_own() {
    let (simulation, _) = small_log();
    let mut bytes = simulation.disk.peek(&file(3)).unwrap();
    bytes[4] = 3;
    let crc = crc32fast::hash(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    simulation.disk.poke(&file(3), &bytes).unwrap();
    let error = Wal::open(&simulation.env, dir(), OPTIONS).err().unwrap();
    assert!(matches!(error, WalError::Version { found: 3, newest: 2, .. }), "{error}");
}

#[test]
fn a_frame_inside_a_clients_data_is_not_believed_when_the_outer_one_is_damaged() {
    // The client knows the format, the place, everything but the salt: it takes the bytes of a
    // frame at the very place where its copy will lie in a log with another seed.
    let lay = |seed, body: &[u8]| {
        let simulation = Env::simulated(seed);
        let (wal, _) = Wal::open(&simulation.env, dir(), WalOptions::default()).unwrap();
        let position = wal.append(&[body]).unwrap();
        wal.append(&[b"inner"]).unwrap();
        wal.commit().unwrap();
        (simulation, position.offset as usize)
    };
    let (other, offset) = lay(1, b"");
    let inner_at = offset + FRAME_HEADER_SIZE;
    let inner = other.disk.peek(&file(1)).unwrap()[inner_at..].to_vec();
    for (seed, believed) in [(2, false), (1, true)] {
        let (simulation, _) = lay(seed, &inner);
        let mut bytes = simulation.disk.peek(&file(1)).unwrap();
        bytes[offset] ^= 1;
        simulation.disk.poke(&file(1), &bytes).unwrap();
        let (left, _) = read(&simulation.env);
        let found = left.iter().any(|frame| frame.position.offset as usize == inner_at);
        assert_eq!(found, believed, "only under the same salt would it pass");
    }
}
