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
    }
}

fn image_of(bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut image = ImageWriter::new(header(0));
    bodies.iter().for_each(|body| image.section(|out| out.extend_from_slice(body)));
    image.finish()
}

/// Where each section lies, and then each parity, frames included, by the lengths before them.
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
const REBUILT: &str = "a section of the image is damaged; it was rebuilt from the others";
const LOST: &str = "a section of the image is damaged";
const NO_PARITY: &str = "the parity of sections of the image is damaged";
const NO_END: &str = "the end of the image is damaged";
const NO_HEADER: &str = "the header of the image is damaged; its copy is whole";

/// What is said where a section or a parity is changed so much that its bytes do not hold any more.
fn said_of(number: usize, bodies: &[Vec<u8>], places: &[Range<usize>]) -> String {
    let reason = match bodies.get(number) {
        Some(body) if body.is_empty() => FRAMED,
        Some(_) => REBUILT,
        None => NO_PARITY,
    };
    format!("{}: {reason}", places[number].start)
}

/// Changes every byte of a range.
fn spoil(bytes: &mut [u8], range: Range<usize>) {
    bytes[range].iter_mut().for_each(|byte| *byte ^= 0x5a);
}

#[test]
fn a_group_has_sixteen_sections_at_most_and_no_neighbours() {
    let counts = [0, 1, 2, 3, 16, 32, 33, 48, 49, 800].map(|sections| (sections, group_count(sections)));
    let expected = [(0, 0), (1, 1), (2, 2), (3, 2), (16, 2), (32, 2), (33, 3), (48, 3), (49, 4), (800, 50)];
    assert_eq!(counts, expected);
    // Each has one parity.
    for (sections, groups) in expected {
        let parities: Vec<_> = (sections..sections + groups)
            .map(|parity| members(parity, groups, sections + groups).filter(|at| *at >= sections).count())
            .collect();
        assert_eq!(parities, vec![1; groups]);
    }
}

#[test]
fn a_parity_is_as_long_as_the_longest_of_its_group_and_is_frozen() {
    let bodies = [vec![1, 2, 3, 4, 5], vec![0x10], vec![0x40, 0x40]];
    let bytes = image_of(&bodies);
    let places = places(&bytes);
    assert_eq!(places.len(), 5);
    let body = |number: usize| &bytes[places[number].start + FRAME_LEN..places[number].end];
    assert_eq!([body(3), body(4)], [&[0x10][..], &[0x41, 0x42, 3, 4, 5]]);
    // Clocks that are long make no other group's parity long.
    let clocks: Vec<_> = [vec![7; 10_000]].into_iter().chain(vec![vec![1; 10]; 40]).collect();
    let lens: Vec<_> = self::places(&image_of(&clocks))[41..].iter().map(|place| place.len() - 8).collect();
    assert_eq!(lens, [10, 10_000, 10], "numbers 41, 42, 43 of three groups");
    // An end without parity is another.
    let frames = &bytes[places[4].end..bytes.len() - HEADER_LEN - 4];
    let crc = half(&bytes[bytes.len() - HEADER_LEN - 4..bytes.len() - HEADER_LEN]);
    assert_eq!(crc, crc32fast::hash(&[b"parity", frames].concat()));
    assert_ne!(crc, crc32fast::hash(frames));
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

    #[test]
    fn any_changes_to_one_section_and_the_frame_before_it_cost_nothing(
        bodies in bodies(1..40),
        number in any::<Index>(),
        changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..20),
    ) {
        let bytes = image_of(&bodies);
        let places = places(&bytes);
        let number = number.index(places.len());
        let place = places[number].clone();
        let mut broken = bytes.clone();
        changes.iter().for_each(|(at, to)| broken[place.start + at.index(place.len())] = *to);
        let body = place.start + FRAME_LEN..place.end;
        let damage = match bodies.get(number) {
            _ if broken == bytes => vec![],
            Some(_) if broken[body.clone()] == bytes[body] => vec![format!("{}: {FRAMED}", place.start)],
            _ => vec![said_of(number, &bodies, &places)],
        };
        prop_assert_eq!(read(broken), whole(&bodies, damage));
    }

    #[test]
    fn a_burst_from_one_section_into_the_next_costs_nothing(
        bodies in bodies(2..40),
        first in any::<Index>(),
        parts in any::<(Index, Index)>(),
    ) {
        let bytes = image_of(&bodies);
        let places = places(&bytes);
        let first = first.index(places.len() - 1);
        // Of the first at least its last byte, of the next at least its frame: then neither holds.
        let start = places[first].start + parts.0.index(places[first].len());
        let next = places[first + 1].clone();
        let end = next.start + FRAME_LEN + parts.1.index(next.len() - FRAME_LEN + 1);
        let mut broken = bytes;
        spoil(&mut broken, start..end);
        let is_in_body = end > next.start + FRAME_LEN;
        let of_next = match bodies.get(first + 1) {
            Some(_) if !is_in_body => format!("{}: {FRAMED}", next.start),
            _ => said_of(first + 1, &bodies, &places),
        };
        prop_assert_eq!(read(broken), whole(&bodies, vec![said_of(first, &bodies, &places), of_next]));
    }

    #[test]
    fn a_burst_over_an_end_of_the_file_costs_nothing(bodies in bodies(1..40), parts in any::<(Index, Index)>()) {
        let bytes = image_of(&bodies);
        let places = places(&bytes);
        let (first, last) = (places[0].clone(), places[places.len() - 1].clone());
        let mut broken = bytes.clone();
        spoil(&mut broken, parts.0.index(HEADER_LEN)..first.start + FRAME_LEN + parts.1.index(first.len() - FRAME_LEN + 1));
        let found = read(broken);
        prop_assert_eq!(&found.damage[0], &format!("0: {NO_HEADER}"));
        prop_assert_eq!(found.damage.len(), 2);
        prop_assert_eq!(&found, &whole(&bodies, found.damage.clone()));
        // From the last parity on, up to the header: the lengths before the sections are all that is left.
        let mut broken = bytes.clone();
        let end = last.end + 1 + parts.1.index(bytes.len() - HEADER_LEN - last.end);
        spoil(&mut broken, last.start + parts.0.index(last.len())..end);
        let sections_end = places[bodies.len() - 1].end;
        prop_assert_eq!(read(broken), whole(&bodies, vec![format!("{sections_end}: {NO_END}")]));
    }

    #[test]
    fn two_of_a_group_are_lost_and_named_and_of_two_groups_rebuilt(
        mut bodies in bodies(3..40),
        numbers in any::<(Index, Index)>(),
    ) {
        bodies.iter_mut().for_each(|body| body.push(1));
        let bytes = image_of(&bodies);
        let places = places(&bytes);
        let groups = group_count(bodies.len());
        let a = numbers.0.index(bodies.len());
        let b = (a + 1 + numbers.1.index(places.len() - 1)) % places.len();
        let (a, b) = (a.min(b), a.max(b));
        let mut broken = bytes;
        for number in [a, b] {
            broken[places[number].end - 1] ^= 4;
        }
        let found = read(broken);
        let mut expected =
            whole(&bodies, vec![said_of(a, &bodies, &places), said_of(b, &bodies, &places)]);
        if a % groups == b % groups {
            expected.is_whole = false;
            for (at, number) in [a, b].into_iter().enumerate().filter(|(_, number)| *number < bodies.len()) {
                expected.bodies[number] = None;
                expected.damage[at] = format!("{}: {LOST}", places[number].start);
            }
        }
        prop_assert_eq!(found, expected);
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
