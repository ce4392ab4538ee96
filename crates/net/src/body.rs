//! Reading a body that may be larger than we want, before or after decompression.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use crate::RequestError;

/// Memory taken at once for a body whose length is announced: no more than this on its word.
const CAPACITY_MAX: usize = 1 << 20;

/// Reads the whole body, undoing gzip. Both the bytes that travel and those that come out are
/// held to `limit`.
pub(crate) async fn read_body(
    mut body: Incoming,
    is_gzip: bool,
    limit: usize,
) -> Result<(Bytes, usize), RequestError> {
    let too_large = || RequestError::BodyTooLarge { limit };
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        return Err(too_large());
    }
    let capacity = if is_gzip { 0 } else { (announced as usize).min(CAPACITY_MAX) };
    let plain = Limited { bytes: Vec::with_capacity(capacity), limit };
    let mut sink =
        if is_gzip { Sink::Gzip(Box::new(MultiGzDecoder::new(plain))) } else { Sink::Plain(plain) };
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| RequestError::Protocol(describe(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        received += data.len();
        if received > limit {
            return Err(too_large());
        }
        sink.write(&data).map_err(|error| encoding_error(error, limit))?;
    }
    let bytes = sink.finish().map_err(|error| encoding_error(error, limit))?;
    Ok((bytes.into(), received))
}

/// An error with its causes, the innermost last.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn encoding_error(error: io::Error, limit: usize) -> RequestError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => RequestError::BodyTooLarge { limit },
        _ => RequestError::Encoding(error),
    }
}

enum Sink {
    Plain(Limited),
    Gzip(Box<MultiGzDecoder<Limited>>),
}

impl Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Sink::Plain(plain) => plain.write_all(data),
            Sink::Gzip(decoder) => decoder.write_all(data),
        }
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        Ok(match self {
            Sink::Plain(plain) => plain.bytes,
            Sink::Gzip(decoder) => decoder.finish()?.bytes,
        })
    }
}

/// A buffer that refuses to grow beyond its limit.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Limited {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() > self.limit - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
