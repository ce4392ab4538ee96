//! Files that end where they should not.

use std::path::PathBuf;

use tidewatch_env::sim::Simulation;
use tidewatch_env::{Clock, Env};
use tidewatch_storage::TimeRange;
use tidewatch_tsdb::Job;

use crate::ledger::Ledger;
use crate::reference::{Reference, all_of_them, contents_with, ingest, open, put, series, share, verify};
use crate::support::{Contents, contents};

#[test]
fn no_shortened_file_gives_a_wrong_answer_or_a_silent_loss() {
    let reference = Reference::new();
    let (all, mut tried) = (all_of_them(), 0);
    for (path, bytes) in &reference.files {
        // The end of the newest segment of the log is where a crash tears: that is no damage.
        let is_log = path.extension().is_some_and(|extension| extension == "wal");
        for len in (0..bytes.len()).filter(|len| all || len % 11 == 0) {
            let context = format!("{} cut to {len} bytes", path.display());
            let damage = |simulation: &Simulation| put(simulation, path, &bytes[..len]);
            reference.check_unless(&context, is_log, damage);
            tried += 1;
        }
    }
    eprintln!("== {tried} shortened files, {} of all lengths", share(all));
}

#[test]
fn tombstones_of_another_length_hide_what_they_did_while_one_copy_is_whole() {
    let reference = Reference::new();
    let is_one = |path: &&(PathBuf, Vec<u8>)| path.0.extension().is_some_and(|end| end == "tombstones");
    for (path, bytes) in reference.files.iter().filter(is_one) {
        let longer = [&bytes[..], &bytes[..bytes.len() / 2], b"of others"].concat();
        for len in (bytes.len() / 2..=longer.len()).filter(|len| *len != bytes.len()) {
            let simulation = reference.disk();
            put(&simulation, path, &longer[..len]);
            let db = open(&simulation, u64::MAX).expect("opens");
            assert_eq!(contents(&db), reference.whole, "{} with {len} bytes", path.display());
            let said: Vec<String> = db.status().damage.into_iter().map(|damage| damage.path).collect();
            assert_eq!(said, [path.display().to_string()]);
        }
    }
}

/// Where frames end as they should nobody can know that there were more; else it is said what that may be, or must be.
#[test]
fn how_the_newest_segment_ends_is_said_in_words() {
    let reference = Reference::new();
    let newest =
        reference.files.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "wal")).max();
    let (path, whole) = newest.expect("a log").clone();
    let zeros = |from: usize| [&whole[..from], &vec![0; whole.len() - from]].concat();
    let mut headless = whole.clone();
    headless[..32].fill(0);
    let tails = (0..whole.len()).flat_map(|len| [whole[..len].to_vec(), zeros(len)]);
    let (mut silent, mut maybe, mut surely) = (0, 0, 0);
    for bytes in tails.chain([headless]) {
        let said = verify(&{
            let simulation = reference.disk();
            put(&simulation, &path, &bytes);
            simulation
        });
        let said: Vec<String> = said.into_iter().map(|(_, reason)| reason).collect();
        match &said[..] {
            [] => silent += 1,
            [reason] if reason.contains("A crash leaves") => maybe += 1,
            [..] => {
                let reasons = ["it was safe on the disk up to byte", "the header of the segment is damaged"];
                assert!(
                    said.iter().all(|said| reasons.iter().any(|reason| said.contains(reason))),
                    "{said:?}"
                );
                surely += 1;
            }
        }
    }
    // Frames end in as many places.
    assert!(silent > 3 && silent < 20 && maybe > 100 && surely > 0, "{silent}, {maybe}, {surely}");
}

/// The log goes back to the first sample, so it still has all that images lack.
#[test]
fn an_image_that_is_cut_short_costs_nothing_that_the_log_has() {
    let (simulation, mut ledger) = (Env::simulated(5), Ledger::default());
    let db = open(&simulation, u64::MAX).expect("a good disk");
    for step in 0..40 {
        ingest(&db, &simulation, &mut ledger, step / 30, step);
        if step % 10 == 9 {
            let now = simulation.clock.wall_ms();
            let recent = TimeRange { start: now - 100 * 60_000, end: now };
            ledger.delete(&db, &series("m", 1, step / 30), recent);
        }
        if step == 25 {
            while let Some(job) = db.next_job(simulation.clock.wall_ms()) {
                db.run(job).expect("a good disk");
            }
        }
        simulation.clock.advance_ms(15 * 60_000);
    }
    db.run(Job::Image).expect("a good disk");
    ingest(&db, &simulation, &mut ledger, 2, 41);
    let whole = contents(&db);
    drop(db);
    simulation.disk.kill();
    let (mut tried, mut back) = (0, 0);
    let is_image = |path: &PathBuf| path.extension().is_some_and(|end| end == "image");
    for path in simulation.disk.files().into_iter().filter(is_image) {
        let image = simulation.disk.peek(&path).expect("there");
        for len in (0..image.len()).filter(|len| all_of_them() || len % 13 == 0) {
            let read = contents_with(&simulation, &path, &image[..len]);
            let (kept, more): (Contents, Contents) =
                read.into_iter().partition(|(key, _)| whole.contains_key(key));
            assert!(kept == whole, "{} cut to {len} bytes", path.display());
            // An image says what is deleted of it; where that is lost, it is back.
            let is_deleted = |sample| ledger.back_again(&Contents::from([sample])).is_some();
            back += more.len();
            assert!(more.into_iter().all(is_deleted), "{} cut to {len} bytes", path.display());
            tried += 1;
        }
    }
    eprintln!("== {tried} shortened images cost nothing; {back} samples that were deleted are back");
}
