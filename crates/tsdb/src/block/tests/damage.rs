//! Damaged blocks: whichever bit is changed and wherever the file ends, no more is lost than was damaged, and what is
//! wrong is named.

use super::*;

/// Enough series for three copies of the index.
const MANY: usize = 600;

fn many() -> Model {
    let samples = |i: usize| (0..3).map(|step| (START + step * 15_000, (i as i64 * step) as f64)).collect();
    (0..MANY).map(|i| (labels("many", i), samples(i))).collect()
}

fn reopen(file: Vec<u8>) -> Result<Block, BlockError> {
    Block::from_bytes(Bytes::from(file), Path::new("data/00000001.block"))
}

/// What is said to be wrong with a block: of its chunks, and otherwise.
fn said(block: &Block) -> (Vec<Damage>, Vec<String>) {
    let damage = block.verify(0..block.series_count()).expect("the index is sound");
    let flaws = block.flaws().expect("the index is sound");
    (damage, flaws.into_iter().map(|flaw| format!("{} {}", flaw.offset, flaw.reason)).collect())
}

/// Reads a changed file: what it gives must be what was written. Gives the series that are missing, of which each
/// must be named.
#[track_caller]
fn missing(block: &Block, model: &Model, context: &str) -> Vec<Labels> {
    let (mut found, damaged) = read(block).expect("the index is sound");
    found.retain(|_, samples| !samples.is_empty());
    let missing: Vec<Labels> = model.keys().filter(|labels| !found.contains_key(*labels)).cloned().collect();
    let there: Model = model
        .iter()
        .filter(|(labels, _)| found.contains_key(*labels))
        .map(|(labels, samples)| (labels.clone(), samples.clone()))
        .collect();
    assert_same(&found, &there);
    let (damage, flaws) = said(block);
    let named: Vec<String> = damage.iter().map(|damage| damage.series.clone()).collect();
    assert_eq!(named.len(), damaged, "{context}");
    if !block.lacks_series() {
        assert_eq!(named, missing.iter().map(Labels::to_string).collect::<Vec<_>>(), "{context}");
    }
    assert!(!damage.is_empty() || !flaws.is_empty(), "{context}: nothing is said");
    missing
}

#[test]
fn a_changed_bit_costs_at_most_the_chunk_that_it_is_in() {
    let model = sample_model(2, 40);
    let file = file_of(&model, 120);
    assert!(file.len() <= 16 << 10, "{} bytes", file.len());
    let sound = reopen(file.clone()).expect("sound");
    assert_eq!(said(&sound), (vec![], vec![]), "the file is sound as it was written");
    let mut cost = 0;
    for at in 0..file.len() * 8 {
        let mut damaged = file.clone();
        damaged[at / 8] ^= 1 << (at % 8);
        let context = format!("bit {at}");
        let block = reopen(damaged).unwrap_or_else(|error| panic!("{context}: refused: {error}"));
        let lost = missing(&block, &model, &context).len();
        assert!(lost <= 1, "{context} costs {lost} series");
        cost += lost;
        assert_eq!(block.meta().samples, sound.meta().samples, "{context}");
        assert_eq!(block.table_crc(), sound.table_crc(), "{context}: tombstones are of this file still");
    }
    assert!(cost > 0, "columns of values are there once");
}

/// The clock of a target is shared by all its series.
#[test]
fn a_changed_bit_in_shared_timestamps_costs_nothing() {
    let model = sample_model(2, 40);
    let file = file_of(&model, 120);
    let sound = reopen(file.clone()).expect("sound");
    let shared: Vec<_> = sound.clocks.iter().filter(|clock| sound.copied_column(clock).is_some()).collect();
    assert_eq!(shared.len(), 2, "those of the targets; series that ended or have gaps have their own");
    for clock in shared {
        let at = format::HEADER_LEN + clock.offset as usize;
        let mut damaged = file.clone();
        damaged[at + 1] ^= 4;
        let block = reopen(damaged).expect("the index is sound");
        assert_same(&read(&block).expect("sound").0, &model);
        assert_eq!(
            said(&block),
            (vec![], vec![format!("{at} a column of timestamps is damaged; its copy is whole")])
        );
        assert!(block.wounds().heals() && !block.wounds().is_mendable());
    }
}

#[test]
fn a_shortened_file_keeps_the_series_before_its_end() {
    let (model, small) = (many(), sample_model(2, 40));
    let file = file_of(&small, 120);
    let data_end = format::HEADER_LEN + reopen(file.clone()).expect("sound").data.len();
    for len in 0..file.len() {
        match reopen(file[..len].to_vec()) {
            Ok(block) => assert_eq!(missing(&block, &small, &format!("{len} bytes")), []),
            Err(BlockError::Corrupt { .. }) => assert!(len < data_end, "{len} bytes"),
            Err(other) => panic!("no disk was touched: {other}"),
        }
    }
    let file = file_of(&model, 120);
    let copies: Vec<_> = copies::copies(&file[format::HEADER_LEN..], 0).collect();
    assert_eq!(copies.iter().map(|copy| copy.series.end).collect::<Vec<_>>(), [256, 512, 600]);
    for (copy, cut) in copies.iter().zip([0, 1, 0]) {
        let len = format::HEADER_LEN + copy.range.end as usize + cut;
        let block = reopen(file[..len].to_vec()).expect("a copy is whole");
        assert_eq!(missing(&block, &model, "cut").len(), MANY - copy.series.end as usize);
        assert_eq!(block.lacks_series(), !copy.is_last);
    }
}

/// With the index gone, a damaged copy costs its series, and says of how many nothing is known.
#[test]
fn a_damaged_copy_costs_something_only_without_the_index() {
    let model = many();
    let file = file_of(&model, 120);
    let ranges: Vec<_> = copies::copies(&file[format::HEADER_LEN..], 0).map(|copy| copy.range).collect();
    let series: Vec<&Labels> = model.keys().collect();
    let behind = [
        (0..256, "the series from the block's 0th to 255 are lost"),
        (256..512, "the series from the block's 256th to 511 are lost"),
        (512..600, "the series from the block's 512th on are lost"),
    ];
    for (range, (lost, told)) in ranges.iter().zip(behind) {
        let mut damaged = file.clone();
        let at = format::HEADER_LEN + range.start as usize;
        damaged[at + 70] ^= 1;
        let block = reopen(damaged.clone()).expect("the index is sound");
        assert_eq!(missing(&block, &model, "a copy"), []);
        assert_eq!(said(&block).1, [format!("{at} a copy of the index is damaged; the index is whole")]);
        *damaged.last_mut().expect("bytes") ^= 1;
        let block = reopen(damaged).expect("two copies are sound");
        assert!(block.lacks_series());
        let missing: Vec<Labels> = missing(&block, &model, told);
        assert_eq!(missing.iter().collect::<Vec<_>>(), &series[lost]);
        let said = said(&block).1;
        assert!(said.len() == 2 && said[1].contains(told), "{said:?}");
        assert!(
            said[0].contains("the file is cut short: no footer; the index is read from its copies"),
            "{said:?}"
        );
    }
}

/// A page of the disk, wherever it begins: it never takes the index with what that is read by without it.
#[test]
fn a_lost_page_costs_what_is_in_it() {
    let noise = |i: usize, step: i64| {
        ((i as u64 * 60 + step as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as f64 / 1000.0
    };
    let samples = |i: usize| (0..60).map(|step| (START + step * 15_000, noise(i, step))).collect();
    let model: Model = (0..203).map(|i| (labels("page", i), samples(i))).collect();
    let file = file_of(&model, 120);
    let sound = reopen(file.clone()).expect("sound");
    assert!(sound.data.len() > 32 << 10, "{} bytes of data", sound.data.len());
    assert_eq!(said(&sound), (vec![], vec![]));
    let mut places = Vec::new();
    let mut cursor = Cursor::default();
    for series in 0..sound.series_count() {
        let labels = sound.labels(&mut cursor, series).expect("sound");
        let start = format::HEADER_LEN + cursor.record.chunks[0].offset as usize;
        places.push((labels, start..start + cursor.record.chunks[0].len as usize));
    }
    for at in (0..file.len()).step_by(256) {
        let mut damaged = file.clone();
        let page = at..(at + 4096).min(file.len());
        damaged[page.clone()].iter_mut().for_each(|byte| *byte = !*byte);
        let block = reopen(damaged).expect("the index is there twice");
        assert!(!block.lacks_series(), "page at {at}");
        let hit = places.iter().filter(|(_, place)| place.start < page.end && page.start < place.end);
        let expected: Vec<Labels> = hit.map(|(labels, _)| labels.clone()).collect();
        assert_eq!(missing(&block, &model, &format!("page at {at}")), expected);
    }
}

/// What is deleted of the series that are left stays deleted, under their new numbers.
#[test]
fn tombstones_hold_for_what_is_left_of_a_block() {
    let model = many();
    let file = file_of(&model, 120);
    let sound = reopen(file.clone()).expect("sound");
    let all = TimeRange { start: START, end: START + HOUR };
    let named = |instance: usize| [Matcher::equal("instance", &format!("host-{instance}:9100"))];
    let mut tombstones = Tombstones::default();
    for instance in [0, 400, 599] {
        let of = sound.with_tombstones(tombstones);
        tombstones = of.deletion(&named(instance), all).expect("sound").expect("there");
    }
    let bytes = tombstones.encode(&sound);
    let mut damaged = file.clone();
    let second = copies::copies(&file[format::HEADER_LEN..], 0).nth(1).expect("three copies").range;
    damaged[format::HEADER_LEN + second.start as usize + 70] ^= 1;
    *damaged.last_mut().expect("bytes") ^= 1;
    let block = reopen(damaged).expect("two copies are sound");
    let (tombstones, is_flawed) = Tombstones::decode(&bytes, &block).expect("of this block");
    let block = block.with_tombstones(tombstones.clone());
    let left = |instance: usize| block.select(&named(instance)).expect("sound").len();
    let gone: Vec<usize> = (0..MANY).filter(|instance| left(*instance) == 0).collect();
    let lost: Vec<usize> = {
        let series: Vec<&Labels> = model.keys().collect();
        let is_lost = |instance: &usize| series[256..512].contains(&&labels("many", *instance));
        (0..MANY).filter(is_lost).collect()
    };
    let expected: Vec<usize> =
        (0..MANY).filter(|instance| [0, 400, 599].contains(instance) || lost.contains(instance)).collect();
    assert_eq!((gone, is_flawed), (expected, false));
    // Written anew they are of the block as it is now.
    assert_eq!(Tombstones::decode(&tombstones.encode(&block), &block), Ok((tombstones, false)));
    let other = reopen(file_of(&sample_model(2, 40), 120)).expect("sound");
    assert!(Tombstones::decode(&bytes, &other).is_err(), "of another file of that id");
}

/// A copy that is malformed behind its checksum keeps the series before that place, and their tombstones.
#[test]
fn tombstones_hold_for_what_is_left_of_a_copy() {
    let file = file_of(&many(), 120);
    let sound = reopen(file.clone()).expect("sound");
    let all = TimeRange { start: START, end: START + HOUR };
    let mut cursor = Cursor::default();
    let mut labels_of = |series| sound.labels(&mut cursor, series).expect("sound");
    let mut tombstones = Tombstones::default();
    for series in [3, 300, 511, 599] {
        let name = [Matcher::equal("instance", labels_of(series).get("instance").expect("all have it"))];
        let of = sound.with_tombstones(tombstones);
        tombstones = of.deletion(&name, all).expect("sound").expect("there");
    }
    let second =
        (0..file.len()).filter(|at| file[*at..].starts_with(b"TWBKCOPY")).nth(1).expect("three copies");
    let mut raw = raw_of(&file[second..]);
    raw.truncate(raw.len() - 5);
    let block =
        reopen([&file[..second], &copy_of(&raw)[format::HEADER_LEN..]].concat()).expect("a copy is whole");
    assert_eq!((block.series_count(), block.lacks_series()), (511, true));
    assert!(said(&block).1[1].contains("the series from the block's 511th on are lost"));
    let (left, _) = Tombstones::decode(&tombstones.encode(&sound), &block).expect("of this block");
    assert_eq!(
        block.with_tombstones(left).select(&[]).expect("sound"),
        (0..511).filter(|n| ![3, 300].contains(n)).collect()
    );
}

/// The body of the copy that bytes begin with, decompressed.
fn raw_of(copy: &[u8]) -> Vec<u8> {
    let word = |at: usize| u32::from_le_bytes(copy[at..at + 4].try_into().expect("four")) as usize;
    zstd::bulk::decompress(&copy[20..20 + word(8)], word(12)).expect("sound")
}

/// Several places at once, none of which is the copy.
#[test]
fn much_damage_to_the_index_is_as_one_bit() {
    let model = many();
    let file = file_of(&model, 120);
    let data_end = format::HEADER_LEN + reopen(file.clone()).expect("sound").data.len();
    let mut zeros = file.clone();
    zeros[data_end..].fill(0);
    zeros[..format::HEADER_LEN].fill(0);
    let mut noise = file.clone();
    noise.truncate(data_end);
    noise.extend(file.iter().map(|byte| byte ^ 0x5a));
    for damaged in [zeros, noise] {
        let block = reopen(damaged).expect("the copies are sound");
        assert_eq!(missing(&block, &model, "the index is gone"), []);
        let of = reopen(file.clone()).expect("sound");
        assert_eq!(
            (block.meta(), block.table_crc()),
            (of.meta(), of.table_crc()),
            "made again byte for byte"
        );
    }
}

#[test]
fn a_damaged_chunk_is_named_and_costs_no_other() {
    let model = sample_model(3, 480);
    let mut file = file_of(&model, 120);
    // The first column of values: right after the header and the first clock.
    let sound = Block::from_bytes(Bytes::from(file.clone()), Path::new("x")).expect("sound");
    let mut cursor = Cursor::default();
    let first = sound.labels(&mut cursor, 0).expect("sound");
    let at = format::HEADER_LEN + cursor.record.chunks[0].offset as usize;
    file[at] ^= 0x10;
    let block =
        Block::from_bytes(Bytes::from(file), Path::new("data/00000001.block")).expect("the index is sound");
    let damage = block.verify(0..block.series_count()).expect("the index is sound");
    assert_eq!(damage.len(), 1);
    assert_eq!(damage[0].series, first.to_string());
    assert_eq!(damage[0].offset, at as u64);
    assert_eq!(damage[0].start_ms, *model[&first].keys().next().expect("samples"));
    let select = |name| block.select(&[Matcher::equal("__name__", name)]).expect("sound").len();
    assert_eq!((select("up"), select("absent")), (3, 0));
}

/// Behind a copy's checksum anything may stand.
#[test]
fn hostile_copies_are_survived() {
    let file = file_of(&sample_model(4, 40), 120);
    let at = file.windows(8).position(|bytes| bytes == b"TWBKCOPY").expect("a copy");
    let mut raw = raw_of(&file[at..]);
    // A section of data begins with it.
    raw[..8].fill(0);
    // The number of the first series: there are not as many behind it.
    let mut late = raw.clone();
    late[16..20].copy_from_slice(&(u32::MAX - 15).to_le_bytes());
    assert!(reopen(copy_of(&late)).is_err());
    for i in 0..raw.len() {
        let mut changed = raw.clone();
        changed[i] = changed[i].wrapping_add(1 + (i % 3) as u8 * 127);
        exercise(copy_of(&changed));
        exercise(copy_of(&raw[..i]));
    }
    let block = reopen(copy_of(&raw)).expect("a copy of series without their data");
    assert_eq!((block.series_count(), block.verify(0..20).expect("an index").len()), (20, 20));
}

/// Each series may have so many labels more than the one before: all that are kept must be readable.
#[test]
fn a_copy_with_more_labels_than_a_series_can_have_is_read_up_to_these() {
    let model = Model::from_iter((0..3).map(|i| (labels("a", i), BTreeMap::from([(START, 1.0)]))));
    let file = file_of(&model, 1);
    let at = file.windows(8).position(|bytes| bytes == b"TWBKCOPY").expect("a copy");
    let mut raw = raw_of(&file[at..]);
    raw[..8].fill(0);
    // Series stand behind all others: "a" with its length.
    let records = raw.windows(10).position(|bytes| bytes == b"\x08__name__\x01").expect("a name") - 2;
    raw.truncate(records);
    for letter in ["a", "b", "c"] {
        for count in if letter == "a" { [0, 3000] } else { [3000, 3000] } {
            crate::wire::put_varint(&mut raw, count);
        }
        (0..3000).for_each(|i| raw.extend_from_slice(format!("\x05{letter}{i:04}\x01x").as_bytes()));
        // One chunk of the first clock, one byte long.
        raw.extend_from_slice(&[1, 0, 1, 0, 0, 0, 0]);
    }
    let block = reopen(copy_of(&raw)).expect("the first series is sound");
    let mut cursor = Cursor::default();
    for series in 0..block.series_count() {
        block.labels(&mut cursor, series).expect("readable");
    }
    assert_eq!((block.series_count(), block.lacks_series()), (1, true));
}
