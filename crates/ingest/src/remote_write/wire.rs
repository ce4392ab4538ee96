//! Reading protobuf's wire format from a slice.

/// Wire types that protobuf still knows; groups are refused, as they nest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

/// Why a field could not be read.
pub(super) type Reason = &'static str;

pub(super) const WRONG_TYPE: Reason = "wire type of a known field is wrong";

/// A cursor over one message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Reader<'a> {
        Reader { rest: message }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Steps over a tag of one byte that the caller has looked at.
    #[inline]
    pub(super) fn skip_tag(&mut self) {
        self.rest = &self.rest[1..];
    }

    /// Reads one varint of at most ten bytes.
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, Reason> {
        // Lengths and tags are one byte nearly always.
        if let Some((&byte, tail)) = self.rest.split_first()
            && byte < 0x80
        {
            self.rest = tail;
            return Ok(u64::from(byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, Reason> {
        let mut value = 0u64;
        for (i, &byte) in self.rest.iter().take(10).enumerate() {
            if i == 9 && byte > 1 {
                return Err("varint is longer than 64 bits");
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { "varint is cut" } else { "varint is longer than 64 bits" })
    }

    /// Reads a length and that many bytes.
    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Reason> {
        let len = self.varint()?;
        let len = usize::try_from(len).map_err(|_| "length is over the message's end")?;
        let (bytes, tail) = self.rest.split_at_checked(len).ok_or("length is over the message's end")?;
        self.rest = tail;
        Ok(bytes)
    }

    #[inline]
    pub(super) fn fixed64(&mut self) -> Result<[u8; 8], Reason> {
        let (bytes, tail) = self.rest.split_first_chunk::<8>().ok_or("fixed64 is cut")?;
        self.rest = tail;
        Ok(*bytes)
    }

    fn fixed32(&mut self) -> Result<[u8; 4], Reason> {
        let (bytes, tail) = self.rest.split_first_chunk::<4>().ok_or("fixed32 is cut")?;
        self.rest = tail;
        Ok(*bytes)
    }

    /// Reads the next field, whatever it is: its number and its content.
    #[inline]
    pub(super) fn field(&mut self) -> Result<(u32, Wire<'a>), Reason> {
        // Fields below 16 that are numbers or bytes are nearly all there are.
        if let Some((&tag @ 8..0x80, tail)) = self.rest.split_first() {
            match tag & 7 {
                0 => {
                    self.rest = tail;
                    return Ok((u32::from(tag >> 3), Wire::Varint(self.varint()?)));
                }
                2 => {
                    self.rest = tail;
                    return Ok((u32::from(tag >> 3), Wire::Bytes(self.bytes()?)));
                }
                _ => {}
            }
        }
        self.any_field()
    }

    fn any_field(&mut self) -> Result<(u32, Wire<'a>), Reason> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| "field number is out of range")?;
        if number == 0 || number >= 1 << 29 {
            return Err("field number is out of range");
        }
        let content = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(self.fixed64()?),
            2 => Wire::Bytes(self.bytes()?),
            5 => Wire::Fixed32(self.fixed32()?),
            3 | 4 => return Err("groups are not supported"),
            _ => return Err("wire type is unknown"),
        };
        Ok((number, content))
    }
}

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length-delimited field.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Bytes that [`put_varint`] takes.
pub(super) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}
