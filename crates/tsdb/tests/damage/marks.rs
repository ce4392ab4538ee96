//! What says of the directory what it is and what ought to be in it: `FORMAT` and `LIST`.

use std::path::{Path, PathBuf};

use tidewatch_env::sim::Simulation;
use tidewatch_tsdb::{Damage, offline};

use crate::reference::{Reference, open, put, verify};
use crate::support::contents;

/// A directory is ours by what is in it, even without the file that says so.
#[test]
fn a_damaged_or_missing_format_file_is_written_anew() {
    let reference = Reference::new();
    let format = Path::new("/data/FORMAT");
    for text in ["", "tidewatch-data 3\n", "tidewatch-data x\n", "tidewatch-dat", "\0\0\0\0"] {
        let simulation = reference.disk();
        put(&simulation, format, text.as_bytes());
        let db = open(&simulation, u64::MAX).expect("opens");
        reference.ledger.check(&contents(&db), text);
        let damage = db.status().damage;
        assert!(
            damage[0].path == "/data/FORMAT" && damage[0].reason.contains("writes it anew"),
            "{damage:?}"
        );
        drop(db);
        assert_eq!(simulation.disk.peek(format).expect("there"), b"tidewatch-data 1\n");
        simulation.disk.kill();
        assert_eq!(open(&simulation, u64::MAX).expect("opens").status().damage, []);
    }
}

// A tester wrote "tidewatch-data 2" into it: the start took that for damage and wrote 1 over it.
#[test]
fn a_format_file_of_a_newer_release_is_refused_and_left_alone() {
    let reference = Reference::new();
    let (root, format) = (Path::new("/data"), Path::new("/data/FORMAT"));
    for (found, text) in [
        (2, "tidewatch-data 2\n"),
        (2, "tidewatch-data 2"),
        (99, "tidewatch-data 99\n"),
        (2, "tidewatch-data 2\ncrc32 7a3c33c5\n"),
        // What is a bit from the text of today is damage, unless a second line says otherwise.
        (3, "tidewatch-data 3\ncrc32 0d3b0353\n"),
    ] {
        let simulation = reference.disk();
        put(&simulation, format, text.as_bytes());
        let expected = format!(
            "/data/FORMAT: the data directory has format {found}, written by a newer version of Tidewatch; this one \
             reads up to format 1: upgrade, or use another directory"
        );
        let started = open(&simulation, u64::MAX).err();
        let env = &simulation.env;
        let verified = offline::verify(env, root).err().map(|error| error.to_string());
        let listed = offline::blocks(env, root).err().map(|error| error.to_string());
        let repaired = offline::repair(env, root).err().map(|error| error.to_string());
        for said in [started, verified, listed, repaired] {
            assert_eq!(said.as_deref(), Some(&*expected), "{text:?}");
        }
        assert_eq!(simulation.disk.peek(format).expect("there"), text.as_bytes());
    }
}

/// What a look at the directory says of blocks and their list, a line each; a start must say the same, and the second
/// nothing.
#[track_caller]
fn said_of_blocks(simulation: &Simulation) -> Vec<String> {
    let of_blocks = |path: &str| path.starts_with("/data/blocks") || path == "/data/LIST";
    let looked = verify(simulation).into_iter();
    let looked = looked.filter(|(path, _)| of_blocks(path)).map(|(path, reason)| format!("{path}: {reason}"));
    let start = || {
        let damage = open(simulation, u64::MAX).expect("opens").status().damage.into_iter();
        let damage = damage.filter(|damage| of_blocks(&damage.path));
        damage.map(|Damage { path, reason, .. }| format!("{path}: {reason}")).collect::<Vec<_>>()
    };
    let looked: Vec<String> = looked.collect();
    assert_eq!(start(), looked);
    simulation.disk.crash(0);
    assert_eq!(start(), [""; 0], "for the second time");
    looked
}

/// What is to be said where all blocks are gone.
fn all_blocks_gone(reference: &Reference) -> Vec<String> {
    let mut blocks = offline::blocks(&reference.disk().env, Path::new("/data")).expect("readable").blocks;
    blocks.sort_by_key(|block| block.meta().id);
    let line = |block: &tidewatch_tsdb::block::Block| {
        let (path, from, to) = (block.path().display(), block.meta().min_ms, block.meta().max_ms);
        format!(
            "{path}: the file is missing, with its samples from {from} to {to} ms: put it back from a copy while no \
             server has the data; if you put other blocks in its place, nothing is amiss"
        )
    };
    blocks.iter().map(line).collect()
}

// The list of blocks lay among them, and went with them: the start said that the store was complete.
#[test]
fn blocks_that_are_removed_with_all_that_is_beside_them_are_named_once() {
    let reference = Reference::new();
    let lines = all_blocks_gone(&reference);
    assert_ne!(lines, [""; 0]);
    let remove = |simulation: &Simulation, names: &[&str]| {
        for name in names {
            let dir = Path::new("/data").join(name);
            simulation.env.disk.remove_dir_all(&dir).expect("a good disk");
        }
        simulation.env.disk.sync_dir(Path::new("/data")).expect("a good disk");
    };
    let empty = |simulation: &Simulation| {
        let disk = &simulation.env.disk;
        let dir = Path::new("/data/blocks");
        let names = disk.list(dir).expect("a good disk");
        names.iter().for_each(|name| disk.remove(&dir.join(name)).expect("a good disk"));
        disk.sync_dir(dir).expect("a good disk");
    };
    for (what, goes) in [
        (
            "rm -r blocks",
            &(|simulation: &Simulation| remove(simulation, &["blocks"])) as &dyn Fn(&Simulation),
        ),
        ("rm blocks/*", &empty),
        ("rm -r blocks head wal", &|simulation| remove(simulation, &["blocks", "head", "wal"])),
    ] {
        assert!(reference.check(what, goes), "{what}");
        let simulation = reference.disk();
        goes(&simulation);
        assert_eq!(said_of_blocks(&simulation), lines, "{what}");
    }
    // Of a release without a list, or behind a full disk.
    let simulation = reference.disk();
    let _ = simulation.env.disk.remove(Path::new("/data/LIST"));
    remove(&simulation, &["blocks"]);
    let line = "/data/blocks: the directory of blocks is missing, with all that was in blocks: put it back from a copy \
                while no server has the data, or go on without";
    assert_eq!(said_of_blocks(&simulation), [line]);
}

// Who puts a block back that was missing wrote over a new one of its number.
#[test]
fn numbers_of_blocks_that_are_missing_are_not_given_again() {
    let reference = Reference::new();
    let newest = offline::blocks(&reference.disk().env, Path::new("/data")).expect("readable").blocks;
    let newest = newest.iter().map(|block| block.meta().id).max().expect("some");
    let simulation = reference.disk();
    simulation.env.disk.remove_dir_all(Path::new("/data/blocks")).expect("a good disk");
    let db = open(&simulation, u64::MAX).expect("opens");
    db.compact_whole().expect("a good disk");
    let new = offline::blocks(&simulation.env, Path::new("/data")).expect("readable").blocks;
    assert!(!new.is_empty() && new.iter().all(|block| block.meta().id > newest), "{newest:?}");
}

/// Its list is the newer one, where there are two: it knows nothing of the other.
#[test]
fn a_list_of_an_older_release_holds_and_moves() {
    let reference = Reference::new();
    let lines = all_blocks_gone(&reference);
    let (list, before) = (Path::new("/data/LIST"), Path::new("/data/blocks/LIST"));
    let older = |simulation: &Simulation, also_newer: bool| {
        let bytes = simulation.disk.peek(list).expect("there");
        put(simulation, before, &bytes);
        if !also_newer {
            simulation.env.disk.remove(list).expect("a good disk");
        }
    };
    let gone = PathBuf::from(lines[0].split_once(": ").expect("a path").0);
    for (also_newer, is_listed) in [(false, true), (true, true), (true, false)] {
        let simulation = reference.disk();
        older(&simulation, also_newer);
        if !is_listed {
            // The older release has merged or retired them all.
            put(&simulation, before, b"TWBL\x02\0\0\0\0\0\0\0\x48\x4f\xe1\xf5");
        }
        simulation.env.disk.remove(&gone).expect("a good disk");
        assert_eq!(said_of_blocks(&simulation), lines[..usize::from(is_listed)]);
        assert!(simulation.disk.peek(list).is_ok() && simulation.disk.peek(before).is_err());
    }
}
