//! The bytes of images are frozen, and what stands in one comes back.

use std::ops::Range;

use bytes::Bytes;
use proptest::prelude::*;
use tidewatch_model::Sample;

use super::parity::Stripes;
use super::{HEADER_LEN, ImageError, ImageHeader, ImageKind, visit_series};
use crate::head::registry::{Registry, SeriesId};
use crate::head::shard::Shard;

#[test]
fn an_image_of_a_shard_is_frozen() {
    let mut shard = Shard::default();
    let id = Shard::id_of(2, 0, 5);
    for (timestamp, value) in [(1000, 1.0), (1015, 2.0), (1003, 0.5)] {
        shard.take(id, Sample { timestamp, value }, i64::MAX);
    }
    let (bytes, placed) = shard.to_image(2, (3, 4), 5);
    assert!(placed.is_empty());
    let header = ImageHeader::decode(&bytes).expect("whole");
    let expected = ImageHeader {
        version: 4,
        kind: ImageKind::Shard(2),
        position: (3, 4),
        floor: i64::MIN,
        bar: i64::MIN,
        next_id: 0,
        sections: 2,
        owner: 5,
    };
    assert_eq!(header, expected);
    assert_eq!(bytes[..12], [b'T', b'W', b'I', b'M', 4, 0, 2, 2, 3, 0, 0, 0]);
    assert_eq!(bytes[48..60], [5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let clocks = [1, 0, 2, 5, 1, 13, 0xd0, 0x0f, 30];
    assert_eq!(bytes[64..68], [clocks.len() as u8, 0, 0, 0]);
    assert_eq!(bytes[72..81], clocks, "{:02x?}", &bytes[72..81]);
    // Page, series, slot, shape; its chunks, count, clock and row; length, exponent, tokens.
    let mut page = vec![0, 1, 5, 1, 0, 2, 0, 0, 4, 0, 0x42, 0x42];
    // The late sample: lengths and columns.
    page.extend([1, 4, 1, 8, 0xd6, 0x0f, 3, 1, 0x3f, 0xe0]);
    assert_eq!(bytes[89..111], page, "{:02x?}", &bytes[89..]);
    // One stripe, so the parity is the same as these; checksums of both.
    assert_eq!((&bytes[111..158], &bytes[158..175]), (&bytes[64..111], &[0; 17][..]));
    let crcs = [&bytes[64..111], &bytes[111..175]].map(|stripe| crc32fast::hash(stripe).to_le_bytes());
    assert_eq!(bytes[175..183], *crcs.as_flattened());
    // The frames with their number and a checksum, the header.
    let frames = [&bytes[64..72], &bytes[81..89], &[2, 0, 0, 0]].concat();
    assert_eq!(bytes[183..203], frames);
    assert_eq!(bytes[203..207], crc32fast::hash(&[b"parity", &bytes[175..203]].concat()).to_le_bytes());
    assert_eq!(bytes[207..], bytes[..64]);
}

#[test]
fn an_image_of_a_place_that_no_log_comes_to_is_none() {
    let decoded = |position| ImageHeader::decode(&Shard::default().to_image(2, position, 0).0);
    let most = (1 << 32) - 1;
    assert_eq!(decoded((most, most)).expect("a place").position, (most, most));
    for position in [(most + 1, 0), (u64::MAX, 0), (0, most + 1)] {
        assert_eq!(decoded(position), Err(ImageError::Header));
    }
}

#[test]
fn a_section_of_histograms_is_frozen() {
    use tidewatch_model::NativeHistogram;
    use tidewatch_model::histogram::{Histogram, Span};
    let mut shard = Shard::default();
    let id = Shard::id_of(2, 0, 5);
    let histogram = NativeHistogram::Integer(Histogram {
        schema: 1,
        count: 6,
        sum: 1.0,
        positive_spans: vec![Span { offset: -1, length: 2 }],
        positive_deltas: vec![2, 2],
        ..Histogram::default()
    });
    for timestamp in [1000, 900] {
        shard.take_histogram(id, timestamp, &histogram, i64::MAX);
    }
    shard.set_start(id, 1000, 990);
    let (bytes, _) = shard.to_image(2, (3, 4), 0);
    let header = ImageHeader::decode(&bytes).expect("whole");
    assert_eq!((header.version, header.sections), (4, 3));
    let layout = [2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0];
    let row = [0, 0xbf, 0xe0, 0x03, 12, 0, 4, 4];
    let parts: [&[u8]; 12] = [
        &[0x80, 0x80, 0x80, 0x80, 0x10, 1, 5, 0], // page, series, slot, sealed
        &[1, 1],                                  // open: rows, integers
        &layout,
        &[0xd0, 0x0f, 8], // timestamp, length
        &row,
        &[1, 0x84, 3, 0, 0, 0, 0, 0, 0, 1], // late: how many, timestamp, integers
        &layout,
        &row,
        &[1], // steps
        &[0xe8, 3, 0, 0, 0, 0, 0, 0],
        &[0xde, 3, 0, 0, 0, 0, 0, 0],
        &[],
    ];
    let parts = parts.concat();
    assert_eq!(bytes[95..95 + parts.len()], parts, "{:02x?}", &bytes[64..]);
    let mut again = Shard::default();
    let file = Bytes::from(bytes.clone());
    again.load_image(2, &header, &file, |offset, reason| panic!("{reason} at {offset}"));
    assert_eq!(again.to_image(2, (3, 4), 0).0, bytes);
}

#[test]
fn what_stands_in_an_image_comes_back_and_goes_on() {
    let mut shard = Shard::default();
    // Of the open runs some become columns, some stay tokens.
    let value = |id: SeriesId, at: i64| match id.0 % 3 {
        0 => (at % 7) as f64,
        1 => 0.25,
        _ => (at as f64).sqrt(),
    };
    let sample = |id: SeriesId, at: i64| Sample { timestamp: at * 15_000, value: value(id, at) };
    let ids: Vec<SeriesId> = (0..50).map(|slot| Shard::id_of(0, slot / 20, slot % 20)).collect();
    let fill = |shard: &mut Shard, range: Range<i64>| {
        for at in range {
            // One has few samples: its run stays tokens, without an exponent.
            ids.iter().filter(|id| id.0 != 17 || at >= 297).for_each(|id| {
                assert_eq!(shard.take(*id, sample(*id, at), 0), crate::head::shard::Verdict::Taken)
            });
        }
    };
    fill(&mut shard, 0..300);
    let late = (0..1500).map(|at| Sample { timestamp: at * 1000 + 1, value: (at % 5) as f64 });
    late.clone().for_each(|late| {
        shard.take(ids[3], late, i64::MAX);
    });
    let (bytes, placed) = shard.to_image(0, (1, 1), 0);
    shard.relocate(Bytes::from(bytes.clone()), &placed);
    let mut again = Shard::default();
    let header = ImageHeader::decode(&bytes).expect("whole");
    again.load_image(0, &header, &Bytes::from(bytes), |offset, reason| panic!("{reason} at {offset}"));
    fill(&mut shard, 300..500);
    fill(&mut again, 300..500);
    assert_eq!((shard.samples, shard.oldest, shard.newest), (again.samples, again.oldest, again.newest));
    assert_eq!(again.late[&ids[3]], late.collect::<Vec<_>>());
    // Numbers of clocks may differ; all else is the same, byte for byte.
    assert_eq!(shard.to_image(0, (2, 2), 0).0.len(), again.to_image(0, (2, 2), 0).0.len());
}

/// A shard with all that an image can have.
fn shard_of_everything() -> Shard {
    use tidewatch_model::NativeHistogram;
    use tidewatch_storage::TimeRange;
    let mut shard = Shard::default();
    for (page, slot) in [(0, 1), (0, 2), (1, 1)] {
        let id = Shard::id_of(2, page, slot);
        for at in 0..300 {
            shard.take(id, Sample { timestamp: at * 1000, value: at as f64 }, i64::MAX);
        }
        for at in 1..=5 {
            shard.take(id, Sample { timestamp: at * 1000 + 7, value: 0.5 }, i64::MAX);
        }
    }
    let of_histograms = Shard::id_of(2, 3, 1);
    for at in 0..20 {
        shard.take_histogram(of_histograms, at * 1000, &NativeHistogram::stale(), i64::MAX);
        shard.set_start(of_histograms, at * 1000, 10);
    }
    for id in [Shard::id_of(2, 0, 1), of_histograms] {
        shard.delete(id, TimeRange { start: 4000, end: 6000 });
    }
    shard
}

/// What a shard has, in a line.
fn summary(shard: &Shard) -> String {
    let late: usize = shard.late.values().map(Vec::len).sum();
    let mut histograms = 0;
    shard.histograms.values().for_each(|series| series.for_each_time(|_| histograms += 1));
    let in_order = shard.samples as usize - late - histograms;
    let steps: usize = shard.starts.values().map(|starts| starts.steps().len()).sum();
    let deleted = (shard.deleted.len(), shard.deleted_histograms().len());
    format!("{in_order} in order, {late} late, {histograms} histograms, {steps} starts, deleted {deleted:?}")
}

/// A shard of an image, and the offsets of what is damaged.
fn load(bytes: Vec<u8>) -> (Shard, Vec<u64>) {
    let header = ImageHeader::find(&bytes).expect("there twice");
    let (mut shard, mut damaged) = (Shard::default(), Vec::new());
    shard.load_image(2, &header, &Bytes::from(bytes), |offset, _| damaged.push(offset));
    (shard, damaged)
}

/// Where the sections of an image lie, frames included.
fn places(bytes: &[u8]) -> Vec<Range<usize>> {
    let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize;
    let mut at = HEADER_LEN;
    let place = |_| {
        let start = at;
        at += 8 + half(at);
        start..at
    };
    (0..half(bytes.len() - HEADER_LEN - 8)).map(place).collect()
}

/// An image with one bit changed of some sections, and all of the parity: so they are lost.
fn lose(bytes: &[u8], numbers: &[usize]) -> Vec<u8> {
    let sections = places(bytes);
    let mut broken = bytes.to_vec();
    numbers.iter().for_each(|number| broken[sections[*number].end - 1] ^= 4);
    let end = sections.last().map_or(HEADER_LEN, |section| section.end);
    let parity_len = Stripes::of(end - HEADER_LEN).parity_len();
    broken[end..end + parity_len].iter_mut().for_each(|byte| *byte ^= 4);
    broken
}

#[test]
fn a_lost_section_of_a_shard_costs_what_only_it_tells() {
    let (bytes, _) = shard_of_everything().to_image(2, (1, 1), 0);
    let names = ["clocks", "page 0", "page 1", "page 3", "deleted", "histograms", "deleted histograms"];
    let whole = summary(&load(bytes.clone()).0);
    let mut said = vec![format!("whole: {whole}")];
    let places = places(&bytes);
    assert_eq!(places.len(), names.len());
    for (number, name) in names.iter().enumerate() {
        let mut broken = bytes.clone();
        broken[places[number].end - 1] ^= 4;
        let (mut shard, damaged) = load(broken);
        assert_eq!((summary(&shard), &damaged[..]), (whole.clone(), &[places[number].start as u64][..]));
        goes_on(&mut shard, 5);
        let (mut shard, damaged) = load(lose(&bytes, &[number]));
        assert_eq!((damaged[0], damaged.len()), (places[number].start as u64, 2), "it and the parity");
        said.push(format!("{name}: {}", summary(&shard)));
        goes_on(&mut shard, if *name == "page 1" { 0 } else { 5 });
    }
    let expected = [
        "whole: 900 in order, 13 late, 20 histograms, 1 starts, deleted (1, 1)",
        "clocks: 0 in order, 13 late, 20 histograms, 1 starts, deleted (0, 1)",
        "page 0: 300 in order, 5 late, 20 histograms, 1 starts, deleted (0, 1)",
        "page 1: 600 in order, 8 late, 20 histograms, 1 starts, deleted (1, 1)",
        "page 3: 900 in order, 13 late, 20 histograms, 1 starts, deleted (1, 1)",
        "deleted: 900 in order, 13 late, 20 histograms, 1 starts, deleted (0, 1)",
        "histograms: 900 in order, 13 late, 0 histograms, 0 starts, deleted (1, 0)",
        "deleted histograms: 900 in order, 13 late, 20 histograms, 1 starts, deleted (1, 0)",
    ];
    assert_eq!(said, expected);
}

/// A series of page 1 has so many late samples, and what is there is there once.
fn goes_on(shard: &mut Shard, late: usize) {
    let id = Shard::id_of(2, 1, 1);
    assert_eq!(shard.late.get(&id).map_or(0, Vec::len), late);
    let verdict = shard.take(id, Sample { timestamp: 3007, value: 0.5 }, i64::MAX);
    assert_eq!(verdict == crate::head::shard::Verdict::Duplicate, late > 0);
}

/// A stretch was hidden of rows that are lost, and hid what was written there next.
#[test]
fn what_comes_in_place_of_rows_that_are_lost_is_not_hidden() {
    let (bytes, _) = shard_of_everything().to_image(2, (1, 1), 0);
    let id = Shard::id_of(2, 0, 1);
    let (shard, _) = load(bytes.clone());
    assert!(shard.is_deleted(id, 4500));
    for lost in ["clocks", "page 0"].iter().enumerate() {
        let (mut shard, _) = load(lose(&bytes, &[lost.0]));
        let verdict = shard.take(id, Sample { timestamp: 4500, value: 9.0 }, i64::MAX);
        assert_eq!(verdict, crate::head::shard::Verdict::Taken, "{}", lost.1);
        assert!(!shard.is_deleted(id, 4500), "{}", lost.1);
    }
}

#[test]
fn runs_of_a_rebuilt_section_are_on_the_heap_until_the_next_image() {
    let mut shard = shard_of_everything();
    let id = Shard::id_of(2, 3, 1);
    for at in 20..300 {
        let stale = tidewatch_model::NativeHistogram::stale();
        shard.take_histogram(id, at * 1000, &stale, i64::MAX);
    }
    let (bytes, placed) = shard.to_image(2, (1, 1), 0);
    assert!(!placed.chunks.is_empty() && !placed.runs.is_empty());
    let held = |shard: &Shard| {
        let runs = shard.histograms.values().flat_map(|series| &series.sealed);
        let mapped = runs.filter(|run| run.is_mapped).count();
        (shard.sealed.files().count(), shard.sealed.bytes_held(), mapped)
    };
    let (whole, damaged) = load(bytes.clone());
    assert!(damaged.is_empty());
    let (files, heap, mapped) = held(&whole);
    assert_eq!((files, mapped), (1, placed.runs.len()));
    let sections = places(&bytes);
    // Two pages of runs of floats, and the histograms.
    for number in [1, 2, 5] {
        let mut broken = bytes.clone();
        broken[sections[number].end - 1] ^= 4;
        let (mut shard, damaged) = load(broken);
        assert_eq!(damaged.len(), 1);
        let more = if number == 5 { 0 } else { sections[number].len() - 8 };
        let runs = if number == 5 { 0 } else { mapped };
        let now = held(&shard);
        assert_eq!((now.0, now.2), (1, runs), "section {number}");
        assert!(now.1 >= heap + more, "section {number}: {now:?} after {heap}");
        let (again, placed) = shard.to_image(2, (1, 1), 0);
        assert_eq!(again, bytes, "section {number}");
        shard.relocate(Bytes::from(again), &placed);
        assert_eq!((held(&shard).0, held(&shard).2), (1, mapped), "section {number}");
        assert!(held(&shard).1 < heap + more.max(1), "section {number}");
    }
}

#[test]
fn a_changed_byte_of_an_image_costs_nothing_and_is_named_where_it_is() {
    let of_shard = shard_of_everything().to_image(2, (1, 1), 0).0;
    let of_series =
        registry_of(&[(3, labels(&[("a", "x")])), (1030, labels(&[("b", "y")]))]).to_image((3, 4), 0);
    let whole = (summary(&load(of_shard.clone()).0), read_series(&of_series).0);
    for bytes in [of_shard, of_series] {
        let is_shard = ImageHeader::decode(&bytes).expect("whole").kind == ImageKind::Shard(2);
        let sections = places(&bytes);
        let end = sections.last().expect("sections").end;
        let copy_of_header = bytes.len() - HEADER_LEN;
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 4;
            let damaged = match is_shard {
                true => {
                    let (shard, damaged) = load(broken);
                    assert_eq!(summary(&shard), whole.0, "byte {at}");
                    damaged
                }
                false => {
                    let (series, damaged) = read_series(&broken);
                    assert_eq!(series, whole.1, "byte {at}");
                    damaged
                }
            };
            let place = sections.iter().find(|place| place.contains(&at));
            let expected = match place {
                Some(place) => place.start,
                None if at < HEADER_LEN => 0,
                // The parity and the end, which begin where the sections end.
                None if at < copy_of_header => end,
                None => copy_of_header,
            };
            assert_eq!(damaged, [expected as u64], "byte {at}");
        }
        let mut broken = bytes.clone();
        let last = bytes.len() - 1;
        [0, last].iter().for_each(|at| broken[*at] ^= 4);
        assert_eq!(ImageHeader::find(&broken), Err(ImageError::Header));
    }
}

/// An id and its labels.
type Series = (u32, Vec<(String, String)>);

/// A registry with these series.
fn registry_of(series: &[Series]) -> Registry {
    let mut registry = Registry::new(1);
    for (id, labels) in series {
        let pairs: Vec<_> = labels.iter().map(|(name, value)| registry.intern(name, value)).collect();
        assert!(registry.restore(SeriesId(*id), &pairs));
    }
    registry
}

/// The series of an image, and the offsets of what is damaged.
fn read_series(bytes: &[u8]) -> (Vec<Series>, Vec<u64>) {
    let header = ImageHeader::find(bytes).expect("there twice");
    let (mut registry, mut damaged) = (Registry::new(7), Vec::new());
    let is_whole = visit_series(&Bytes::copy_from_slice(bytes), &header, &mut registry, |offset, _| {
        damaged.push(offset)
    });
    assert!(is_whole || !damaged.is_empty(), "what is lost is named");
    let labels = |id: SeriesId| {
        registry.to_labels(id).iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    (registry.ids().map(|id| (id.0, labels(id))).collect(), damaged)
}

fn labels(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn an_image_of_series_is_frozen() {
    let series = [
        (3, labels(&[("a", "x"), ("b", "y")])),
        (4, labels(&[("a", "x"), ("b", "z")])),
        (1030, labels(&[("b", "z")])),
    ];
    let bytes = registry_of(&series).to_image((3, 4), 0);
    let pairs = [1, 0, 3, 1, b'a', 1, b'x', 1, b'b', 1, b'y', 1, b'b', 1, b'z'];
    let (first, second) = ([2, 0, 0, 0, 0, 2, 3, 2, 0, 0, 1, 0, 2, 1, 2], [2, 0, 4, 0, 0, 1, 6, 1, 0, 2]);
    let mut at = 64;
    for section in [&pairs[..], &first, &second] {
        assert_eq!(bytes[at..at + 4], (section.len() as u32).to_le_bytes());
        assert_eq!(&bytes[at + 8..at + 8 + section.len()], section, "{:02x?}", &bytes[at + 8..]);
        at += 8 + section.len();
    }
    let parity = Stripes::of(at - 64).encoded_len();
    assert_eq!((bytes.len(), bytes[4], bytes[40]), (at + parity + 3 * 8 + 8 + 64, 4, 7));
    assert_eq!(read_series(&bytes), (series.to_vec(), vec![]));
}

#[test]
fn a_lost_section_of_series_costs_its_own_and_one_of_labels_those_that_bear_them() {
    // Sections of 1,024 labels and of the rest; series of two pages.
    let series: Vec<_> = (0..1100).map(|i| (512 + i, labels(&[("n", &i.to_string())]))).collect();
    let bytes = registry_of(&series).to_image((1, 1), 0);
    let lost = [(0..1024, 3), (1024..1100, 2), (0..512, 1), (512..1100, 1)];
    assert_eq!(places(&bytes).len(), lost.len());
    for (section, (lost, damaged_sections)) in lost.into_iter().enumerate() {
        let (found, damaged) = read_series(&lose(&bytes, &[section]));
        assert_eq!(damaged.len(), damaged_sections + 1, "{section}: it, those that rest on it, the parity");
        assert_eq!(found, [&series[..lost.start], &series[lost.end..]].concat(), "{section}");
    }
}

/// As releases wrote it that had no parity.
#[test]
fn an_image_with_a_second_copy_of_the_labels_needs_one_of_them() {
    let bytes = include_bytes!("../../../tests/fixtures/format-1-images-ends/head/series.image");
    let (series, damaged) = read_series(bytes);
    assert!(!series.is_empty() && damaged.is_empty());
    let sections = places(bytes);
    for copy in [sections.first(), sections.last()].map(|copy| copy.expect("there")) {
        let mut broken = bytes.to_vec();
        broken[copy.end - 1] ^= 4;
        assert_eq!(read_series(&broken), (series.clone(), vec![copy.start as u64]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn any_series_come_back_from_an_image(
        series in proptest::collection::vec((0u32..600, proptest::collection::btree_map("[a-k]", "[a-c]{1,2}", 1..11)), 0..60),
    ) {
        let mut id = 0;
        let series: Vec<_> = series.into_iter().map(|(gap, labels)| {
            id += gap + 1;
            (id, labels.into_iter().collect::<Vec<_>>())
        }).collect();
        let bytes = registry_of(&series).to_image((1, 1), 0);
        prop_assert_eq!(read_series(&bytes), (series, vec![]));
    }

    #[test]
    fn no_bytes_make_a_reader_of_images_panic(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0..4u8], 0..80)) {
        super::walk(&bytes);
    }
}
