//! Text in quotes as Go's `%q` prints it, since error messages, label sets and printed queries
//! must be equal to Prometheus' to the letter.

use std::fmt::Write as _;

/// Double-quotes `text` with Go's escapes.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        push_escaped(&mut out, c, '"');
    }
    out.push('"');
    out
}

/// Double-quotes bytes; what is no UTF-8 among them is written as `\xff`.
pub fn quote_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_escaped(&mut out, c, '"');
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

/// Single-quotes one character, as Go's `%q` prints a rune.
pub fn quote_char(c: char) -> String {
    let mut out = String::from("'");
    push_escaped(&mut out, c, '\'');
    out.push('\'');
    out
}

fn push_escaped(out: &mut String, c: char, quote: char) {
    let short = match c {
        '\x07' => 'a',
        '\x08' => 'b',
        '\x0c' => 'f',
        '\n' => 'n',
        '\r' => 'r',
        '\t' => 't',
        '\x0b' => 'v',
        '\\' => '\\',
        c if c == quote => quote,
        c if is_printable(c) => {
            out.push(c);
            return;
        }
        c => {
            let code = u32::from(c);
            // Writing to a String cannot fail.
            let _ = match code {
                0..=0x7f => write!(out, "\\x{code:02x}"),
                0x80..=0xffff => write!(out, "\\u{code:04x}"),
                _ => write!(out, "\\U{code:08x}"),
            };
            return;
        }
    };
    out.push('\\');
    out.push(short);
}

/// Letters, marks, numbers, punctuation, symbols, and of the spaces only ASCII's.
pub fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    if c.is_whitespace() || c.is_control() {
        return false;
    }
    // After a first character, `escape_debug` of a text leaves marks alone and escapes what has
    // no glyph: the same distinction that Go makes.
    let mut bytes = [b'a', 0, 0, 0, 0];
    let len = c.encode_utf8(&mut bytes[1..]).len();
    let text = std::str::from_utf8(&bytes[..=len]).expect("a letter and an encoded character");
    text.escape_debug().nth(1) != Some('\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_go_quotes_them() {
        let cases = [
            ("plain", r#""plain""#),
            ("a\"b\\c'd", r#""a\"b\\c'd""#),
            ("\x07\x08\x0c\n\r\t\x0b", r#""\a\b\f\n\r\t\v""#),
            ("\0\x1f\x7f", r#""\x00\x1f\x7f""#),
            ("üöä日本 e\u{301}", "\"üöä日本 e\u{301}\""),
            ("\u{a0}\u{200b}\u{fffd}", "\"\\u00a0\\u200b\u{fffd}\""),
            ("\u{10ffff}", r#""\U0010ffff""#),
        ];
        for (text, quoted) in cases {
            assert_eq!(quote(text), quoted);
        }
        assert_eq!(quote_bytes(b"a\xc5z\"\xff"), r#""a\xc5z\"\xff""#);
        assert_eq!(quote_char('\''), r"'\''");
        assert_eq!(quote_char('"'), "'\"'");
    }
}
