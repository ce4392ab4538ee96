//! The bytes of a frame of the journal.
//!
//! ```text
//! offset  size  field
//!      0     1  version  1
//!      1     …  records, one after the other to the end of the frame
//!
//! record:
//!      0     1  tag      see below
//!      1     4  len      bytes of the body
//!      5     …  body
//!
//! tag  record           body
//!   1  Alert            alert key, state u8, value (bits u64), active_at i64,
//!                       times: 5 × optional i64 (fired_at, resolved_at, keep_firing_since,
//!                       last_sent_at, valid_until), annotations (pairs)
//!   2  AlertForgotten   alert key
//!   3  GroupEvaluated   group key, at i64
//!   4  GroupForgotten   group key
//!   5  Gap              group key, from i64, to i64, evaluations u64
//!   6  Silence          id (string), bytes to the end
//!   7  SilenceRemoved   id (string)
//!   8  OutboxPut        id u64, bytes to the end
//!   9  OutboxRemoved    id u64
//!
//! alert key     group key, rule (string), rule_index u32, labels (pairs)
//! group key     file (string), group (string)
//! string        len u32, UTF-8
//! pairs         count u32, then name and value of each (strings), ascending by name
//! optional i64  0, or 1 and an i64
//! state         0 inactive, 1 pending, 2 firing
//! ```
//!
//! All little-endian. The log sums each frame, so there is no checksum here. A body must be
//! used up by its fields: a new field is a new version.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidewatch_model::Labels;

use crate::record::{Alert, AlertKey, AlertState, Gap, GroupKey, Record};

pub(crate) const VERSION: u8 = 1;

const TAG_ALERT: u8 = 1;
const TAG_ALERT_FORGOTTEN: u8 = 2;
const TAG_GROUP_EVALUATED: u8 = 3;
const TAG_GROUP_FORGOTTEN: u8 = 4;
const TAG_GAP: u8 = 5;
const TAG_SILENCE: u8 = 6;
const TAG_SILENCE_REMOVED: u8 = 7;
const TAG_OUTBOX_PUT: u8 = 8;
const TAG_OUTBOX_REMOVED: u8 = 9;

/// Why a frame cannot be read though its checksum holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("version {0} of the journal's format is newer than {VERSION}")]
    Version(u8),
    #[error("the record is cut short or malformed")]
    Malformed,
    #[error("the record's kind {0} is not known")]
    Kind(u8),
}

/// Appends the frame of `records` to `out`.
pub fn encode_frame(records: &[Record], out: &mut Vec<u8>) {
    out.push(VERSION);
    for record in records {
        put_record(record, out);
    }
}

fn put_record(record: &Record, out: &mut Vec<u8>) {
    out.push(tag_of(record));
    let len_at = out.len();
    out.extend_from_slice(&[0; 4]);
    match record {
        Record::Alert(key, alert) => {
            put_alert_key(key, out);
            put_alert(alert, out);
        }
        Record::AlertForgotten(key) => put_alert_key(key, out),
        Record::GroupEvaluated { group, at_ms } => {
            put_group_key(group, out);
            out.extend_from_slice(&at_ms.to_le_bytes());
        }
        Record::GroupForgotten(group) => put_group_key(group, out),
        Record::Gap(gap) => {
            put_group_key(&gap.group, out);
            out.extend_from_slice(&gap.from_ms.to_le_bytes());
            out.extend_from_slice(&gap.to_ms.to_le_bytes());
            out.extend_from_slice(&gap.evaluations.to_le_bytes());
        }
        Record::Silence { id, bytes } => {
            put_string(id, out);
            out.extend_from_slice(bytes);
        }
        Record::SilenceRemoved { id } => put_string(id, out),
        Record::OutboxPut { id, bytes } => {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(bytes);
        }
        Record::OutboxRemoved { id } => out.extend_from_slice(&id.to_le_bytes()),
    }
    let len = len_u32(out.len() - len_at - 4);
    out[len_at..len_at + 4].copy_from_slice(&len);
}

fn tag_of(record: &Record) -> u8 {
    match record {
        Record::Alert(..) => TAG_ALERT,
        Record::AlertForgotten(_) => TAG_ALERT_FORGOTTEN,
        Record::GroupEvaluated { .. } => TAG_GROUP_EVALUATED,
        Record::GroupForgotten(_) => TAG_GROUP_FORGOTTEN,
        Record::Gap(_) => TAG_GAP,
        Record::Silence { .. } => TAG_SILENCE,
        Record::SilenceRemoved { .. } => TAG_SILENCE_REMOVED,
        Record::OutboxPut { .. } => TAG_OUTBOX_PUT,
        Record::OutboxRemoved { .. } => TAG_OUTBOX_REMOVED,
    }
}

fn put_group_key(key: &GroupKey, out: &mut Vec<u8>) {
    put_string(&key.file, out);
    put_string(&key.group, out);
}

fn put_alert_key(key: &AlertKey, out: &mut Vec<u8>) {
    put_group_key(&key.group, out);
    put_string(&key.rule, out);
    out.extend_from_slice(&key.rule_index.to_le_bytes());
    put_pairs(key.labels.iter(), out);
}

fn put_alert(alert: &Alert, out: &mut Vec<u8>) {
    out.push(match alert.state {
        AlertState::Inactive => 0,
        AlertState::Pending => 1,
        AlertState::Firing => 2,
    });
    out.extend_from_slice(&alert.value.to_bits().to_le_bytes());
    out.extend_from_slice(&alert.active_at_ms.to_le_bytes());
    for time in alert.times() {
        match time {
            None => out.push(0),
            Some(ms) => {
                out.push(1);
                out.extend_from_slice(&ms.to_le_bytes());
            }
        }
    }
    put_pairs(alert.annotations.iter().map(|(name, value)| (name.as_str(), value.as_str())), out);
}

fn put_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)> + Clone, out: &mut Vec<u8>) {
    out.extend_from_slice(&len_u32(pairs.clone().count()));
    for (name, value) in pairs {
        put_string(name, out);
        put_string(value, out);
    }
}

fn put_string(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&len_u32(text.len()));
    out.extend_from_slice(text.as_bytes());
}

fn len_u32(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("a record is below 4 GiB").to_le_bytes()
}

/// About how many bytes a record takes, for cutting many into frames.
pub(crate) fn size_hint(record: &Record) -> usize {
    let group = |group: &GroupKey| group.file.len() + group.group.len();
    let alert = |key: &AlertKey| group(&key.group) + key.rule.len() + key.labels.as_bytes().len();
    64 + match record {
        Record::Alert(key, Alert { annotations, .. }) => {
            64 + alert(key)
                + annotations.iter().map(|(name, value)| name.len() + value.len() + 8).sum::<usize>()
        }
        Record::AlertForgotten(key) => alert(key),
        Record::GroupEvaluated { group: key, .. } | Record::GroupForgotten(key) => group(key),
        Record::Gap(gap) => group(&gap.group),
        Record::Silence { id, bytes } => id.len() + bytes.len(),
        Record::SilenceRemoved { id } => id.len(),
        Record::OutboxPut { bytes, .. } => bytes.len(),
        Record::OutboxRemoved { .. } => 0,
    }
}

/// The records of a frame, all or none. Never panics, and allocates no more than a small
/// multiple of what is there.
pub fn decode_frame(frame: &[u8]) -> Result<Vec<Record>, DecodeError> {
    let mut frame = Cursor { rest: frame };
    match frame.u8()? {
        VERSION => {}
        newer if newer > VERSION => return Err(DecodeError::Version(newer)),
        _ => return Err(DecodeError::Malformed),
    }
    let mut records = Vec::new();
    while !frame.rest.is_empty() {
        let tag = frame.u8()?;
        let len = frame.u32()?;
        let mut body = Cursor { rest: frame.take(len as usize)? };
        records.push(take_record(tag, &mut body)?);
        if !body.rest.is_empty() {
            return Err(DecodeError::Malformed);
        }
    }
    Ok(records)
}

fn take_record(tag: u8, body: &mut Cursor<'_>) -> Result<Record, DecodeError> {
    Ok(match tag {
        TAG_ALERT => Record::Alert(body.alert_key()?, body.alert()?),
        TAG_ALERT_FORGOTTEN => Record::AlertForgotten(body.alert_key()?),
        TAG_GROUP_EVALUATED => Record::GroupEvaluated { group: body.group_key()?, at_ms: body.i64()? },
        TAG_GROUP_FORGOTTEN => Record::GroupForgotten(body.group_key()?),
        TAG_GAP => {
            let group = body.group_key()?;
            Record::Gap(Gap { from_ms: body.i64()?, to_ms: body.i64()?, group, evaluations: body.u64()? })
        }
        TAG_SILENCE => Record::Silence { id: body.string()?, bytes: body.remaining() },
        TAG_SILENCE_REMOVED => Record::SilenceRemoved { id: body.string()? },
        TAG_OUTBOX_PUT => Record::OutboxPut { id: body.u64()?, bytes: body.remaining() },
        TAG_OUTBOX_REMOVED => Record::OutboxRemoved { id: body.u64()? },
        unknown => return Err(DecodeError::Kind(unknown)),
    })
}

/// Bytes that are still to be read.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    fn str(&mut self) -> Result<&'a str, DecodeError> {
        let len = self.u32()?;
        str::from_utf8(self.take(len as usize)?).map_err(|_| DecodeError::Malformed)
    }

    fn string(&mut self) -> Result<String, DecodeError> {
        Ok(self.str()?.to_owned())
    }

    fn remaining(&mut self) -> Bytes {
        Bytes::copy_from_slice(std::mem::take(&mut self.rest))
    }

    fn optional_i64(&mut self) -> Result<Option<i64>, DecodeError> {
        match self.u8()? {
            0 => Ok(None),
            1 => Ok(Some(self.i64()?)),
            _ => Err(DecodeError::Malformed),
        }
    }

    /// Pairs in strictly ascending order of their names, so that equal values have equal bytes.
    fn pairs(&mut self) -> Result<Vec<(&'a str, &'a str)>, DecodeError> {
        let count = self.u32()?;
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for _ in 0..count {
            let (name, value) = (self.str()?, self.str()?);
            if pairs.last().is_some_and(|(last, _)| *last >= name) {
                return Err(DecodeError::Malformed);
            }
            pairs.push((name, value));
        }
        Ok(pairs)
    }

    fn labels(&mut self) -> Result<Labels, DecodeError> {
        let pairs = self.pairs()?;
        if pairs.iter().any(|(_, value)| value.is_empty()) {
            return Err(DecodeError::Malformed);
        }
        Ok(Labels::from_sorted(pairs.iter().copied()))
    }

    fn group_key(&mut self) -> Result<GroupKey, DecodeError> {
        Ok(GroupKey { file: self.string()?, group: self.string()? })
    }

    fn alert_key(&mut self) -> Result<AlertKey, DecodeError> {
        Ok(AlertKey {
            group: self.group_key()?,
            rule: self.string()?,
            rule_index: self.u32()?,
            labels: self.labels()?,
        })
    }

    fn alert(&mut self) -> Result<Alert, DecodeError> {
        let state = match self.u8()? {
            0 => AlertState::Inactive,
            1 => AlertState::Pending,
            2 => AlertState::Firing,
            _ => return Err(DecodeError::Malformed),
        };
        Ok(Alert {
            state,
            value: f64::from_bits(self.u64()?),
            active_at_ms: self.i64()?,
            fired_at_ms: self.optional_i64()?,
            resolved_at_ms: self.optional_i64()?,
            keep_firing_since_ms: self.optional_i64()?,
            last_sent_at_ms: self.optional_i64()?,
            valid_until_ms: self.optional_i64()?,
            annotations: self.annotations()?,
        })
    }

    fn annotations(&mut self) -> Result<BTreeMap<String, String>, DecodeError> {
        let pairs = self.pairs()?;
        Ok(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}
