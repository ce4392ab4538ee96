//! The bytes of images are frozen, and what stands in one comes back.

use std::ops::Range;

use bytes::Bytes;
use tidewatch_model::Sample;

use super::{ImageHeader, ImageKind};
use crate::head::registry::SeriesId;
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
        version: 1,
        kind: ImageKind::Shard(2),
        position: (3, 4),
        floor: i64::MIN,
        bar: i64::MIN,
        next_id: 0,
        sections: 2,
    };
    assert_eq!(header, expected);
    assert_eq!(bytes[..12], [b'T', b'W', b'I', b'M', 1, 0, 2, 2, 3, 0, 0, 0]);
    let clocks = [1, 0, 2, 0xd0, 0x0f, 30];
    assert_eq!(bytes[64..68], [6, 0, 0, 0]);
    assert_eq!(bytes[72..78], clocks);
    let mut page = vec![0, 1, 5, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 2, 0x42, 0x42];
    page.extend([1, 0xeb, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f]);
    assert_eq!(bytes[86..], page, "{:02x?}", &bytes[86..]);
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
    assert_eq!((header.version, header.sections), (2, 3));
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
    let sample = |at: i64| Sample { timestamp: at * 15_000, value: (at % 7) as f64 };
    let ids: Vec<SeriesId> = (0..50).map(|slot| Shard::id_of(0, slot / 20, slot % 20)).collect();
    let fill = |shard: &mut Shard, range: Range<i64>| {
        for at in range {
            ids.iter().for_each(|id| {
                assert_eq!(shard.take(*id, sample(at), 0), crate::head::shard::Verdict::Taken)
            });
        }
    };
    fill(&mut shard, 0..300);
    let (bytes, placed) = shard.to_image(0, (1, 1));
    shard.relocate(Bytes::from(bytes.clone()), &placed);
    let mut again = Shard::default();
    let header = ImageHeader::decode(&bytes).expect("whole");
    again.load_image(0, &header, &Bytes::from(bytes), |offset, reason| panic!("{reason} at {offset}"));
    fill(&mut shard, 300..500);
    fill(&mut again, 300..500);
    assert_eq!((shard.samples, shard.oldest, shard.newest), (again.samples, again.oldest, again.newest));
    // Numbers of clocks may differ; all else is the same, byte for byte.
    assert_eq!(shard.to_image(0, (2, 2)).0.len(), again.to_image(0, (2, 2)).0.len());
}
