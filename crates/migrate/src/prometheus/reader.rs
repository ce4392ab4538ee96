//! The numbers of Prometheus' files: big-endian words and varints, none of them trusted.

/// Why bytes are no number, or no part of that length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short;

/// Takes from the front of bytes.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    pub rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(rest: &'a [u8]) -> Reader<'a> {
        Reader { rest }
    }

    pub fn take(&mut self, len: u64) -> Result<&'a [u8], Short> {
        let len = usize::try_from(len).map_err(|_| Short)?;
        let (part, rest) = self.rest.split_at_checked(len).ok_or(Short)?;
        self.rest = rest;
        Ok(part)
    }

    pub fn u8(&mut self) -> Result<u8, Short> {
        Ok(self.take(1)?[0])
    }

    pub fn be32(&mut self) -> Result<u32, Short> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    pub fn be64(&mut self) -> Result<u64, Short> {
        Ok(u64::from_be_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }

    pub fn float(&mut self) -> Result<f64, Short> {
        self.be64().map(f64::from_bits)
    }

    /// Seven bits a byte, the least significant first; at most 64 bits.
    pub fn uvarint(&mut self) -> Result<u64, Short> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Short);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Short)
    }

    /// An unsigned one with the sign in the lowest bit.
    pub fn varint(&mut self) -> Result<i64, Short> {
        Ok(unzigzag(self.uvarint()?))
    }

    /// A length and so many bytes.
    pub fn text(&mut self) -> Result<&'a [u8], Short> {
        let len = self.uvarint()?;
        self.take(len)
    }
}

pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

pub fn push_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn push_varint(out: &mut Vec<u8>, value: i64) {
    push_uvarint(out, ((value << 1) ^ (value >> 63)) as u64);
}
