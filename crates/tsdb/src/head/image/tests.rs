//! The bytes of images are frozen, and what stands in one comes back.

use std::ops::Range;

use bytes::Bytes;
use proptest::prelude::*;
use tidewatch_model::Sample;

use super::{ImageHeader, ImageKind, visit_series};
use crate::head::registry::{Registry, SeriesId};
use crate::head::shard::Shard;

#[test]
fn an_image_of_a_shard_is_frozen() {
    let mut shard = Shard::default();
    let id = Shard::id_of(2, 0, 5);
    for (timestamp, value) in [(1000, 1.0), (1015, 2.0), (1003, 0.5)] {
        shard.take(id, Sample { timestamp, value }, i64::MAX);
    }
    let (bytes, placed) = shard.to_image(2, (3, 4));
    assert!(placed.is_empty());
    let header = ImageHeader::decode(&bytes).expect("whole");
    let expected = ImageHeader {
        version: 3,
        kind: ImageKind::Shard(2),
        position: (3, 4),
        floor: i64::MIN,
        bar: i64::MIN,
        next_id: 0,
        sections: 2,
    };
    assert_eq!(header, expected);
    assert_eq!(bytes[..12], [b'T', b'W', b'I', b'M', 3, 0, 2, 2, 3, 0, 0, 0]);
    let clocks = [1, 0, 2, 5, 1, 13, 0xd0, 0x0f, 30];
    assert_eq!(bytes[64..68], [clocks.len() as u8, 0, 0, 0]);
    assert_eq!(bytes[72..81], clocks, "{:02x?}", &bytes[72..81]);
    // Page, series, slot, shape; its chunks, count, clock and row; length, exponent, tokens.
    let mut page = vec![0, 1, 5, 1, 0, 2, 0, 0, 4, 0, 0x42, 0x42];
    // The late sample: lengths and columns.
    page.extend([1, 4, 1, 8, 0xd6, 0x0f, 3, 1, 0x3f, 0xe0]);
    assert_eq!(bytes[89..], page, "{:02x?}", &bytes[89..]);
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
    let (bytes, _) = shard.to_image(2, (3, 4));
    let header = ImageHeader::decode(&bytes).expect("whole");
    assert_eq!((header.version, header.sections), (3, 3));
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
    assert_eq!(bytes[95..], parts.concat(), "{:02x?}", &bytes[64..]);
    let mut again = Shard::default();
    let file = Bytes::from(bytes.clone());
    again.load_image(2, &header, &file, |offset, reason| panic!("{reason} at {offset}"));
    assert_eq!(again.to_image(2, (3, 4)).0, bytes);
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
    let (bytes, placed) = shard.to_image(0, (1, 1));
    shard.relocate(Bytes::from(bytes.clone()), &placed);
    let mut again = Shard::default();
    let header = ImageHeader::decode(&bytes).expect("whole");
    again.load_image(0, &header, &Bytes::from(bytes), |offset, reason| panic!("{reason} at {offset}"));
    fill(&mut shard, 300..500);
    fill(&mut again, 300..500);
    assert_eq!((shard.samples, shard.oldest, shard.newest), (again.samples, again.oldest, again.newest));
    assert_eq!(again.late[&ids[3]], late.collect::<Vec<_>>());
    // Numbers of clocks may differ; all else is the same, byte for byte.
    assert_eq!(shard.to_image(0, (2, 2)).0.len(), again.to_image(0, (2, 2)).0.len());
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

#[test]
fn a_damaged_section_of_a_shard_costs_what_only_it_tells() {
    let (bytes, _) = shard_of_everything().to_image(2, (1, 1));
    let load = |bytes: Vec<u8>| {
        let header = ImageHeader::decode(&bytes).expect("whole");
        let (mut shard, mut damaged) = (Shard::default(), Vec::new());
        shard.load_image(2, &header, &Bytes::from(bytes), |offset, _| damaged.push(offset));
        (shard, damaged)
    };
    let mut names =
        ["clocks", "page 0", "page 1", "page 3", "deleted", "histograms", "deleted histograms"].iter();
    let mut said = vec![format!("whole: {}", summary(&load(bytes.clone()).0))];
    let mut at = 64;
    while at < bytes.len() {
        let end = at + 8 + u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize;
        let mut broken = bytes.clone();
        broken[end - 1] ^= 4;
        let (mut shard, damaged) = load(broken);
        assert_eq!(damaged, [at as u64]);
        said.push(format!("{}: {}", names.next().expect("a name for each"), summary(&shard)));
        // It goes on: what is there is there once.
        let id = Shard::id_of(2, 1, 1);
        let late = Sample { timestamp: 3007, value: 0.5 };
        let had = shard.late.get(&id).is_some_and(|late| late.len() == 5);
        let verdict = shard.take(id, late, i64::MAX);
        assert_eq!(verdict == crate::head::shard::Verdict::Duplicate, had, "{said:?}");
        at = end;
    }
    let expected = [
        "whole: 900 in order, 13 late, 20 histograms, 1 starts, deleted (1, 1)",
        "clocks: 0 in order, 13 late, 20 histograms, 1 starts, deleted (1, 1)",
        "page 0: 300 in order, 5 late, 20 histograms, 1 starts, deleted (1, 1)",
        "page 1: 600 in order, 8 late, 20 histograms, 1 starts, deleted (1, 1)",
        "page 3: 900 in order, 13 late, 20 histograms, 1 starts, deleted (1, 1)",
        "deleted: 900 in order, 13 late, 20 histograms, 1 starts, deleted (0, 1)",
        "histograms: 900 in order, 13 late, 0 histograms, 0 starts, deleted (1, 0)",
        "deleted histograms: 900 in order, 13 late, 20 histograms, 1 starts, deleted (1, 0)",
    ];
    assert_eq!(said, expected);
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
    let header = ImageHeader::decode(bytes).expect("whole");
    let (mut registry, mut damaged) = (Registry::new(7), Vec::new());
    visit_series(bytes, &header, &mut registry, |offset, _| damaged.push(offset));
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
    let bytes = registry_of(&series).to_image((3, 4));
    let pairs = [1, 0, 3, 1, b'a', 1, b'x', 1, b'b', 1, b'y', 1, b'b', 1, b'z'];
    let (first, second) = ([2, 0, 0, 0, 0, 2, 3, 2, 0, 0, 1, 0, 2, 1, 2], [2, 0, 4, 0, 0, 1, 6, 1, 0, 2]);
    let mut at = 64;
    for section in [&pairs[..], &first, &second, &pairs] {
        assert_eq!(bytes[at..at + 4], (section.len() as u32).to_le_bytes());
        assert_eq!(&bytes[at + 8..at + 8 + section.len()], section, "{:02x?}", &bytes[at + 8..]);
        at += 8 + section.len();
    }
    assert_eq!((bytes.len(), bytes[4], bytes[40]), (at, 3, 7));
    assert_eq!(read_series(&bytes), (series.to_vec(), vec![]));
}

#[test]
fn a_damaged_section_of_series_costs_its_own_and_one_of_labels_nothing() {
    let of_page = |page: u32| {
        (0..20).map(move |i| {
            (page * 1024 + i, labels(&[("host", &format!("h{}", i % 4)), ("n", &i.to_string())]))
        })
    };
    let series: Vec<_> = (0..3).flat_map(of_page).collect();
    let bytes = registry_of(&series).to_image((1, 1));
    let mut ends = vec![];
    let mut at = 64;
    while at < bytes.len() {
        at += 8 + u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize;
        ends.push(at);
    }
    assert_eq!(ends.len(), 5, "labels, three pages, labels");
    for (section, end) in ends.iter().enumerate() {
        let mut broken = bytes.clone();
        broken[end - 1] ^= 4;
        let (found, damaged) = read_series(&broken);
        assert_eq!(damaged.len(), 1, "{section}");
        let lost = |id: u32| (1..4).contains(&section) && id / 1024 == section as u32 - 1;
        let expected: Vec<_> = series.iter().filter(|(id, _)| !lost(*id)).cloned().collect();
        assert_eq!(found, expected, "{section}");
    }
    // Both copies: what needs no lost label is there.
    let mut broken = bytes;
    broken[ends[0] - 1] ^= 4;
    broken[ends[4] - 1] ^= 4;
    let (found, damaged) = read_series(&broken);
    assert_eq!((found.len(), damaged.len()), (0, 5));
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
        let bytes = registry_of(&series).to_image((1, 1));
        prop_assert_eq!(read_series(&bytes), (series, vec![]));
    }

    #[test]
    fn no_bytes_make_a_reader_of_images_panic(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0..4u8], 0..80)) {
        super::walk(&bytes);
    }
}
