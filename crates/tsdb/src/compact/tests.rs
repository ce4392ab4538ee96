//! Merges against a plain map, plans as text, and crashes between a merge and its clean-up.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidewatch_env::create_dir_durably;
use tidewatch_env::sim::{Failure, Simulation};

use super::*;
use crate::block::tests::{HOUR, Model, START, assert_same, labels, read, write};
use crate::block::{Block, BlockMeta, WriterOptions};
use std::sync::Arc;

const OPTIONS: CompactOptions =
    CompactOptions { block_ms: 2 * HOUR, range_max_ms: 18 * HOUR, bytes_max: 100, room_bytes: u64::MAX };

fn meta(id: u64, start_hour: i64, end_hour: i64) -> BlockMeta {
    BlockMeta {
        id: BlockId(id),
        level: 0,
        start_ms: start_hour * HOUR,
        end_ms: end_hour * HOUR,
        min_ms: start_hour * HOUR,
        max_ms: end_hour * HOUR - 1,
        series: 1,
        chunks: 1,
        samples: 1,
        parents: Vec::new(),
        size: 1,
    }
}

/// A block as `id:from-to` in hours; behind it `/newest`, before which its samples end, unless they end with it, and
/// `*size` unless that is one.
fn block(text: &str) -> BlockMeta {
    let number = |text: &str| text.parse::<i64>().expect("a number");
    let (id, range) = text.split_once(':').expect("id:range");
    let (range, size) = range.split_once('*').unwrap_or((range, "1"));
    let (range, newest) = range.split_once('/').unwrap_or((range, range));
    let (start, end) = range.split_once('-').expect("from-to");
    let newest = newest.rsplit('-').next().expect("one part at least");
    let (size, max_ms) = (number(size) as u64, number(newest) * HOUR - 1);
    BlockMeta { size, max_ms, ..meta(number(id) as u64, number(start), number(end)) }
}

/// What is merged: `ids from-to`.
fn shown(plan: &Plan) -> String {
    let ids: Vec<String> = plan.sources.iter().map(|id| id.0.to_string()).collect();
    format!("{} {}-{}", ids.join(","), plan.start_ms / HOUR, plan.end_ms / HOUR)
}

#[track_caller]
fn check(blocks: &str, settled_hour: i64, expected: &str) {
    let metas: Vec<BlockMeta> = blocks.split_whitespace().map(block).collect();
    let plan = plan(&metas, &OPTIONS, settled_hour * HOUR);
    assert_eq!(plan.map_or("nothing".to_owned(), |plan| shown(&plan)), expected, "{blocks}");
}

#[test]
fn neighbours_merge_when_their_window_is_settled() {
    check("", 100, "nothing");
    check("1:0-2", 100, "nothing");
    check("1:0-2 2:2-4", 4, "nothing");
    check("1:0-2 2:2-4", 6, "1,2 0-4");
    check("1:0-2 2:2-4 3:4-6 4:6-8", 8, "1,2,3 0-6");
    // A gap in the window does not wait for what will not come.
    check("1:0-2 3:4-6", 8, "1,3 0-6");
    // Small windows first, then large ones, up to the largest.
    check("5:0-6 2:6-8 3:8-10 6:12-18", 18, "2,3 6-10");
    check("5:0-6 7:6-12 6:12-18", 18, "5,6,7 0-18");
    check("8:0-18 9:18-36 10:36-54", 100, "nothing");
}

#[test]
fn blocks_that_overlap_merge_first() {
    check("1:0-2 2:2-4 3:4-6 9:10-12 12:10-11", 12, "9,12 10-12");
    check("1:0-4 2:2-6 3:5-7 4:7-8", 7, "1,2,3 0-7");
    check("1:0-2*50 2:2-4*40 3:4-6*11", 6, "nothing");
    check("1:0-2*50 2:1-4*40 3:4-6*11", 6, "1,2 0-4");
    // What is not cut yet is left to the next cut, unless one has samples there.
    check("1:0-1 2:0-2/1", 1, "1,2 0-1");
    check("1:0-1 2:0-4/1 3:4-6", 3, "1,2 0-3");
    check("1:0-1 2:0-2 3:0-2 4:0-2", 1, "1,2,3,4 0-2");
}

#[test]
fn blocks_of_a_window_that_is_still_to_be_cut_wait_until_some_are_alike() {
    check("1:0-2 2:0-2 3:0-2", 0, "nothing");
    check("1:0-2 2:0-2 3:0-2", 2, "1,2,3 0-2");
    check("1:0-2 2:0-2 3:0-2 4:0-2", 0, "1,2,3,4 0-2");
    check("1:0-2*9 2:0-2 3:0-2 4:0-2", 0, "nothing");
    check("1:0-2*9 2:0-2 3:0-2 4:0-2 5:0-2", 0, "2,3,4,5 0-2");
    check("1:0-2*6 2:0-2 3:0-2 4:0-2", 0, "1,2,3,4 0-2");
    // A new one that is large takes the small ones with it.
    check("1:0-2 2:0-2 3:0-2 4:0-2*50", 0, "1,2,3,4 0-2");
    // Those that wait do not keep others from merging.
    check("1:0-2 2:0-2 3:2-4 9:6-8 10:6-8", 6, "1,2 0-2");
    check("11:0-2 3:2-4 9:6-8 10:6-8", 6, "3,11 0-4");
}

/// Bytes that merges write when so many blocks of one byte come to a window that is cut at the end, and
/// the most blocks that there are meanwhile.
fn merged_bytes(count: u64, settled_hour: i64) -> (u64, usize) {
    let (mut blocks, mut next_id, mut written, mut most) = (Vec::new(), 1, 0, 0);
    for come in 0..=count {
        let settled = if come == count { 2 } else { settled_hour };
        blocks.push(meta(next_id, 0, 2));
        next_id += 1;
        while let Some(plan) = plan(&blocks, &OPTIONS, settled * HOUR) {
            let parts = blocks.extract_if(.., |meta| plan.sources.contains(&meta.id));
            let size = parts.map(|meta| meta.size).sum();
            blocks.push(BlockMeta { size, ..meta(next_id, 0, 2) });
            next_id += 1;
            written += size;
        }
        most = most.max(blocks.len());
    }
    assert_eq!(blocks.len(), 1, "all are merged in the end");
    (written, most)
}

// A heavy churn lets series leave up to once a minute, two hours long.
#[test]
fn a_window_is_written_few_times_however_often_series_leave() {
    let say = |count| {
        let ((before, _), (now, most)) = (merged_bytes(count, 2), merged_bytes(count, 0));
        format!(
            "{count} blocks: {now} written, at most {most} at once; {before} when each merges as it comes"
        )
    };
    let expected = [
        "3 blocks: 4 written, at most 3 at once; 9 when each merges as it comes",
        "12 blocks: 35 written, at most 4 at once; 90 when each merges as it comes",
        "120 blocks: 627 written, at most 6 at once; 7380 when each merges as it comes",
    ];
    assert_eq!([3, 12, 120].map(say), expected);
}

/// An exclamation mark stands behind blocks that are dense. Given are the merges up to 18 hours that leave
/// nothing to do, in their order, where 100 hours were cut.
#[track_caller]
fn check_whole(blocks: &str, expected: &str) {
    const SETTLED: i64 = 100 * HOUR;
    let mut dense = Vec::new();
    let mut metas = Vec::new();
    for text in blocks.split_whitespace() {
        let meta = block(text.trim_end_matches('!'));
        dense.extend(text.ends_with('!').then_some(meta.id));
        metas.push(meta);
    }
    let mut found = Vec::new();
    while let Some(plan) = plan_whole(&metas, &OPTIONS, SETTLED, |id| dense.contains(&id)) {
        assert!(plan.dense);
        found.push(shown(&plan));
        let parts = metas.extract_if(.., |meta| plan.sources.contains(&meta.id));
        let size = parts.map(|meta| meta.size).sum();
        let merged = meta(100 + found.len() as u64, plan.start_ms / HOUR, plan.end_ms / HOUR);
        dense.push(merged.id);
        metas.push(BlockMeta { size, ..merged });
    }
    assert_eq!(found.join("; "), expected, "{blocks}");
}

#[test]
fn a_compaction_of_all_merges_neighbours_wherever_they_begin() {
    check_whole("", "");
    check_whole("1:5-6", "1 5-6");
    check_whole("1:5-6!", "");
    check_whole("1:17-18 2:18-20 3:20-22", "1,2,3 17-22");
    check_whole("1:0-6! 2:6-12! 3:20-22", "1,2 0-12; 3 20-22");
    check_whole("1:0-18 2:18-20! 3:20-24 4:30-40", "1 0-18; 2,3 18-24; 4 30-40");
    // A block leaves as a whole, so that none is to have more than a tenth of what is kept.
    check_whole("1:0-2*60 2:2-4*40 3:4-6*40 4:5-7*90", "1,2 0-4; 3,4 4-7");
    // What overlaps merges, however long that gets.
    check_whole("1:0-18! 2:16-20! 3:20-22", "1,2 0-20; 3 20-22");
    // What is not cut yet is left to the next cut, unless one has samples there.
    check_whole("1:98-100 2:100-102", "1,2 98-102");
    check_whole("1:98-100 2:99-102/100", "1,2 98-100");
    check_whole("1:99-102/101", "1 99-101");
}

#[test]
fn blocks_of_many_hours_are_dense() {
    let dense = |hours: i64| plan(&[meta(1, 0, 1), meta(2, 1, hours)], &OPTIONS, 100 * HOUR).map(|p| p.dense);
    assert_eq!((dense(6), dense(18)), (Some(false), Some(true)));
}

#[test]
fn retention_goes_by_hours_that_passed_and_never_by_a_clock_that_jumped() {
    #[track_caller]
    fn check(retention: i64, now: i64, blocks: &[(i64, i64)], expected: &str) {
        let metas: Vec<BlockMeta> =
            blocks.iter().zip(1..).map(|((start, end), id)| meta(id, *start, *end)).collect();
        let gone = expired(&metas, retention.saturating_mul(HOUR), now * HOUR);
        assert_eq!(gone.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(" "), expected);
    }
    let day = [(0, 2), (2, 4), (4, 10), (10, 24)];
    check(13, 24, &day, "1 2 3");
    check(19, 24, &day, "1 2");
    check(24, 24, &day, "");
    check(i64::MAX, 24, &day, "");
    // A clock that is wrong, and one that is right again.
    check(19, 10_000, &day, "1 2");
    check(13, 15, &day, "1");
    // Samples that it left, in its time and behind it, and of another jump.
    let ahead = [&day[..], &[(9_000, 9_002)]].concat();
    check(19, 9_002, &ahead, "1 2");
    check(19, 26, &ahead, "1 2");
    check(19, 20_000, &[&ahead[..], &[(19_998, 20_000)]].concat(), "1 2");
    // An outage: age goes by what was before it until half a day has passed.
    check(19, 1_004, &[&day[..], &[(1_000, 1_004)]].concat(), "1 2");
    check(19, 1_013, &[&day[..], &[(1_000, 1_004), (1_004, 1_013)]].concat(), "1 2 3 4");
    // A push now and then.
    let pushes: Vec<(i64, i64)> = (0..10).map(|n| (n * 100, n * 100 + 1)).collect();
    check(50, 901, &pushes, "1");
    check(50, 901, &pushes[..8], "");
    // Less is kept than half a day.
    check(2, 6, &[(0, 2), (2, 4), (4, 6)], "1");
    check(1, 6, &[(0, 2), (2, 4), (4, 6)], "1 2");
}

/// Merges all blocks, some series at a time.
fn merge(env: &Env, dir: &Path, id: u64, blocks: Vec<Arc<Block>>, slice: usize) -> Result<(), BlockError> {
    let plan = Plan {
        sources: blocks.iter().map(|block| block.meta().id).collect(),
        start_ms: blocks.iter().map(|block| block.meta().start_ms).min().expect("some"),
        end_ms: blocks.iter().map(|block| block.meta().end_ms).max().expect("some"),
        level: 1,
        dense: false,
    };
    let mut merge = Merge::start(env, dir, &plan, BlockId(id), blocks)?;
    let mut share = 0;
    loop {
        match merge.step(slice)? {
            (Progress::More(now), Some(rest)) => {
                assert!(now >= share && now <= 1000, "progress never goes back");
                (merge, share) = (rest, now);
            }
            (Progress::Done(_), _) => return Ok(()),
            (Progress::More(_), None) => panic!("a merge that has more to do goes on"),
        }
    }
}

fn open(env: &Env, dir: &Path, id: u64) -> Arc<Block> {
    Arc::new(Block::open(env, &block_path(dir, BlockId(id))).expect("just written"))
}

fn options(id: u64) -> WriterOptions {
    WriterOptions {
        id: BlockId(id),
        start_ms: START,
        end_ms: START + 6 * HOUR,
        level: 0,
        dense: false,
        parents: Vec::new(),
    }
}

/// What reading all of them should give: the first of two values at one time stays.
fn union(models: &[Model]) -> Model {
    let mut union = Model::new();
    for model in models {
        for (labels, samples) in model {
            let into: &mut BTreeMap<i64, f64> = union.entry(labels.clone()).or_default();
            samples.iter().for_each(|(at, value)| {
                into.entry(*at).or_insert(*value);
            });
        }
    }
    union
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_merge_holds_what_its_parents_held(
        blocks in prop::collection::vec(
            prop::collection::btree_map(
                0..12usize,
                prop::collection::btree_map(0..60i64, 0..5u32, 1..20),
                1..8,
            ),
            1..5,
        ),
        apart in any::<bool>(),
        slice in 1..9usize,
    ) {
        let (env, dir) = (Env::in_memory(), Path::new("data"));
        env.disk.create_dir_all(dir).expect("memory");
        let mut models = Vec::new();
        for (block, series) in blocks.iter().enumerate() {
            let shift = if apart { block as i64 * HOUR } else { 0 };
            let model: Model = series
                .iter()
                .map(|(number, samples)| {
                    let at = |minute: i64| START + shift + minute * 60_000 - minute % 2;
                    let samples = samples.iter().map(|(minute, v)| (at(*minute).max(START), f64::from(*v))).collect();
                    (labels("load1", *number), samples)
                })
                .collect();
            write(&env, dir, options(block as u64 + 1), &model, 120).expect("memory takes all");
            models.push(model);
        }
        let parents: Vec<Arc<Block>> = (0..models.len()).map(|at| open(&env, dir, at as u64 + 1)).collect();
        merge(&env, dir, 100, parents, slice).expect("sound");
        let merged = open(&env, dir, 100);
        let (found, damaged) = read(&merged).expect("sound");
        prop_assert_eq!(damaged, 0);
        assert_same(&found, &union(&models));
        let metas: Vec<BlockMeta> = (0..models.len())
            .map(|at| open(&env, dir, at as u64 + 1).meta().clone())
            .chain([merged.meta().clone()])
            .collect();
        let replaced = |listed: &[u64]| superseded(&metas, |id| listed.contains(&id.0)).len();
        let (all, without_list) = (models.len(), (replaced(&[100]), replaced(&[]), replaced(&[100, 1])));
        // Where none is there twice the numbers tell as well.
        let is_once = metas[..all].iter().map(|meta| meta.samples).sum::<u64>() == merged.meta().samples;
        prop_assert_eq!(without_list, if is_once { (all, all, all) } else { (all, 0, all - 1) });
        let mut of_others = metas.clone();
        of_others[0].samples += 1;
        prop_assert_eq!(superseded(&of_others, |_| false), [], "another block has the number");
    }
}

/// A merge and the removal of its parents, with the n-th change of the disk failing, for every n: the
/// blocks that are there and not superseded hold every sample.
#[test]
fn no_failure_between_merge_and_removal_loses_a_sample() {
    let dir = Path::new("data");
    let models: Vec<Model> = (0..3i64)
        .map(|block| {
            let at = |i: i64| START + block * HOUR + i * 15_000;
            let series = (0..5).map(|s| (labels("x", s), (0..20).map(|i| (at(i), i as f64)).collect()));
            series.collect()
        })
        .collect();
    for failure in [Failure::Crash, Failure::Io, Failure::IoForGood, Failure::Full] {
        for n in 1.. {
            let Simulation { env, disk, .. } = Env::simulated(n);
            create_dir_durably(&*env.disk, dir).expect("nothing fails yet");
            for (at, model) in models.iter().enumerate() {
                write(&env, dir, options(at as u64 + 1), model, 120).expect("nothing fails yet");
            }
            let parents = || (1..=3).map(|id| open(&env, dir, id)).collect::<Vec<_>>();
            let ids = [1, 2, 3].map(BlockId);
            disk.fail_at(disk.changes() + n, failure);
            let result = merge(&env, dir, 4, parents(), 2).and_then(|()| remove(&env, dir, &ids));
            let fired = disk.fired();
            disk.crash(n);
            disk.repair();
            disk.free_space();
            let blocks: Vec<Arc<Block>> = (1..=4)
                .filter(|id| env.disk.exists(&block_path(dir, BlockId(*id))).expect("well"))
                .map(|id| open(&env, dir, id))
                .collect();
            let metas: Vec<BlockMeta> = blocks.iter().map(|block| block.meta().clone()).collect();
            let gone = superseded(&metas, |id| id == BlockId(4));
            let kept: Vec<Model> = blocks
                .iter()
                .filter(|block| !gone.contains(&block.meta().id))
                .map(|block| read(block).expect("sound").0)
                .collect();
            assert_same(&union(&kept), &union(&models));
            if !fired {
                result.expect("nothing failed");
                assert_eq!((metas.len(), n > 8), (1, true), "a merge takes some operations");
                break;
            }
        }
    }
}

#[test]
fn a_merge_that_meets_damage_names_it_and_leaves_its_parents() {
    let (env, dir) = (Env::in_memory(), Path::new("data"));
    env.disk.create_dir_all(dir).expect("memory");
    for id in [1, 2] {
        let samples: BTreeMap<i64, f64> =
            (0..100).map(|i| (START + id * HOUR + i * 15_000, 1.0 / (i + id) as f64)).collect();
        write(&env, dir, options(id as u64), &Model::from([(labels("x", 1), samples)]), 120).expect("memory");
    }
    let path = block_path(dir, BlockId(2));
    let mut bytes = env.disk.map(&path).expect("there").to_vec();
    bytes[100] ^= 1;
    env.disk.remove(&path).expect("memory");
    env.disk.open(&path, tidewatch_env::Open::Create).and_then(|file| file.append(&bytes)).expect("memory");
    let blocks = vec![open(&env, dir, 1), open(&env, dir, 2)];
    let error = merge(&env, dir, 3, blocks, 10).expect_err("a chunk is damaged");
    assert!(matches!(&error, BlockError::Damaged(damage) if damage.path == path), "{error}");
    assert!(!env.disk.exists(&block_path(dir, BlockId(3))).expect("memory"));
}
