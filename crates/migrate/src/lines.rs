//! A file of lines, read a piece at a time from any place in it.

use std::io;
use std::sync::Arc;

use memchr::{memchr, memchr_iter, memrchr};
use tidewatch_env::File;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 1 << 20;

/// The longest line that is taken: a series of four million samples fits.
pub const LINE_BYTES_MAX: usize = 64 << 20;

/// Where a reader is: everything before was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    pub offset: u64,
    /// Lines before it.
    pub lines: u64,
}

/// Reads whole lines.
pub struct Lines {
    file: Arc<dyn File>,
    place: Place,
    /// Bytes of the file from `place` on, as far as they were read.
    buffer: Vec<u8>,
    /// Of the buffer, what was handed out with the last piece.
    taken: usize,
    /// Lines in what was handed out.
    taken_lines: u64,
    ended: bool,
}

/// A part of the file.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// One or more whole lines; the number of the first, counted from 1. The last line of a file
    /// may lack its line break.
    Lines { bytes: &'a [u8], first: u64 },
    /// A line over [`LINE_BYTES_MAX`], which was passed over.
    TooLong { line: u64 },
}

impl Lines {
    pub fn new(file: Arc<dyn File>, place: Place) -> Lines {
        Lines { file, place, buffer: Vec::new(), taken: 0, taken_lines: 0, ended: false }
    }

    /// Up to where everything was handed out, the last piece included.
    pub fn place(&self) -> Place {
        Place { offset: self.place.offset + self.taken as u64, lines: self.place.lines + self.taken_lines }
    }

    /// The next lines; `None` at the end of the file.
    pub fn next_piece(&mut self) -> io::Result<Option<Piece<'_>>> {
        self.place = self.place();
        self.buffer.drain(..self.taken);
        (self.taken, self.taken_lines) = (0, 0);
        loop {
            if let Some(end) = memrchr(b'\n', &self.buffer) {
                self.taken = end + 1;
                break;
            }
            if self.ended {
                self.taken = self.buffer.len();
                break;
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return self.pass_over().map(Some);
            }
            self.read_more()?;
        }
        if self.taken == 0 {
            return Ok(None);
        }
        let bytes = &self.buffer[..self.taken];
        self.taken_lines = memchr_iter(b'\n', bytes).count() as u64 + u64::from(!bytes.ends_with(b"\n"));
        Ok(Some(Piece::Lines { bytes, first: self.place.lines + 1 }))
    }

    fn read_more(&mut self) -> io::Result<()> {
        let before = self.buffer.len();
        self.buffer.resize(before + PIECE_BYTES, 0);
        let count = self.file.read_at(self.place.offset + before as u64, &mut self.buffer[before..])?;
        self.buffer.truncate(before + count);
        self.ended = count == 0;
        Ok(())
    }

    /// Leaves out the line that the buffer is full of.
    fn pass_over(&mut self) -> io::Result<Piece<'_>> {
        loop {
            self.place.offset += self.buffer.len() as u64;
            self.buffer.clear();
            self.read_more()?;
            match memchr(b'\n', &self.buffer) {
                Some(end) => self.taken = end + 1,
                None if self.ended => self.taken = 0,
                None => continue,
            }
            self.taken_lines = 1;
            return Ok(Piece::TooLong { line: self.place.lines + 1 });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tidewatch_env::{Env, Open};

    use super::*;

    fn file(text: &[u8]) -> Arc<dyn File> {
        let simulation = Env::simulated(1);
        let file = simulation.env.disk.open(Path::new("/f"), Open::Create).expect("a good disk");
        file.append(text).expect("a good disk");
        file
    }

    #[test]
    fn every_line_comes_once_and_a_reader_goes_on_where_another_was() {
        let text: String = (0..200_000).map(|n| format!("line {n}\n")).collect::<String>() + "last";
        let file = file(text.as_bytes());
        let (mut read, mut place) = (Vec::new(), Place::default());
        loop {
            let mut lines = Lines::new(file.clone(), place);
            match lines.next_piece().expect("a good disk") {
                Some(Piece::Lines { bytes, first }) => {
                    assert_eq!(first, memchr_iter(b'\n', &read).count() as u64 + 1);
                    read.extend_from_slice(bytes);
                }
                Some(Piece::TooLong { line }) => panic!("line {line} is not long"),
                None => break,
            }
            place = lines.place();
        }
        assert_eq!(read, text.as_bytes());
        assert_eq!(place, Place { offset: text.len() as u64, lines: 200_001 });
    }

    #[test]
    fn a_line_that_is_too_long_is_named_and_costs_itself_only() {
        let mut text = b"a\n".to_vec();
        text.resize(text.len() + LINE_BYTES_MAX + 3 * PIECE_BYTES, b'x');
        text.extend_from_slice(b"\nb\n");
        let mut lines = Lines::new(file(&text), Place::default());
        let mut seen = Vec::new();
        while let Some(piece) = lines.next_piece().expect("a good disk") {
            seen.push(match piece {
                Piece::Lines { bytes, first } => {
                    format!("{first} {}", String::from_utf8_lossy(bytes).trim_end())
                }
                Piece::TooLong { line } => format!("{line} too long"),
            });
        }
        assert_eq!(seen, ["1 a", "2 too long", "3 b"]);
        assert_eq!(lines.place(), Place { offset: text.len() as u64, lines: 3 });
    }
}
