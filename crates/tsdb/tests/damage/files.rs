//! Files that are exchanged, doubled, gone, half-made, or of others.

use std::path::{Path, PathBuf};

use tidewatch_env::{Clock, Env};
use tidewatch_tsdb::Damage;

use crate::ledger::Ledger;
use crate::numbers::Numbers;
use crate::reference::{Reference, check_verified, ingest, open, put, verify};
use crate::support::contents;

#[test]
fn no_exchanged_doubled_or_replaced_file_gives_a_wrong_answer_or_a_silent_loss() {
    let reference = Reference::new();
    let files = &reference.files;
    // An empty newest segment is what a crash leaves of one that was just begun.
    let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "wal");
    for (at, (path, bytes)) in files.iter().enumerate() {
        for (other_path, other) in &files[at + 1..] {
            let empties_log = is_log(path) && other.is_empty() || is_log(other_path) && bytes.is_empty();
            let (names, into) = ((path.display(), other_path.display()), (path, other_path));
            let check = |what: String, changes: &[(&PathBuf, &Vec<u8>)]| {
                reference.check_unless(&what, empties_log, |simulation| {
                    changes.iter().for_each(|(path, bytes)| put(simulation, path, bytes));
                });
            };
            check(format!("{} and {} exchanged", names.0, names.1), &[(into.0, other), (into.1, bytes)]);
            check(format!("{} over {}", names.0, names.1), &[(into.1, bytes)]);
            check(format!("{} over {}", names.1, names.0), &[(into.0, other)]);
        }
    }
    for (path, bytes) in files {
        for name in
            ["blocks/00000099.block", "wal/00000099.wal", "head/shard-09.image", "blocks/00000001.tombstones"]
        {
            let twin = Path::new("/data").join(name);
            let context = format!("{} again as {name}", path.display());
            reference.check(&context, |simulation| put(simulation, &twin, bytes));
        }
    }
}

#[test]
fn a_missing_file_costs_what_was_in_it_and_no_more() {
    let reference = Reference::new();
    for (path, _) in &reference.files {
        let context = format!("without {}", path.display());
        // Of the log the newest segment leaves no trace.
        let simulation = reference.disk();
        simulation.env.disk.remove(path).expect("there");
        let last_of_log = path.extension().is_some_and(|extension| extension == "wal");
        let said = verify(&simulation).iter().any(|said| path == Path::new(&said.0));
        let is_image = path.extension().is_some_and(|extension| extension == "image");
        let is_tombstones = path.extension().is_some_and(|extension| extension == "tombstones");
        assert!(said || !is_image && !is_tombstones, "{context}");
        let named = reference.check_unless(&context, last_of_log, |simulation| {
            simulation.env.disk.remove(path).expect("there");
        });
        // Without the list nothing is missing, and with it a block is, whatever it held.
        let is_block = path.extension().is_some_and(|extension| extension == "block");
        // The log has been trimmed, so there were images of all shards.
        assert!(named || !is_block && !is_image && !is_tombstones, "{context}");
    }
}

/// Nothing else says so where no image speaks of the log yet.
#[test]
fn a_log_whose_directory_is_gone_is_named() {
    let young = Env::simulated(5);
    let db = open(&young, u64::MAX).expect("a good disk");
    ingest(&db, &young, &mut Ledger::default(), 0, 0);
    drop(db);
    young.disk.kill();
    let old = Reference::new();
    for (simulation, name, gone) in [
        (young, "without images", &["wal"][..]),
        (old.disk(), "with images", &["wal"]),
        (old.disk(), "images gone, too", &["wal", "head"]),
    ] {
        for dir in gone {
            simulation.env.disk.remove_dir_all(&Path::new("/data").join(dir)).expect("there");
        }
        let verified = verify(&simulation);
        let said = verified.iter().any(|(path, reason)| path == "/data/wal" && reason.contains("missing"));
        assert!(said, "{name}: {verified:?}");
        let db = open(&simulation, u64::MAX).expect("opens");
        check_verified(verified, &db.status().damage, name);
        drop(db);
        simulation.disk.kill();
        let named = |damage: Vec<Damage>| damage.iter().any(|damage| damage.path == "/data/wal");
        assert!(
            !named(open(&simulation, u64::MAX).expect("opens").status().damage),
            "{name}, for the second time"
        );
    }
}

/// Numbers of blocks and segments do not come again, so nobody else would ever remove these.
#[test]
fn files_that_were_not_whole_yet_go_at_a_start_and_those_of_others_stay() {
    let reference = Reference::new();
    let of_crashes = [
        "wal/00000098.wal.tmp",
        "head/series.image.tmp",
        "head/shard-09.image.tmp",
        "blocks/00000098.block.tmp",
        "blocks/00000001.tombstones.tmp",
        "blocks/LIST.tmp",
        "LIST.tmp",
        "snapshots/20261128T014500Z-0123456789abcdef.tmp/blocks/00000001.block",
    ];
    let of_others = [
        "00000098.block.tmp",
        "wal/00000098.block.tmp",
        "wal/98.wal.tmp",
        "wal/00000098.wal.tmp.1",
        "head/shard-99.image.tmp",
        "head/LIST.tmp",
        "blocks/000000098.block.tmp",
        "blocks/+0000098.tombstones.tmp",
        "blocks/00000098.tmp",
        "blocks/00000098.block.bak",
        "blocks/.tmp",
        "damaged/00000098.block.tmp",
        "snapshots/20261128T014500Z-0123456789abcdef/blocks/00000001.block",
        "snapshots/20261128T014500Z.tmp/note.txt",
        "snapshots/20261128T014500Z-0123456789ABCDEF.tmp/note.txt",
        "snapshots/before-upgrade-2026-11-28-monday.tmp/note.txt",
    ];
    let simulation = reference.disk();
    for name in of_crashes.iter().chain(&of_others) {
        put(&simulation, &Path::new("/data").join(name), b"half a file");
    }
    // A directory is none of them.
    put(&simulation, Path::new("/data/blocks/00000097.block.tmp/note.txt"), b"of others");
    let db = open(&simulation, u64::MAX).expect("opens");
    reference.ledger.check(&contents(&db), "with half-made files");
    assert_eq!(db.status().damage, []);
    let is_there = |name: &str| simulation.disk.peek(&Path::new("/data").join(name)).is_ok();
    let stayed: Vec<_> = of_crashes.into_iter().filter(|name| is_there(name)).collect();
    assert_eq!(stayed, [""; 0]);
    let gone: Vec<_> = of_others.into_iter().filter(|name| !is_there(name)).collect();
    assert_eq!(gone, [""; 0]);
    assert!(is_there("blocks/00000097.block.tmp/note.txt"));
}

/// Images and the log name series by numbers. Those of another directory gave ours the samples of its own.
#[test]
fn no_image_or_segment_of_another_directory_is_believed() {
    let (ours, other) = (Reference::new(), Reference::of(6, 100));
    let is_below =
        |path: &Path, dirs: &[&str]| dirs.iter().any(|dir| path.starts_with(Path::new("/data").join(dir)));
    for (path, bytes) in
        other.files.iter().filter(|(path, _)| is_below(path, &["head", "wal", "OWNER", "LIST"]))
    {
        let context = format!("{} of another directory", path.display());
        let named = ours.check(&context, |simulation| put(simulation, path, bytes));
        assert!(named || path.ends_with("LIST"), "{context}");
    }
    for dir in ["head", "wal"] {
        let named = ours.check(&format!("{dir} of another directory"), |simulation| {
            for (path, _) in ours.files.iter().filter(|(path, _)| is_below(path, &[dir])) {
                simulation.env.disk.remove(path).expect("there");
            }
            for (path, bytes) in other.files.iter().filter(|(path, _)| is_below(path, &[dir])) {
                put(simulation, path, bytes);
            }
        });
        assert!(named, "{dir} of another directory");
    }
    // Without any mark the files say whose they are.
    let simulation = ours.disk();
    simulation.env.disk.remove(Path::new("/data/OWNER")).expect("there");
    let db = open(&simulation, u64::MAX).expect("opens");
    assert_eq!(contents(&db), ours.whole);
    let said: Vec<String> = db.status().damage.into_iter().map(|damage| damage.path).collect();
    assert_eq!(said, ["/data/OWNER"]);
    let mark = |path: &Path| ours.files.iter().find(|(name, _)| name == path).expect("there").1.clone();
    assert_eq!(
        simulation.disk.peek(Path::new("/data/OWNER")).expect("there"),
        mark(Path::new("/data/OWNER"))
    );
}

/// A block is of use wherever it is brought. But the one that it took the place of is gone.
#[test]
fn a_block_in_the_place_of_another_is_named() {
    let ours = Reference::new();
    let blocks: Vec<_> = ours.files.iter().filter(|(path, _)| is_block(path)).collect();
    let (path, _) = blocks[0];
    let simulation = ours.disk();
    let other = Env::simulated(9);
    let db = open(&other, u64::MAX).expect("a good disk");
    let mut ledger = Ledger::default();
    while other.disk.peek(path).is_err() {
        ingest(&db, &other, &mut ledger, 7, 1);
        other.clock.advance_ms(30 * 60_000);
        while let Some(job) = db.next_job(other.clock.wall_ms()) {
            db.run(job).expect("a good disk");
        }
    }
    put(&simulation, path, &other.disk.peek(path).expect("there"));
    let verified = verify(&simulation);
    let db = open(&simulation, u64::MAX).expect("opens");
    let damage = db.status().damage;
    assert!(
        damage.iter().any(|damage| damage.reason.starts_with("the file is another block: ")),
        "{damage:?}"
    );
    check_verified(verified, &damage, "another block");
}

fn is_block(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "block")
}

#[test]
fn files_of_others_are_left_alone() {
    let reference = Reference::new();
    let mut numbers = Numbers(3);
    let noise: Vec<u8> = (0..700).map(|_| numbers.upto(255) as u8).collect();
    let last = "18446744073709551615.wal";
    for dir in ["", "wal", "head", "blocks", "snapshots", "damaged"] {
        for name in
            ["note.txt", "00000099", "core", ".nfs0001", "00000003.block.tmp", "00000003.wal.bak", last]
        {
            let path = Path::new("/data").join(dir).join(name);
            let context = format!("with {}", path.display());
            let named = reference.check(&context, |simulation| put(simulation, &path, &noise));
            assert!(!named, "{context}: nothing of ours is damaged");
        }
        // A directory where a file would be.
        for name in ["00000098.block", "00000098.wal", "shard-09.image", "00000077.tombstones"] {
            let instead = Path::new("/data").join(dir).join(name);
            if reference.files.iter().any(|(path, _)| *path == instead) {
                continue;
            }
            let path = instead.join("file");
            reference.check(&format!("with {}", path.display()), |simulation| put(simulation, &path, &noise));
        }
    }
    for name in [
        "blocks/00000098.block",
        "blocks/2147483647.block",
        "wal/00000098.wal",
        "head/shard-09.image",
        "blocks/00000001.tombstones",
    ] {
        let path = Path::new("/data").join(name);
        reference.check(&format!("noise as {name}"), |simulation| put(simulation, &path, &noise));
        reference.check(&format!("nothing as {name}"), |simulation| put(simulation, &path, &[]));
    }
}
