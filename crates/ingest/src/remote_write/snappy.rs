//! The snappy block around a write request.

use tidewatch_model::Limits;

use super::WriteError;

/// Snappy's best ratio is 64 bytes from a three-byte copy, about 21.3: a block that declares
/// more than 22 times its own size plus a little is a lie.
const RATIO_MAX: usize = 22;
const RATIO_SLACK: usize = 64;

/// Decompresses `compressed` into `body`, whose memory is reused. The declared size is checked
/// against the limits, and against what so many bytes can hold, before memory is taken for it.
pub fn decompress(compressed: &[u8], limits: &Limits, body: &mut Vec<u8>) -> Result<(), WriteError> {
    let result = decompress_over(compressed, limits, body);
    if result.is_err() {
        body.clear();
    }
    result
}

/// The same, over what the buffer held before: zeroes go only where it was shorter.
fn decompress_over(compressed: &[u8], limits: &Limits, body: &mut Vec<u8>) -> Result<(), WriteError> {
    if compressed.len() > limits.write_compressed_bytes {
        return Err(WriteError::TooLarge {
            what: "compressed request",
            size: compressed.len(),
            limit: limits.write_compressed_bytes,
        });
    }
    let declared = snap::raw::decompress_len(compressed)?;
    if declared > limits.write_body_bytes {
        return Err(WriteError::TooLarge {
            what: "decompressed request",
            size: declared,
            limit: limits.write_body_bytes,
        });
    }
    if declared > RATIO_MAX * compressed.len() + RATIO_SLACK {
        return Err(WriteError::Bomb { compressed: compressed.len(), declared });
    }
    body.resize(declared, 0);
    let written = snap::raw::Decoder::new().decompress(compressed, body)?;
    body.truncate(written);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_and_the_buffer_is_reused() {
        let limits = Limits::default();
        let mut body = Vec::new();
        for text in ["first, longer than the second", "second", ""] {
            let compressed = snap::raw::Encoder::new().compress_vec(text.as_bytes()).unwrap();
            decompress(&compressed, &limits, &mut body).unwrap();
            assert_eq!(body, text.as_bytes());
        }
    }

    // A highly compressible honest body must pass: its ratio stays under 22.
    #[test]
    fn a_body_of_zeroes_is_not_taken_for_a_bomb() {
        let compressed = snap::raw::Encoder::new().compress_vec(&[0; 1 << 20]).unwrap();
        let mut body = Vec::new();
        decompress(&compressed, &Limits::default(), &mut body).unwrap();
        assert_eq!(body.len(), 1 << 20);
    }

    #[test]
    fn sizes_over_a_limit_are_refused_before_memory_is_taken() {
        let limits = Limits { write_compressed_bytes: 1000, ..Limits::default() };
        let mut body = Vec::new();
        let too_long = decompress(&[0; 1001], &limits, &mut body).unwrap_err();
        assert_eq!(too_long.to_string(), "compressed request of 1001 bytes is over the limit of 1000");
        assert!(too_long.is_too_large());

        // Declares 2^32 - 1 bytes in five.
        let huge = decompress(&[0xff, 0xff, 0xff, 0xff, 0x0f], &limits, &mut body).unwrap_err();
        assert!(huge.is_too_large(), "{huge}");

        // Declares 1 MiB in a few bytes.
        let bomb = decompress(&[0x80, 0x80, 0x40, 0, 0], &limits, &mut body).unwrap_err();
        assert_eq!(bomb, WriteError::Bomb { compressed: 5, declared: 1 << 20 });
        assert_eq!(body.capacity(), 0);
    }

    #[test]
    fn garbage_is_named_and_leaves_the_buffer_empty() {
        let mut body = b"old".to_vec();
        let error = decompress(b"\x05\xf0xxxxx", &Limits::default(), &mut body).unwrap_err();
        assert!(matches!(error, WriteError::Snappy(_)), "{error}");
        assert!(body.is_empty());
    }
}
