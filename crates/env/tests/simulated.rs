//! The simulated disk can be trusted: it keeps all that was synced, loses only what it may, and
//! really does lose, tear and reorder the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use tidewatch_env::sim::{Failure, SimDisk};
use tidewatch_env::{Disk, Env, File, Job, Open, create_dir_durably, replace_durably};

fn path(name: &str) -> PathBuf {
    Path::new("/data").join(name)
}

/// A disk with the durable directory /data.
fn disk() -> SimDisk {
    let disk = SimDisk::new(7);
    create_dir_durably(&disk, Path::new("/data")).unwrap();
    disk
}

/// Puts a durable file there.
fn durable_file(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.open(&path(name), Open::Create).unwrap();
    file.append(bytes).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/data")).unwrap();
    file
}

/// All that a crash can leave of `name`, over many seeds.
fn outcomes(build: impl Fn() -> SimDisk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    (0..300)
        .map(|seed| {
            let disk = build();
            disk.crash(seed);
            disk.peek(&path(name)).ok()
        })
        .collect()
}

#[test]
fn what_was_synced_stays_and_what_was_not_may_go() {
    let left = outcomes(
        || {
            let disk = disk();
            durable_file(&disk, "f", b"safe").append(b"+risk").unwrap();
            disk
        },
        "f",
    );
    assert!(left.iter().all(|bytes| bytes.as_ref().is_some_and(|bytes| bytes.starts_with(b"safe"))));
    assert!(left.contains(&Some(b"safe".to_vec())), "all of it can go");
    assert!(left.contains(&Some(b"safe+risk".to_vec())), "all of it can stay");
    assert!(left.contains(&Some(b"safe+r".to_vec())), "it can be torn");
    assert!(left.contains(&Some(b"safe\0\0\0\0\0".to_vec())), "the length can come without the bytes");
}

#[test]
fn a_later_write_can_reach_the_disk_before_an_earlier_one() {
    let left = outcomes(
        || {
            let disk = disk();
            let file = durable_file(&disk, "f", &[0; 1024]);
            file.write_at(0, &[1; 512]).unwrap();
            file.write_at(512, &[2; 512]).unwrap();
            disk
        },
        "f",
    );
    let reordered = [[0_u8; 512], [2; 512]].concat();
    assert!(left.contains(&Some(reordered)));
}

#[test]
fn a_name_is_lost_without_a_sync_of_its_directory() {
    let left = outcomes(
        || {
            let disk = disk();
            let file = disk.open(&path("new"), Open::Create).unwrap();
            file.append(b"x").unwrap();
            file.sync().unwrap();
            disk
        },
        "new",
    );
    assert_eq!(left, BTreeSet::from([None, Some(b"x".to_vec())]), "its bytes were synced, its name was not");
}

#[test]
fn a_rename_can_be_durable_before_the_bytes_of_its_file() {
    let left = outcomes(
        || {
            let disk = disk();
            durable_file(&disk, "f", b"old");
            disk.open(&path("beside"), Open::Create).unwrap().append(b"new").unwrap();
            disk.rename(&path("beside"), &path("f")).unwrap();
            disk
        },
        "f",
    );
    assert!(left.contains(&Some(b"old".to_vec())) && left.contains(&Some(b"new".to_vec())));
    assert!(left.contains(&Some(Vec::new())), "the famous empty file");
    assert!(!left.contains(&None), "one of the two is always there");
}

#[test]
fn a_replacement_is_old_or_new_whatever_operation_fails() {
    for failure in [Failure::Crash, Failure::Io, Failure::Full] {
        for n in 1.. {
            let disk = disk();
            replace_durably(&disk, &path("f"), b"old").unwrap();
            disk.fail_at(disk.changes() + n, failure);
            let outcome = replace_durably(&disk, &path("f"), b"newer");
            let fired = disk.fired();
            disk.crash(n * 31 + 2);
            let left = disk.peek(&path("f")).unwrap();
            assert!(left == b"newer" || outcome.is_err() && left == b"old", "{failure:?} at {n}: {left:?}");
            disk.free_space();
            replace_durably(&disk, &path("f"), b"newest").unwrap();
            if !fired {
                break;
            }
        }
    }
}

#[test]
fn a_directory_is_durable_even_if_its_creator_was_killed_half_way() {
    for n in 1..8 {
        let disk = SimDisk::new(n);
        disk.fail_at(n, Failure::Crash);
        let _ = create_dir_durably(&disk, Path::new("/a/b/c"));
        disk.kill();
        create_dir_durably(&disk, Path::new("/a/b/c")).unwrap();
        disk.crash(0);
        assert!(disk.exists(Path::new("/a/b/c")).unwrap(), "operation {n}");
    }
}

#[test]
fn a_rename_between_directories_loses_neither_name_nor_file() {
    for seed in 0..200 {
        let disk = disk();
        create_dir_durably(&disk, Path::new("/data/a")).unwrap();
        create_dir_durably(&disk, Path::new("/data/b")).unwrap();
        replace_durably(&disk, &path("a/f"), b"x").unwrap();
        disk.rename(&path("a/f"), &path("b/f")).unwrap();
        if seed % 2 == 0 {
            disk.sync_dir(&path("b")).unwrap();
        }
        disk.crash(seed);
        let there = [disk.exists(&path("a/f")).unwrap(), disk.exists(&path("b/f")).unwrap()];
        assert_eq!(there.iter().filter(|there| **there).count(), 1, "seed {seed}: {there:?}");
        assert!(seed % 2 == 1 || there[1], "seed {seed}: it was synced");
    }
}

#[test]
fn a_failed_sync_is_never_made_good_by_the_next() {
    let mut lost = 0;
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        create_dir_durably(&disk, Path::new("/data")).unwrap();
        let file = durable_file(&disk, "f", b"safe");
        file.append(b"+risk").unwrap();
        disk.fail_at(disk.changes() + 1, Failure::Io);
        file.sync().unwrap_err();
        assert_eq!(disk.peek(&path("f")).unwrap(), b"safe+risk", "it stays visible");
        file.sync().unwrap();
        disk.crash(1);
        lost += usize::from(disk.peek(&path("f")).unwrap() != b"safe+risk");
    }
    assert!((1..100).contains(&lost), "sometimes it was written, sometimes not: {lost}");
}

#[test]
fn a_full_disk_refuses_room_but_lets_go_of_it() {
    let disk = disk();
    let file = durable_file(&disk, "f", b"12345678");
    disk.fail_at(disk.changes() + 1, Failure::Full);
    assert_eq!(file.append(b"123456").unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.open(&path("g"), Open::Create).err().unwrap().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.space(Path::new("/")).unwrap().free_bytes, 0);
    file.truncate(2).unwrap();
    file.sync().unwrap();
    disk.remove(&path("f")).unwrap();
    disk.free_space();
    disk.open(&path("g"), Open::Create).unwrap().append(b"x").unwrap();
}

#[test]
fn a_disk_with_a_size_runs_full_by_itself() {
    let disk = disk();
    disk.set_capacity(10);
    let file = durable_file(&disk, "f", b"12345678");
    assert_eq!(file.append(b"1234").unwrap_err().kind(), ErrorKind::StorageFull);
    file.truncate(8).unwrap();
    assert_eq!(disk.space(Path::new("/")).unwrap().free_bytes, 2);
    file.append(b"12").unwrap();
}

#[test]
fn a_crash_ends_handles_and_locks_and_everything_else() {
    let disk = disk();
    let file = durable_file(&disk, "f", b"x");
    let lock = disk.lock(&path("lock")).unwrap();
    assert_eq!(disk.lock(&path("lock")).err().unwrap().kind(), ErrorKind::WouldBlock);
    disk.fail_at(disk.changes() + 1, Failure::Crash);
    file.sync().unwrap_err();
    disk.list(Path::new("/data")).unwrap_err();
    disk.map(&path("f")).unwrap_err();
    disk.crash(0);
    file.append(b"y").unwrap_err();
    let _again = disk.lock(&path("lock")).unwrap();
    drop(lock);
    assert_eq!(
        disk.lock(&path("lock")).err().unwrap().kind(),
        ErrorKind::WouldBlock,
        "an old lock frees no new one"
    );
    assert_eq!(disk.peek(&path("f")).unwrap(), b"x");
}

#[test]
fn a_killed_process_leaves_its_writes_to_the_next() {
    let disk = disk();
    durable_file(&disk, "f", b"safe").append(b"+risk").unwrap();
    disk.kill();
    assert_eq!(disk.peek(&path("f")).unwrap(), b"safe+risk");
    disk.crash(0);
    assert_eq!(disk.peek(&path("f")).unwrap(), b"safe");
}

#[test]
fn reads_fail_when_told_and_where_told() {
    let disk = disk();
    let file = durable_file(&disk, "f", b"0123456789");
    disk.fail_read_at(disk.reads() + 1);
    file.read_at(0, &mut [0; 4]).unwrap_err();
    assert_eq!(file.read_at(0, &mut [0; 4]).unwrap(), 4);
    disk.make_unreadable(&path("f"), 6..8).unwrap();
    assert_eq!(file.read_at(0, &mut [0; 6]).unwrap(), 6);
    file.read_at(4, &mut [0; 4]).unwrap_err();
    disk.map(&path("f")).unwrap_err();
}

#[test]
fn a_plain_disk_forgets_nothing() {
    let disk = SimDisk::plain();
    disk.open(Path::new("f"), Open::Create).unwrap().append(b"x").unwrap();
    disk.crash(0);
    assert_eq!(disk.peek(Path::new("/f")).unwrap(), b"x");
}

#[test]
fn jobs_run_in_an_order_that_only_the_seed_decides() {
    let order = |seed| {
        let order = std::sync::Mutex::new(Vec::new());
        let jobs = (0..8).map(|index| {
            Box::new({
                let order = &order;
                move || order.lock().unwrap().push(index)
            }) as Job<'_>
        });
        Env::simulated(seed).env.parallel.run(jobs.collect());
        order.into_inner().unwrap()
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
    assert_eq!(order(3).into_iter().collect::<BTreeSet<_>>(), (0..8).collect());
}

#[test]
fn the_clock_moves_when_told() {
    let simulation = Env::simulated(1);
    let start = simulation.env.clock.wall_ms();
    simulation.clock.advance_ms(1_500);
    assert_eq!(simulation.env.clock.wall_ms(), start + 1_500);
    simulation.clock.jump_to_ms(5);
    assert_eq!((simulation.env.clock.wall_ms(), simulation.env.clock.monotonic_ns()), (5, 1_500_000_000));
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Write { file: usize, offset: u64, len: usize },
    Append { file: usize, len: usize },
    Truncate { file: usize, len: u64 },
    Sync { file: usize },
    Rename { from: usize, to: usize },
    Remove { file: usize },
    SyncDir,
}

fn step() -> impl Strategy<Value = Step> {
    let file = 0..3_usize;
    prop_oneof![
        (file.clone(), 0..2_000_u64, 1..1_500_usize).prop_map(|(file, offset, len)| Step::Write {
            file,
            offset,
            len
        }),
        (file.clone(), 1..1_500_usize).prop_map(|(file, len)| Step::Append { file, len }),
        (file.clone(), 0..2_000_u64).prop_map(|(file, len)| Step::Truncate { file, len }),
        file.clone().prop_map(|file| Step::Sync { file }),
        (file.clone(), file.clone()).prop_map(|(from, to)| Step::Rename { from, to }),
        file.prop_map(|file| Step::Remove { file }),
        Just(Step::SyncDir),
    ]
}

/// The naive reference: which bytes and names are promised, and which bytes may be anything.
#[derive(Debug, Default, Clone)]
struct Promise {
    /// Bytes at the last sync.
    synced: Vec<u8>,
    /// From the smallest to the largest byte that changed since.
    dirty: Option<(u64, u64)>,
}

impl Promise {
    fn touch(&mut self, from: u64, until: u64) {
        let (low, high) = self.dirty.unwrap_or((from, until));
        self.dirty = Some((low.min(from), high.max(until)));
    }

    fn check(&self, left: &[u8]) {
        let (low, high) = self.dirty.unwrap_or((u64::MAX, 0));
        for (at, byte) in self.synced.iter().enumerate() {
            let clean = (at as u64) < low || at as u64 >= high;
            assert!(!clean || left.get(at) == Some(byte), "synced byte {at} is gone");
        }
        if self.dirty.is_none() {
            assert_eq!(left, self.synced);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn synced_bytes_under_synced_names_survive_any_crash(steps in prop::collection::vec(step(), 1..40), seed: u64) {
        let disk = disk();
        // Inode number by name, now and durable; the promise of each inode.
        let mut names: BTreeMap<usize, usize> = BTreeMap::new();
        let mut durable_names = names.clone();
        let mut names_changed = false;
        let mut promises: Vec<Promise> = Vec::new();
        let name = |file: usize| path(&file.to_string());
        for (at, step) in steps.into_iter().enumerate() {
            let fill = vec![at as u8 + 1; 1_500];
            match step {
                Step::Write { file, .. } | Step::Append { file, .. } if !names.contains_key(&file) => {
                    disk.open(&name(file), Open::Create).unwrap();
                    names.insert(file, promises.len());
                    promises.push(Promise::default());
                    names_changed = true;
                }
                Step::Write { file, offset, len } => {
                    disk.open(&name(file), Open::Write).unwrap().write_at(offset, &fill[..len]).unwrap();
                    promises[names[&file]].touch(offset, offset + len as u64);
                }
                Step::Append { file, len } => {
                    let opened = disk.open(&name(file), Open::Write).unwrap();
                    let end = opened.len().unwrap();
                    opened.append(&fill[..len]).unwrap();
                    promises[names[&file]].touch(end, end + len as u64);
                }
                Step::Truncate { file, len } if names.contains_key(&file) => {
                    disk.open(&name(file), Open::Write).unwrap().truncate(len).unwrap();
                    promises[names[&file]].touch(len, u64::MAX);
                }
                Step::Sync { file } if names.contains_key(&file) => {
                    disk.open(&name(file), Open::Write).unwrap().sync().unwrap();
                    promises[names[&file]] = Promise { synced: disk.peek(&name(file)).unwrap(), dirty: None };
                }
                Step::Rename { from, to } if names.contains_key(&from) && from != to => {
                    disk.rename(&name(from), &name(to)).unwrap();
                    let inode = names.remove(&from).unwrap();
                    names.insert(to, inode);
                    names_changed = true;
                }
                Step::Remove { file } if names.contains_key(&file) => {
                    disk.remove(&name(file)).unwrap();
                    names.remove(&file);
                    names_changed = true;
                }
                Step::SyncDir => {
                    disk.sync_dir(Path::new("/data")).unwrap();
                    durable_names = names.clone();
                    names_changed = false;
                }
                _ => {}
            }
        }
        disk.crash(seed);
        if !names_changed {
            let left: BTreeSet<PathBuf> = disk.list(Path::new("/data")).unwrap().into_iter().collect();
            let expected = durable_names.keys().map(|file| PathBuf::from(file.to_string())).collect();
            prop_assert_eq!(left, expected);
            for (file, inode) in &durable_names {
                promises[*inode].check(&disk.peek(&name(*file)).unwrap());
            }
        }
        // Seed 1 keeps everything, seed 0 nothing unsynced: a second crash changes nothing.
        let files = || disk.files().iter().map(|f| (f.clone(), disk.peek(f).unwrap())).collect::<Vec<_>>();
        let before = files();
        disk.crash(seed ^ 1);
        prop_assert_eq!(before, files());
    }
}
