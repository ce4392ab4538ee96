//! Damage to sections of any bytes: what is rebuilt, what is lost, and that both are named.

use std::ops::Range;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::ImageKind;
use super::*;

fn header(sections: usize) -> ImageHeader {
    let kind = ImageKind::Shard(1);
    ImageHeader {
        version: 3,
        kind,
        position: (1, 2),
        floor: 3,
        bar: 4,
        next_id: 5,
        sections: sections as u32,
        owner: 0,
    }
}

fn image_of(bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut image = ImageWriter::new(header(0));
    bodies.iter().for_each(|body| image.section(|out| out.extend_from_slice(body)));
    image.finish()
}

/// Where each section lies, frames included, by the lengths before them.
fn places(bytes: &[u8]) -> Vec<Range<usize>> {
    let count_at = bytes.len() - END_LEN;
    let mut at = HEADER_LEN;
    let place = |_| {
        let start = at;
        at = Frame::read(bytes, at).expect("there").body(at).end;
        start..at
    };
    (0..half(&bytes[count_at..count_at + 4])).map(place).collect()
}

fn stripes_of(places: &[Range<usize>]) -> Stripes {
    Stripes::of(places.last().map_or(0, |last| last.end - HEADER_LEN))
}

/// What is read of an image.
#[derive(Debug, PartialEq)]
struct Found {
    bodies: Vec<Option<Vec<u8>>>,
    /// Offsets and reasons, a line each.
    damage: Vec<String>,
    is_whole: bool,
}

fn read(bytes: Vec<u8>) -> Found {
    let header = ImageHeader::find(&bytes).expect("there twice");
    let (mut bodies, mut damage) = (vec![None; header.sections as usize], Vec::new());
    let file = Bytes::from(bytes);
    let visit = |section: Section| {
        let from_file = file.as_ptr_range().contains(&section.body.as_ptr());
        assert!(section.body.is_empty() || from_file == section.in_file);
        bodies[section.number as usize] = Some(section.body.to_vec());
        Ok(())
    };
    let name = |offset, reason: &str| damage.push(format!("{offset}: {reason}"));
    let is_whole = sections(&file, &header, visit, name);
    Found { bodies, damage, is_whole }
}

/// All bodies, and this damage.
fn whole(bodies: &[Vec<u8>], damage: Vec<String>) -> Found {
    Found { bodies: bodies.iter().cloned().map(Some).collect(), damage, is_whole: true }
}

const FRAMED: &str = "the length or the checksum of a section of the image is damaged; their copy is whole";
const REBUILT: &str = "a section of the image is damaged; it was rebuilt from the parity";
const LOST: &str = "a section of the image is damaged";
const NO_PARITY: &str = "the parity of the image is damaged";
const NO_END: &str = "the end of the image is damaged";
const NO_HEADER: &str = "the header of the image is damaged; its copy is whole";

/// Changes every byte of a range.
fn spoil(bytes: &mut [u8], range: Range<usize>) {
    bytes[range].iter_mut().for_each(|byte| *byte ^= 0x5a);
}

/// As releases wrote it that had a copy of the first section behind the last.
#[test]
fn an_image_with_copies_is_read_without_them() {
    let bodies = [vec![1; 5], vec![2; 7], vec![3; 4]];
    let mut bytes = header(3).encode().to_vec();
    let mut frames = Vec::new();
    for body in bodies.iter().chain(&bodies[..1]) {
        let frame = Frame::of(body).encode();
        bytes.extend_from_slice(&[&frame[..], body].concat());
        frames.extend_from_slice(&frame);
    }
    frames.extend_from_slice(&4u32.to_le_bytes());
    bytes.extend_from_slice(&frames);
    bytes.extend_from_slice(&crc32fast::hash(&frames).to_le_bytes());
    bytes.extend_from_slice(&header(3).encode());
    assert_eq!(read(bytes.clone()), whole(&bodies, vec![]));
    // The end still says where the others lie.
    let mut broken = bytes.clone();
    broken[HEADER_LEN] ^= 1;
    assert_eq!(read(broken), whole(&bodies, vec![format!("64: {FRAMED}")]));
    let mut broken = bytes;
    broken[HEADER_LEN + FRAME_LEN] ^= 1;
    let found = read(broken);
    assert_eq!((&found.damage[..], found.is_whole), (&[format!("64: {LOST}")][..], false));
    assert_eq!(found.bodies, [None, Some(bodies[1].clone()), Some(bodies[2].clone())]);
}

/// As the first releases wrote it.
#[test]
fn an_image_without_an_end_is_whole_and_a_damaged_length_costs_all_that_follow() {
    let bodies = [vec![1; 5], vec![2; 7], vec![3; 4]];
    let mut bytes = image_of(&bodies);
    let places = places(&bytes);
    bytes.truncate(places[2].end);
    assert_eq!(read(bytes.clone()), whole(&bodies, vec![]));
    bytes[places[1].start + 3] ^= 1;
    let damage = vec![format!("{}: a section of the image is longer than the file", places[1].start)];
    let found = Found { bodies: vec![Some(bodies[0].clone()), None, None], damage, is_whole: false };
    assert_eq!(read(bytes), found);
}

#[test]
fn what_is_rebuilt_and_means_nothing_is_lost_and_named() {
    let bytes = image_of(&[vec![1; 5], vec![2; 7], vec![3; 4]]);
    let mut broken = bytes.clone();
    broken[HEADER_LEN + FRAME_LEN] ^= 1;
    for (bytes, named) in [(bytes, 1), (broken, 2)] {
        let (mut damage, file) = (Vec::new(), Bytes::from(bytes));
        let visit = |section: Section| match section.number {
            0 => Err(FrameError::Malformed),
            _ => Ok(()),
        };
        assert!(!sections(&file, &header(3), visit, |_, reason| damage.push(reason.to_owned())));
        assert_eq!(damage.len(), named);
        assert_eq!(damage[named - 1], "a section of the image is malformed");
    }
}

fn bodies(count: Range<usize>) -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), count)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn one_changed_byte_costs_nothing_and_is_named(bodies in bodies(0..40), at in any::<Index>(), change in 1..=255u8) {
        let bytes = image_of(&bodies);
        prop_assert_eq!(ImageHeader::decode(&bytes), Ok(header(bodies.len())));
        prop_assert_eq!(read(bytes.clone()), whole(&bodies, vec![]));
        let at = at.index(bytes.len());
        let mut broken = bytes;
        broken[at] ^= change;
        let found = read(broken);
        prop_assert_eq!(found.damage.len(), 1, "{:?}", found);
        prop_assert_eq!(&found, &whole(&bodies, found.damage.clone()));
    }

    /// A page of the disk, wherever it begins.
    #[test]
    fn a_burst_costs_nothing(bodies in bodies(1..40), parts in any::<(Index, Index)>()) {
        let bytes = image_of(&bodies);
        let places = places(&bytes);
        let sections_end = places[bodies.len() - 1].end;
        let checked_from = sections_end + stripes_of(&places).parity_len();
        let at = HEADER_LEN + parts.0.index(checked_from - HEADER_LEN);
        let end = (at + 1 + parts.1.index(stripes_of(&places).burst())).min(checked_from);
        let mut broken = bytes;
        spoil(&mut broken, at..end);
        let found = read(broken);
        prop_assert_eq!(&found, &whole(&bodies, found.damage.clone()));
        let hit = |place: &&Range<usize>| place.start < end && at < place.end;
        let parity = usize::from(end > sections_end);
        prop_assert_eq!(found.damage.len(), places.iter().filter(hit).count() + parity, "{:?}", found.damage);
        let said = |reason: &str| found.damage.iter().filter(|line| line.ends_with(reason)).count();
        prop_assert_eq!(said(NO_PARITY), parity);
        prop_assert_eq!(said(REBUILT) + said(FRAMED) + parity, found.damage.len(), "{:?}", found.damage);
    }

    #[test]
    fn a_burst_over_an_end_of_the_file_costs_nothing(bodies in bodies(1..40), parts in any::<(Index, Index)>()) {
        let bytes = image_of(&bodies);
        let places = places(&bytes);
        let (first, sections_end) = (places[0].clone(), places[bodies.len() - 1].end);
        let mut broken = bytes.clone();
        spoil(&mut broken, parts.0.index(HEADER_LEN)..first.start + FRAME_LEN + parts.1.index(first.len() - FRAME_LEN + 1));
        let found = read(broken);
        prop_assert_eq!(&found.damage[0], &format!("0: {NO_HEADER}"));
        prop_assert_eq!(found.damage.len(), 2);
        prop_assert_eq!(&found, &whole(&bodies, found.damage.clone()));
        // From the parity on, up to the header: the lengths before the sections are all that is left.
        let mut broken = bytes.clone();
        let checked_from = sections_end + stripes_of(&places).parity_len();
        let end = checked_from + 1 + parts.1.index(bytes.len() - HEADER_LEN - checked_from);
        spoil(&mut broken, sections_end + parts.0.index(checked_from - sections_end)..end);
        prop_assert_eq!(read(broken), whole(&bodies, vec![format!("{sections_end}: {NO_END}")]));
    }

    /// All of the parity, and some sections: these are lost, and named.
    #[test]
    fn what_can_not_be_rebuilt_is_lost_and_named(
        mut bodies in bodies(1..40),
        numbers in proptest::collection::vec(any::<Index>(), 1..4),
    ) {
        bodies.iter_mut().for_each(|body| body.push(1));
        let bytes = image_of(&bodies);
        let places = places(&bytes);
        let sections_end = places[bodies.len() - 1].end;
        let mut broken = bytes;
        spoil(&mut broken, sections_end..sections_end + stripes_of(&places).parity_len());
        let mut numbers: Vec<usize> = numbers.iter().map(|number| number.index(bodies.len())).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.iter().for_each(|number| broken[places[*number].end - 1] ^= 4);
        let mut expected = whole(&bodies, vec![]);
        expected.is_whole = false;
        for number in &numbers {
            expected.bodies[*number] = None;
            expected.damage.push(format!("{}: {LOST}", places[*number].start));
        }
        expected.damage.push(format!("{sections_end}: {NO_PARITY}"));
        prop_assert_eq!(read(broken), expected);
    }

    #[test]
    fn an_image_that_is_cut_short_has_what_is_before(bodies in bodies(1..40), len in any::<Index>()) {
        let bytes = image_of(&bodies);
        let places = places(&bytes);
        let len = HEADER_LEN + len.index(bytes.len() - HEADER_LEN);
        let found = read(bytes[..len].to_vec());
        let there = (0..bodies.len()).filter(|number| places[*number].end <= len).count();
        let is_there = |(number, body): (usize, &Vec<u8>)| Some(body.clone()).filter(|_| number < there);
        prop_assert_eq!(found.bodies, bodies.iter().enumerate().map(is_there).collect::<Vec<_>>());
        prop_assert_eq!(found.is_whole, there == bodies.len());
        // Without an end it is as releases wrote it that knew none.
        let sections_end = places[bodies.len() - 1].end;
        prop_assert_eq!(found.damage.len(), usize::from(len != sections_end), "{:?}", found.damage);
    }
}
