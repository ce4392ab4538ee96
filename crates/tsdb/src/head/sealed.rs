//! Sealed runs: full runs of the head in the strong codec.
//!
//! Their bytes lie in pages. A page that is filling belongs to the shard; a full one is frozen
//! and shared with readers by reference count, on the heap at first, mapped from a head file
//! once it stands there.
//!
//! Not here: the timestamps, which stay in the clock that the run refers to.

use bytes::Bytes;
use tidewatch_env::unreadable;

use super::cells::NONE;
use super::image::Placed;

/// Bytes of a page. Small enough that a shard's half-filled page is no burden.
const PAGE: usize = 64 << 10;

/// Chunks of one page of their table.
const CHUNK_PAGE: usize = 512;

const NO_CHUNK: Chunk =
    Chunk { clock: NONE, page: NONE, older: NONE, offset: 0, len: 0, first_row: 0, count: 0 };

const _: () = assert!(size_of::<Chunk>() == 20);

/// One sealed run, linked to the run before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk {
    pub(crate) clock: u32,
    page: u32,
    /// The next older chunk of the series, or the next free one.
    pub(crate) older: u32,
    offset: u32,
    pub(crate) len: u16,
    pub(crate) first_row: u8,
    pub(crate) count: u8,
}

#[derive(Debug, Default)]
pub(crate) struct Sealed {
    /// By pages, so that growth copies nothing and leaves no half of it empty.
    chunks: Vec<Box<[Chunk; CHUNK_PAGE]>>,
    /// Chunks handed out from the last of these pages, in all.
    fresh: u32,
    free: Option<u32>,
    used: u32,
    pages: Vec<Page>,
    free_pages: Vec<u32>,
    filling: Vec<u8>,
    /// The number of the page that is filling, once it has bytes.
    filling_page: Option<u32>,
}

#[derive(Debug, Default)]
struct Page {
    /// `None` while the page is filling and after its last chunk went.
    bytes: Option<Bytes>,
    chunks: u32,
    /// Whether the bytes are a file's, mapped.
    mapped: bool,
}

/// A run whose column stands in a page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewChunk {
    pub(crate) clock: u32,
    pub(crate) first_row: u8,
    pub(crate) count: u8,
    pub(crate) page: u32,
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

/// Where a chunk's bytes can be read without the shard.
pub(crate) enum ChunkBytes<'a> {
    Shared(Bytes),
    /// In the filling page: copy them.
    Filling(&'a [u8]),
}

impl Sealed {
    /// Stores an encoded run and returns its number. `write` appends the bytes.
    pub(crate) fn add(
        &mut self,
        clock: u32,
        first_row: u8,
        count: u8,
        older: u32,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> u32 {
        let (page, offset, len) = self.write(write);
        self.link(Chunk { clock, page, older, offset, len, first_row, count })
    }

    /// Leaves out the first rows of a run, `gone` of them. `write` appends the column of the others.
    pub(crate) fn shorten(&mut self, chunk: u32, gone: u8, write: impl FnOnce(&mut Vec<u8>)) {
        let (page, offset, len) = self.write(write);
        let this = self.get_mut(chunk);
        let from = std::mem::replace(&mut this.page, page);
        (this.offset, this.len) = (offset, len);
        this.first_row += gone;
        this.count -= gone;
        self.leave_page(from);
    }

    /// Puts a column into the filling page and tells where it is.
    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> (u32, u32, u16) {
        if self.filling.len() >= PAGE {
            self.freeze();
        }
        let page = match self.filling_page {
            Some(page) => page,
            None => {
                let page = self.new_page(None, false);
                *self.filling_page.insert(page)
            }
        };
        let offset = self.filling.len();
        write(&mut self.filling);
        let len = u16::try_from(self.filling.len() - offset).expect("a column of 120 samples is below 1 KiB");
        self.pages[page as usize].chunks += 1;
        (page, offset as u32, len)
    }

    fn new_page(&mut self, bytes: Option<Bytes>, mapped: bool) -> u32 {
        let page = Page { bytes, chunks: 0, mapped };
        if let Some(at) = self.free_pages.pop() {
            self.pages[at as usize] = page;
            return at;
        }
        self.pages.push(page);
        self.pages.len() as u32 - 1
    }

    /// One chunk less is in a page; with its last one the page goes, unless it is filling.
    fn leave_page(&mut self, page: u32) {
        let this = &mut self.pages[page as usize];
        this.chunks -= 1;
        if this.chunks == 0 {
            if self.filling_page == Some(page) {
                self.filling.clear();
            } else {
                this.bytes = None;
                self.free_pages.push(page);
            }
        }
    }

    fn link(&mut self, chunk: Chunk) -> u32 {
        self.used += 1;
        let at = match self.free {
            Some(at) => {
                let next = self.get(at).older;
                self.free = (next != NONE).then_some(next);
                at
            }
            None => {
                if self.fresh as usize == self.chunks.len() * CHUNK_PAGE {
                    self.add_chunks();
                }
                self.fresh += 1;
                self.fresh - 1
            }
        };
        *self.get_mut(at) = chunk;
        at
    }

    /// Not inlined: a page is built on the stack, and who has room for one touches all of it each time.
    #[cold]
    #[inline(never)]
    fn add_chunks(&mut self) {
        self.chunks.push(Box::new([NO_CHUNK; CHUNK_PAGE]));
    }

    /// Makes the filling page immutable and shareable.
    pub(crate) fn freeze(&mut self) {
        let Some(page) = self.filling_page.take() else { return };
        self.pages[page as usize].bytes = Some(Bytes::copy_from_slice(&self.filling));
        self.filling.clear();
    }

    #[inline]
    pub(crate) fn get(&self, chunk: u32) -> &Chunk {
        &self.chunks[chunk as usize / CHUNK_PAGE][chunk as usize % CHUNK_PAGE]
    }

    pub(crate) fn get_mut(&mut self, chunk: u32) -> &mut Chunk {
        &mut self.chunks[chunk as usize / CHUNK_PAGE][chunk as usize % CHUNK_PAGE]
    }

    pub(crate) fn bytes(&self, chunk: &Chunk) -> ChunkBytes<'_> {
        let range = chunk.offset as usize..chunk.offset as usize + usize::from(chunk.len);
        match &self.pages[chunk.page as usize].bytes {
            Some(bytes) => ChunkBytes::Shared(bytes.slice(range)),
            None => ChunkBytes::Filling(&self.filling[range]),
        }
    }

    /// Forgets a chunk; with a page's last chunk the page goes.
    pub(crate) fn remove(&mut self, chunk: u32) {
        let page = self.get(chunk).page;
        self.used -= 1;
        self.get_mut(chunk).older = self.free.replace(chunk).unwrap_or(NONE);
        self.leave_page(page);
    }

    /// Adds bytes that hold columns already: those of a file, `mapped`, or what was rebuilt of one.
    pub(crate) fn add_page(&mut self, bytes: Bytes, mapped: bool) -> u32 {
        self.new_page(Some(bytes), mapped)
    }

    /// Adds a run whose column stands in a page.
    pub(crate) fn restore(&mut self, new: NewChunk, older: u32) -> Option<u32> {
        let NewChunk { clock, first_row, count, page, offset, len } = new;
        let (offset, len) = (u32::try_from(offset).ok()?, u16::try_from(len).ok()?);
        self.pages[page as usize].chunks += 1;
        Some(self.link(Chunk { clock, page, older, offset, len, first_row, count }))
    }

    /// Chunks stand in a file now, at these offsets: they are read from there, and pages
    /// that have no other chunk leave the heap.
    pub(crate) fn relocate(&mut self, file: Bytes, placed: &[Placed]) {
        let to = self.add_page(file, true);
        self.pages[to as usize].chunks = placed.len() as u32;
        for Placed { chunk, offset } in placed {
            let chunk = self.get_mut(*chunk);
            let from = std::mem::replace(&mut chunk.page, to);
            chunk.offset = *offset;
            self.leave_page(from);
        }
        self.free_if_unused(to);
    }

    /// Frees a page to which no chunk was added.
    pub(crate) fn free_if_unused(&mut self, page: u32) {
        if self.pages[page as usize].chunks == 0 {
            self.pages[page as usize].bytes = None;
            self.free_pages.push(page);
        }
    }

    /// Whether all that lies in files can be read.
    pub(crate) fn check_readable(&self) -> Result<(), String> {
        self.files().try_for_each(|bytes| check_readable(bytes))
    }

    /// The files that runs are read from.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Bytes> {
        self.pages.iter().filter(|page| page.mapped).filter_map(|page| page.bytes.as_ref())
    }

    pub(crate) fn count(&self) -> u64 {
        u64::from(self.used)
    }

    /// Bytes on the heap.
    pub(crate) fn bytes_held(&self) -> usize {
        let heap = self.pages.iter().filter(|page| !page.mapped);
        let pages: usize = heap.filter_map(|page| page.bytes.as_ref()).map(Bytes::len).sum();
        pages
            + self.filling.capacity()
            + self.chunks.len() * size_of::<[Chunk; CHUNK_PAGE]>()
            + self.pages.capacity() * size_of::<Page>()
    }
}

/// Whether what was read of sealed runs is what their image has. A part that the disk could not give
/// stays lost until a start reads the image anew, and sets that part aside.
pub(crate) fn check_readable(bytes: &[u8]) -> Result<(), String> {
    unreadable(bytes).map_or(Ok(()), |image| {
        Err(format!(
            "the disk can not read a part of {}, where samples of the head lie: the next start sets that part aside",
            image.display()
        ))
    })
}
