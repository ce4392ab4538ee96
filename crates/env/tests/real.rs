//! The real environment keeps the contract that the simulated one is tested against.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidewatch_env::{Env, Job, Open, create_dir_durably, is_no_file, is_unreadable, replace_durably};

fn real() -> (Env, tempfile::TempDir) {
    (Env::real().expect("threads start"), tempfile::tempdir().expect("a temporary directory"))
}

#[test]
fn appends_and_positioned_writes_share_one_file() {
    let (env, dir) = real();
    let path = dir.path().join("file");
    let file = env.disk.open(&path, Open::Create).unwrap();
    file.reserve(1 << 20).unwrap();
    assert_eq!(file.len().unwrap(), 0, "reserved room is not length");
    file.append(b"hello").unwrap();
    file.write_at(8, b"!").unwrap();
    file.append(b"end").unwrap();
    file.sync().unwrap();
    assert_eq!(&env.disk.map(&path).unwrap()[..], b"hello\0\0\0!end");
    let mut buffer = [0; 8];
    assert_eq!(file.read_at(9, &mut buffer).unwrap(), 3);
    assert_eq!(&buffer[..3], b"end");
    file.truncate(2).unwrap();
    file.append(b"y").unwrap();
    assert_eq!(&env.disk.map(&path).unwrap()[..], b"hey");
}

#[test]
fn an_empty_file_maps_to_no_bytes() {
    let (env, dir) = real();
    let path = dir.path().join("empty");
    env.disk.open(&path, Open::Create).unwrap();
    assert!(env.disk.map(&path).unwrap().is_empty());
}

#[test]
fn opening_says_what_is_there_and_what_is_not() {
    let (env, dir) = real();
    let path = dir.path().join("file");
    assert_eq!(env.disk.open(&path, Open::Read).err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(env.disk.open(&path, Open::Write).err().unwrap().kind(), ErrorKind::NotFound);
    env.disk.open(&path, Open::Create).unwrap();
    assert_eq!(env.disk.open(&path, Open::Create).err().unwrap().kind(), ErrorKind::AlreadyExists);
}

/// A start waited for ever for somebody to write to a pipe that had the name of a block.
#[test]
fn what_is_no_file_is_not_opened() {
    let (env, dir) = real();
    let paths = ["dir", "pipe", "socket"].map(|name| dir.path().join(name));
    let [inner, pipe, socket] = &paths;
    std::fs::create_dir(inner).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
    let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    for path in paths {
        let errors = [
            env.disk.open(&path, Open::Read).err().unwrap(),
            env.disk.open(&path, Open::Write).err().unwrap(),
            env.disk.map(&path).unwrap_err(),
        ];
        errors
            .iter()
            .for_each(|error| assert!(is_no_file(error) && is_unreadable(error), "{path:?}: {error}"));
        assert_eq!(env.disk.open(&path, Open::Create).err().unwrap().kind(), ErrorKind::AlreadyExists);
    }
    let missing = env.disk.map(&dir.path().join("missing")).unwrap_err();
    assert!(!is_no_file(&missing) && !is_unreadable(&missing));
}

#[test]
fn names_are_listed_in_order_and_move_with_their_bytes() {
    let (env, dir) = real();
    let inner = dir.path().join("a/b");
    create_dir_durably(&*env.disk, &inner).unwrap();
    replace_durably(&*env.disk, &inner.join("two"), b"2").unwrap();
    replace_durably(&*env.disk, &inner.join("two"), b"22").unwrap();
    replace_durably(&*env.disk, &inner.join("one"), b"1").unwrap();
    env.disk.link(&inner.join("one"), &inner.join("uno")).unwrap();
    let names = env.disk.list(&inner).unwrap();
    assert_eq!(names, ["one", "two", "uno"].map(|n| Path::new(n).to_owned()));
    assert_eq!(&env.disk.map(&inner.join("two")).unwrap()[..], b"22");
    env.disk.remove_dir_all(&dir.path().join("a")).unwrap();
    assert!(!env.disk.exists(&inner).unwrap());
}

#[test]
fn a_lock_excludes_until_it_is_dropped() {
    let (env, dir) = real();
    let path = dir.path().join("lock");
    let held = env.disk.lock(&path).unwrap();
    assert_eq!(env.disk.lock(&path).err().unwrap().kind(), ErrorKind::WouldBlock);
    drop(held);
    env.disk.lock(&path).unwrap();
}

#[test]
fn the_machine_has_room_time_and_randomness() {
    let (env, dir) = real();
    let space = env.disk.space(dir.path()).unwrap();
    assert!(space.free_bytes <= space.total_bytes && space.total_bytes > 0);
    assert!(env.clock.wall_ms() > 1_700_000_000_000);
    let before = env.clock.monotonic_ns();
    assert!(env.clock.monotonic_ns() >= before);
    assert_ne!(env.entropy.next_u64(), env.entropy.next_u64());
}

#[test]
fn all_jobs_run_and_a_panic_is_passed_on_afterwards() {
    let (env, _dir) = real();
    let done = AtomicUsize::new(0);
    let jobs = |panics: bool| -> Vec<Job<'_>> {
        (0..32)
            .map(|index| {
                let done = &done;
                Box::new(move || {
                    assert!(!(panics && index == 0), "job {index} fails on purpose");
                    done.fetch_add(1, Ordering::Relaxed);
                }) as Job<'_>
            })
            .collect()
    };
    env.parallel.run(jobs(false));
    assert_eq!(done.load(Ordering::Relaxed), 32);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| env.parallel.run(jobs(true))));
    assert!(outcome.is_err());
    assert_eq!(done.load(Ordering::Relaxed), 63, "the others ran to their end");
}
