//! What was deleted of a block and is still in it.
//!
//! ```text
//! magic 0x0130ba30, version 1; for each deletion: series (its reference in the index) as an
//! unsigned varint, first and last time as varints; CRC-32C of the deletions
//! ```

use std::collections::HashMap;

use super::reader::{Reader, Short};

const MAGIC: u32 = 0x0130_ba30;

/// From one time to another, both included.
pub type Interval = (i64, i64);

/// Deletions by series.
pub type Tombstones = HashMap<u64, Vec<Interval>>;

/// Reads the file's bytes.
pub fn decode(file: &[u8]) -> Result<Tombstones, &'static str> {
    let mut reader = Reader::new(file);
    if reader.be32() != Ok(MAGIC) {
        return Err("this is no tombstones file");
    }
    if reader.u8() != Ok(1) {
        return Err("the version is not known");
    }
    let (body, crc) = reader.rest.split_last_chunk::<4>().ok_or("the file is cut short")?;
    if crc32c::crc32c(body).to_be_bytes() != *crc {
        return Err("the checksum does not hold");
    }
    let mut reader = Reader::new(body);
    let mut found = Tombstones::new();
    while !reader.rest.is_empty() {
        let entry = (|| Ok::<_, Short>((reader.uvarint()?, reader.varint()?, reader.varint()?)))();
        let (series, first, last) = entry.map_err(|_| "an entry is cut short")?;
        found.entry(series).or_default().push((first, last));
    }
    Ok(found)
}

/// The file of a block of which nothing is deleted.
pub fn none() -> Vec<u8> {
    let mut file = MAGIC.to_be_bytes().to_vec();
    file.push(1);
    file.extend_from_slice(&crc32c::crc32c(&[]).to_be_bytes());
    file
}

pub fn is_deleted(intervals: &[Interval], time: i64) -> bool {
    intervals.iter().any(|(first, last)| (*first..=*last).contains(&time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletions_are_read_and_damage_is_seen() {
        let mut file = none();
        assert_eq!(decode(&file), Ok(Tombstones::new()));
        // As promtool 2.42 writes it.
        assert_eq!(file, [0x01, 0x30, 0xba, 0x30, 1, 0, 0, 0, 0]);
        file.truncate(5);
        file.extend_from_slice(&[7, 3, 20, 0x90, 0x01, 1, 8]);
        let crc = crc32c::crc32c(&file[5..]).to_be_bytes();
        file.extend_from_slice(&crc);
        let expected = [(7, vec![(-2, 10)]), (0x90, vec![(-1, 4)])].into();
        assert_eq!(decode(&file), Ok(expected));
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
    }
}
