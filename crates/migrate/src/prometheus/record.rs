//! Records of the write-ahead log.
//!
//! ```text
//! 1 series      each: reference (8, big-endian), count of labels, names and values
//! 2 samples     first reference and time (8 and 8); each: differences to them as varints, value (8)
//! 3 tombstones  each: reference (8), first and last time as varints
//! ```

use tidewatch_model::Labels;

use super::reader::{Reader, Short};

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Series by reference. `None` where the labels are no label set.
    Series(Vec<(u64, Option<Labels>)>),
    /// Reference, time, value.
    Samples(Vec<(u64, i64, f64)>),
    /// Reference, first and last time.
    Tombstones(Vec<(u64, i64, i64)>),
    /// Exemplars, metadata, and notes of Prometheus to itself: passed over.
    Passed,
    /// What this release does not import yet.
    Unknown { kind: u8, name: &'static str },
}

/// Reads an unpacked record.
pub fn decode(record: &[u8]) -> Result<Record, &'static str> {
    let mut reader = Reader::new(record);
    let kind = reader.u8().map_err(|_| "a record is empty")?;
    match kind {
        1 => series(reader).map(Record::Series),
        2 => samples(reader).map(Record::Samples),
        3 => tombstones(reader).map(Record::Tombstones),
        4..=6 => Ok(Record::Passed),
        7 | 9 => Ok(Record::Unknown { kind, name: "native histograms" }),
        8 | 10 => Ok(Record::Unknown { kind, name: "native histograms of floats" }),
        _ => Ok(Record::Unknown { kind, name: "a kind of record that is not known" }),
    }
    .map_err(|Short| "a record is cut short")
}

fn series(mut reader: Reader<'_>) -> Result<Vec<(u64, Option<Labels>)>, Short> {
    let mut found = Vec::new();
    while !reader.rest.is_empty() {
        let reference = reader.be64()?;
        let mut pairs = Vec::new();
        let mut is_set = true;
        for _ in 0..reader.uvarint()? {
            let mut text = || Ok::<_, Short>(str::from_utf8(reader.text()?));
            match (text()?, text()?) {
                (Ok(name), Ok(value)) => pairs.push((name, value)),
                _ => is_set = false,
            }
        }
        is_set &= pairs.is_sorted_by(|a, b| a.0 < b.0) && pairs.iter().all(|(name, _)| !name.is_empty());
        found.push((reference, is_set.then(|| Labels::from_pairs(pairs))));
    }
    Ok(found)
}

fn samples(mut reader: Reader<'_>) -> Result<Vec<(u64, i64, f64)>, Short> {
    let mut found = Vec::new();
    if reader.rest.is_empty() {
        return Ok(found);
    }
    let (reference, time) = (reader.be64()?, reader.be64()? as i64);
    while !reader.rest.is_empty() {
        let reference = reference.wrapping_add(reader.varint()? as u64);
        let time = time.wrapping_add(reader.varint()?);
        found.push((reference, time, f64::from_bits(reader.be64()?)));
    }
    Ok(found)
}

fn tombstones(mut reader: Reader<'_>) -> Result<Vec<(u64, i64, i64)>, Short> {
    let mut found = Vec::new();
    while !reader.rest.is_empty() {
        found.push((reader.be64()?, reader.varint()?, reader.varint()?));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_are_read() {
        let mut record = vec![1, 0, 0, 0, 0, 0, 0, 0, 9, 2];
        for text in ["__name__", "up", "job", "a"] {
            record.push(text.len() as u8);
            record.extend_from_slice(text.as_bytes());
        }
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "a")]);
        assert_eq!(decode(&record), Ok(Record::Series(vec![(9, Some(labels))])));
        assert_eq!(decode(&record[..record.len() - 1]), Err("a record is cut short"));
        let mut record = vec![2];
        record.extend_from_slice(&9u64.to_be_bytes());
        record.extend_from_slice(&1000i64.to_be_bytes());
        for (reference, time) in [(0, 0), (1, 3)] {
            record.extend_from_slice(&[reference, time]);
            record.extend_from_slice(&1.5f64.to_bits().to_be_bytes());
        }
        assert_eq!(decode(&record), Ok(Record::Samples(vec![(9, 1000, 1.5), (8, 998, 1.5)])));
        assert_eq!(decode(&[3, 0, 0, 0, 0, 0, 0, 0, 9, 2, 4]), Ok(Record::Tombstones(vec![(9, 1, 2)])));
        assert_eq!(decode(&[7, 1]), Ok(Record::Unknown { kind: 7, name: "native histograms" }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(kind in 0u8..12, bytes in any::<Vec<u8>>()) {
            let mut record = vec![kind];
            record.extend_from_slice(&bytes);
            let _ = decode(&record);
        }
    }
}
