//! A good log with any damage: what is read was written, there, and undamaged frames are read.

#![no_main]

use std::collections::BTreeMap;
use std::path::Path;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tidewatch_env::Env;
use tidewatch_wal::{Item, Position, Reader, Wal, WalOptions};

#[derive(Debug, Arbitrary)]
struct Input {
    frames: Vec<Vec<u8>>,
    /// Where, counted through all segments, and what to add to the byte.
    damage: Vec<(u16, u8)>,
}

fuzz_target!(|input: Input| {
    let simulation = Env::simulated(1);
    let dir = Path::new("/wal");
    let options = WalOptions { segment_bytes: 300, segment_min: 1, owner: 0 };
    let (wal, _) = Wal::open(&simulation.env, dir, options).expect("memory");
    let written: BTreeMap<Position, &Vec<u8>> =
        input.frames.iter().map(|body| (wal.append(&[body]).expect("room"), body)).collect();
    wal.commit().expect("memory");
    let files = simulation.disk.files();
    let mut hit: Vec<Position> = Vec::new();
    for (at, add) in &input.damage {
        let Some(path) = files.get(usize::from(at >> 9)) else { continue };
        let mut bytes = simulation.disk.peek(path).expect("listed");
        let offset = usize::from(at & 511);
        if offset < bytes.len() && *add != 0 {
            bytes[offset] = bytes[offset].wrapping_add(*add);
            simulation.disk.poke(path, &bytes).expect("listed");
            hit.push(Position { segment: u64::from(at >> 9) + 1, offset: offset as u64 });
        }
    }
    let mut reader = Reader::open(&simulation.env, dir, Position::START).expect("memory");
    let mut read = BTreeMap::new();
    while let Ok(Some(item)) = reader.read() {
        if let Item::Frame(frame) = item {
            assert_eq!(written[&frame.position][..], frame.bytes[..]);
            read.insert(frame.position, frame.end);
        }
    }
    for (position, body) in written {
        let until = Position { offset: position.offset + 16 + body.len() as u64, ..position };
        let damaged = hit.iter().any(|at| position <= *at && *at < until);
        assert!(damaged || read.contains_key(&position), "{position:?} was not damaged");
    }
});
