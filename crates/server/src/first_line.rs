//! Addresses as people type them: `curl -g 'http://host/federate?match[]={job="api"}'`.
//!
//! Go's server takes quotes, angle brackets and bytes beyond ASCII in an address as they are, and
//! scripts rely on it; hyper refuses them before we see the request. So on the first line of a
//! connection they are escaped. Only there: a program that sends many requests over one connection
//! escapes them itself, and where a later request begins is hyper's to say, as two opinions on
//! that are how requests are smuggled.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose first line is escaped.
pub(crate) struct FirstLine<S> {
    stream: S,
    /// Whether the line has ended.
    passed: bool,
    /// What was read and escaped, and how much of it was handed on.
    escaped: Vec<u8>,
    taken: usize,
}

impl<S> FirstLine<S> {
    pub(crate) fn new(stream: S) -> FirstLine<S> {
        FirstLine { stream, passed: false, escaped: Vec::new(), taken: 0 }
    }

    fn escape(&mut self, bytes: &[u8]) {
        for (at, &byte) in bytes.iter().enumerate() {
            match byte {
                b'"' | b'<' | b'>' | 0x80.. => self.escaped.extend(format!("%{byte:02X}").bytes()),
                b'\n' => {
                    self.passed = true;
                    self.escaped.extend_from_slice(&bytes[at..]);
                    return;
                }
                _ => self.escaped.push(byte),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstLine<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.taken == this.escaped.len() {
            if this.passed {
                return Pin::new(&mut this.stream).poll_read(cx, out);
            }
            (this.escaped, this.taken) = (Vec::new(), 0);
            let mut piece = [0; 4096];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut piece))?;
            this.escape(piece.filled());
        }
        let rest = &this.escaped[this.taken..];
        let count = rest.len().min(out.remaining());
        out.put_slice(&rest[..count]);
        this.taken += count;
        if this.taken == this.escaped.len() {
            // Connections live long: this is not needed again.
            (this.escaped, this.taken) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstLine<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What comes out of bytes that arrive in pieces of `size`.
    async fn through(bytes: &[u8], size: usize) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(size);
        let bytes = bytes.to_vec();
        tokio::spawn(async move { client.write_all(&bytes).await });
        let mut out = Vec::new();
        FirstLine::new(server).read_to_end(&mut out).await.expect("memory does not fail");
        out
    }

    #[tokio::test]
    async fn the_first_line_is_escaped_and_nothing_else() {
        let rest = "Host: \"x\"\r\n\r\n<body>é\nGET /\"\n";
        for size in [1, 7, 4096, 100_000] {
            let sent = format!("GET /federate?match[]={{job=\"é\"}}>0 HTTP/1.1\r\n{rest}");
            let expected = format!("GET /federate?match[]={{job=%22%C3%A9%22}}%3E0 HTTP/1.1\r\n{rest}");
            let out = through(sent.as_bytes(), size).await;
            assert_eq!(String::from_utf8_lossy(&out), expected, "in pieces of {size}");
        }
        let long = [b"\"".repeat(50_000), b"\n".to_vec(), b"\"".repeat(50_000)].concat();
        let expected = [b"%22".repeat(50_000), b"\n".to_vec(), b"\"".repeat(50_000)].concat();
        assert!(through(&long, 4096).await == expected);
        assert_eq!(through(b"\"", 10).await, b"%22");
    }
}
