//! The bytes in which a restart finds who was elected.
//!
//! ```text
//! offset  size  field
//!      0     4  magic     "TWHA"
//!      4     2  version   1
//!      6     2  reserved  zero
//!      8     4  clusters  how many
//!     12     …  of each, in order of their names: length u32 and bytes of the cluster's name, the
//!               same of its elected replica's, and i64 when it was elected, in ms
//!    end     4  crc32     over everything before
//! ```

use super::tracker::HaTracker;

/// Why a state is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("the state of the replicas is damaged: {0}")]
    Damaged(&'static str),
    #[error("the state of the replicas has version {0}, written by a newer version of Tidewatch")]
    Version(u16),
}

const MAGIC: [u8; 4] = *b"TWHA";
const VERSION: u16 = 1;
const HEADER_LEN: usize = 12;

/// Writes who is elected.
pub fn encode_state(tracker: &HaTracker) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&(tracker.elected().len() as u32).to_le_bytes());
    for (cluster, elected, elected_ms) in tracker.elected() {
        for name in [cluster, elected] {
            out.extend_from_slice(&(name.len() as u32).to_le_bytes());
            out.extend_from_slice(name);
        }
        out.extend_from_slice(&elected_ms.to_le_bytes());
    }
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// Reads who was elected into `tracker`, which starts at `now_ms`. Nothing is taken of a state that is not whole.
pub fn decode_state(bytes: &[u8], tracker: &mut HaTracker, now_ms: i64) -> Result<(), StateError> {
    let damaged = StateError::Damaged;
    let (body, crc) = bytes
        .split_last_chunk::<4>()
        .filter(|(body, _)| body.len() >= HEADER_LEN)
        .ok_or(damaged("it is cut short"))?;
    if body[..4] != MAGIC || *crc != crc32fast::hash(body).to_le_bytes() {
        return Err(damaged("its checksum does not hold"));
    }
    match u16::from_le_bytes([body[4], body[5]]) {
        VERSION if body[6..8] == [0; 2] => {}
        VERSION => return Err(damaged("reserved bytes are not zero")),
        newer => return Err(StateError::Version(newer)),
    }
    let count = u32::from_le_bytes([body[8], body[9], body[10], body[11]]);
    let (mut rest, mut clusters) = (&body[HEADER_LEN..], Vec::new());
    for _ in 0..count {
        let cluster = read_cluster(&mut rest).ok_or(damaged("a cluster is cut short"))?;
        clusters.push(cluster);
    }
    if !rest.is_empty() {
        return Err(damaged("it has bytes that are no cluster's"));
    }
    for (cluster, elected, elected_ms) in clusters {
        tracker.restore(cluster, elected, elected_ms, now_ms);
    }
    Ok(())
}

fn read_cluster<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8], i64)> {
    let name = |rest: &mut &'a [u8]| {
        let (len, tail) = rest.split_first_chunk::<4>()?;
        let (name, tail) = tail.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        *rest = tail;
        Some(name)
    };
    let (cluster, elected) = (name(rest)?, name(rest)?);
    let (elected_ms, tail) = rest.split_first_chunk::<8>()?;
    *rest = tail;
    Some((cluster, elected, i64::from_le_bytes(*elected_ms)))
}
