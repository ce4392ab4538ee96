//! Files on a real disk that lose a part while they are mapped: whoever needs that part is told so and
//! which file it is, everything else goes on, and the next start sets the part aside.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use tidewatch_env::Env;
use tidewatch_model::{Batch, Labels, Matcher, RawLabels, Sample};
use tidewatch_storage::{Append, Scratch, Select, SelectError, TimeRange};
use tidewatch_tsdb::{Db, DbOptions};

const STEP_MS: i64 = 15_000;
const SERIES: usize = 24;

struct Stage {
    folder: tempfile::TempDir,
    env: Env,
    db: Db,
    start: i64,
    end: i64,
}

fn series(i: usize) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("i", &i.to_string())])
}

/// The value of a series at a time: no codec makes it shorter, so files have many pages.
fn value(i: usize, timestamp: i64) -> f64 {
    let bits = (timestamp as u64 ^ (i as u64) << 50).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // Between 1 and 2.
    f64::from_bits(bits >> 12 | 0x3ff0_0000_0000_0000)
}

fn options(dir: &Path) -> DbOptions {
    DbOptions { image_log_bytes: 1000, ..DbOptions::new(dir) }
}

fn open(env: &Env, dir: &Path) -> Db {
    let db = Db::open(env.clone(), options(dir)).expect("opens");
    db.recover().expect("recovers");
    db
}

/// Nine hours of samples, of which blocks have the most and images the rest.
fn stage() -> Stage {
    let folder = tempfile::tempdir().expect("a directory");
    let env = Env::real().expect("threads");
    let db = open(&env, folder.path());
    let end = env.clock.wall_ms() / STEP_MS * STEP_MS;
    let start = end - 9 * 3_600_000;
    for timestamp in (start..=end).step_by(STEP_MS as usize) {
        append(&db, timestamp);
    }
    db.commit().expect("a good disk");
    while let Some(job) = db.next_job(env.clock.wall_ms()) {
        db.run(job).expect("a good disk");
    }
    let stage = Stage { folder, env, db, start, end };
    assert!(!stage.files("blocks").is_empty() && stage.files("head").len() > 2);
    assert_eq!(stage.read(stage.start, stage.end), Ok(SERIES * (9 * 240 + 1)));
    stage
}

fn append(db: &Db, timestamp: i64) {
    let labels: Vec<Labels> = (0..SERIES).map(series).collect();
    let mut batch = Batch::new();
    for (i, labels) in labels.iter().enumerate() {
        batch.push(
            RawLabels::Canonical(labels.as_bytes()),
            &[Sample { timestamp, value: value(i, timestamp) }],
        );
    }
    assert_eq!(db.append(&batch).expect("takes writes").refused, []);
}

impl Stage {
    fn files(&self, dir: &str) -> Vec<PathBuf> {
        let found = std::fs::read_dir(self.folder.path().join(dir)).expect("there").flatten();
        let mut files: Vec<PathBuf> = found.map(|entry| entry.path()).collect();
        files.sort();
        files
    }

    /// How many samples there are, all of them right; or what the query says.
    fn read(&self, start: i64, end: i64) -> Result<usize, String> {
        let range = TimeRange { start, end };
        let said = |error: SelectError| error.to_string();
        let selection = self.db.select(&[Matcher::equal("__name__", "m")], range).map_err(said)?;
        let (mut count, mut wrong) = (0, 0);
        let mut visit = |at: usize, run: tidewatch_storage::Run<'_>| {
            let i = selection.labels(at).get("i").expect("all have it").parse().expect("a number");
            let tidewatch_storage::RunValues::Floats(values) = run.values else {
                panic!("floats were written")
            };
            count += values.len();
            wrong += run.timestamps.iter().zip(values).filter(|(t, found)| value(i, **t) != **found).count();
            ControlFlow::Continue(())
        };
        selection.scan(0..selection.len(), range, &mut Scratch::default(), &mut visit).map_err(said)?;
        assert_eq!(wrong, 0, "values that nobody sent");
        Ok(count)
    }

    #[track_caller]
    fn check_refused(&self, start: i64, end: i64, file: &Path) {
        let said = self.read(start, end).expect_err("a part of it is gone");
        assert!(said.contains(&file.display().to_string()), "{said} names {}", file.display());
        assert!(said.contains("the disk can not read"), "{said}");
        let name = file.display().to_string();
        let damage = self.db.status().damage;
        let is_named = damage.iter().any(|damage| damage.path == name || damage.reason.contains(&name));
        assert!(is_named, "{name} in {damage:?}");
    }

    /// The largest block with nothing of the last hour: by the time of day one may have minutes only.
    fn old_block(&self) -> PathBuf {
        let mut blocks = self.db.status().blocks;
        blocks.retain(|block| block.max_time < self.end - 3_600_000);
        let largest = blocks.iter().max_by_key(|block| block.bytes).expect("nine hours have one");
        self.folder.path().join("blocks").join(&largest.name)
    }

    /// What is new is taken and read, whatever else is lost.
    fn check_goes_on(&mut self) {
        self.end += STEP_MS;
        append(&self.db, self.end);
        self.db.commit().expect("the log is well");
    }

    /// An image whose shard has sealed runs in it: those take more than a page.
    fn large_image(&self) -> PathBuf {
        let len = |path: &PathBuf| std::fs::metadata(path).expect("there").len();
        let images = self.files("head").into_iter().filter(|path| len(path) > 4096);
        images.max_by_key(len).expect("one")
    }

    fn restart(self) -> Stage {
        let Stage { folder, env, db, start, end } = self;
        drop(db);
        let db = open(&env, folder.path());
        Stage { folder, env, db, start, end }
    }
}

fn cut_short(file: &Path, len: u64) {
    std::fs::OpenOptions::new().write(true).open(file).and_then(|file| file.set_len(len)).expect("ours");
}

#[test]
fn a_block_that_loses_its_end_costs_those_who_read_it() {
    let mut stage = stage();
    let block = stage.old_block();
    // The index is gone, and a part of the columns.
    cut_short(&block, std::fs::metadata(&block).expect("there").len() / 2);
    stage.check_refused(stage.start, stage.end, &block);
    let hour = 3_600_000;
    assert_eq!(stage.read(stage.end - hour, stage.end), Ok(SERIES * 241), "others are not touched");
    stage.check_goes_on();
    assert_eq!(stage.read(stage.end - hour, stage.end), Ok(SERIES * 241));
    while let Some(job) = stage.db.next_job(stage.env.clock.wall_ms()) {
        // A merge with this block fails; nothing wrong is written elsewhere.
        let _ = stage.db.run(job);
    }
    stage.check_refused(stage.start, stage.end, &block);
    let stage = stage.restart();
    let damage = stage.db.status().damage;
    assert!(damage.iter().any(|damage| damage.path == block.display().to_string()), "{damage:?}");
    let left = stage.read(stage.start, stage.end).expect("what is left is whole");
    assert!(left > SERIES * 240 && left < SERIES * 9 * 240, "{left}");
}

#[test]
fn a_block_that_comes_back_is_read_by_the_next_process() {
    let stage = stage();
    let block = stage.old_block();
    let bytes = std::fs::read(&block).expect("there");
    cut_short(&block, 8192);
    stage.check_refused(stage.start, stage.end, &block);
    std::fs::write(&block, &bytes).expect("ours");
    // What was lost stays lost for this process, whatever the disk has since.
    assert!(stage.read(stage.start, stage.end).is_err());
    let stage = stage.restart();
    assert_eq!(stage.read(stage.start, stage.end), Ok(SERIES * (9 * 240 + 1)), "the disk is well again");
    assert_eq!(stage.db.status().damage, []);
}

#[test]
fn an_image_that_is_lost_costs_its_samples_of_the_head() {
    let mut stage = stage();
    let image = stage.large_image();
    cut_short(&image, 0);
    stage.check_refused(stage.end - 3_600_000, stage.end, &image);
    stage.check_goes_on();
    let job = stage.db.next_job(stage.env.clock.wall_ms());
    assert!(job.is_none_or(|job| stage.db.run(job).is_err()), "nothing is made of what is lost");
    let stage = stage.restart();
    let damage = stage.db.status().damage;
    assert!(damage.iter().any(|damage| damage.path == image.display().to_string()), "{damage:?}");
    let left = stage.read(stage.start, stage.end).expect("what is left is whole");
    assert!(left > SERIES * 5 * 240, "{left}");
}

// A disk that can not give a page to one start can not give it to the next: what is left has to become an image.
#[test]
fn an_image_that_a_start_can_not_read_a_part_of_is_made_anew() {
    let stage = stage();
    let image = stage.large_image();
    let Stage { folder, env, db, start, end } = stage;
    drop(db);
    let db = Db::open(env.clone(), options(folder.path())).expect("opens");
    // It is mapped; from here on the last page is not there, and nothing to map anew.
    let len = std::fs::metadata(&image).expect("there").len();
    cut_short(&image, (len - 1) / 4096 * 4096);
    std::fs::remove_file(&image).expect("ours");
    db.recover().expect("recovers");
    let stage = Stage { folder, env, db, start, end };
    assert_ne!(stage.db.status().damage, []);
    let all = Ok(SERIES * (9 * 240 + 1));
    assert_eq!(stage.read(start, end), all, "the last page has no samples");
    while let Some(job) = stage.db.next_job(stage.env.clock.wall_ms()) {
        stage.db.run(job).expect("nothing that is needed is lost");
    }
    assert!(image.exists());
    let stage = stage.restart();
    assert_eq!(stage.db.status().damage, []);
    assert_eq!(stage.read(start, end), all);
}

/// Puts something of a kind where a file was.
fn replace(file: &Path, kind: &str) {
    std::fs::remove_file(file).expect("ours");
    match kind {
        "directory" => std::fs::create_dir(file).expect("a free name"),
        "socket" => drop(std::os::unix::net::UnixListener::bind(file).expect("a free name")),
        "pipe" => run("mkfifo", &[file]),
        _ => panic!("no kind: {kind}"),
    }
}

fn run(program: &str, arguments: &[&Path]) {
    let status = std::process::Command::new(program).args(arguments).status().expect("there");
    assert!(status.success(), "{program} {arguments:?}");
}

// A start waited for ever for somebody to write to a pipe that had the name of a block.
#[test]
fn what_has_the_name_of_a_file_and_is_none_is_set_aside_like_one_that_can_not_be_read() {
    let stage = stage();
    let files: Vec<PathBuf> = ["blocks", "head", "wal"].iter().flat_map(|dir| stage.files(dir)).collect();
    let Stage { folder, env, db, start, end } = stage;
    drop(db);
    for file in files {
        let name = file.strip_prefix(folder.path()).expect("below it");
        let outcome = |kind: &str| {
            let copy = tempfile::tempdir().expect("a directory");
            run("cp", &[Path::new("-r"), &folder.path().join("."), copy.path()]);
            let path = copy.path().join(name);
            replace(&path, kind);
            let db = open(&env, copy.path());
            let is_named = db.status().damage.iter().any(|damage| Path::new(&damage.path) == path);
            let stage = Stage { folder: copy, env: env.clone(), db, start, end };
            let left = stage.read(start, end).expect("what is left is whole");
            format!("named: {is_named}, samples: {left}, is there: {}", path.exists())
        };
        let as_directory = outcome("directory");
        for kind in ["pipe", "socket"] {
            assert_eq!(outcome(kind), as_directory, "{} as a {kind}", name.display());
        }
    }
}
