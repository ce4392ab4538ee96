//! Writing a block that Prometheus opens.
//!
//! ```text
//! create ─► push, push, … ─► finish ─► ULID.tmp-for-creation, synced ─ rename ─► ULID
//! ```
//!
//! Chunks go to the disk as they come; the index is held until the end: labels, 24 bytes a chunk
//! and a posting for each label.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidewatch_env::{Env, File, Open, create_dir_durably};
use tidewatch_model::{Labels, NativeHistogram};

use super::block::{TELLS_RESETS, Values, XOR};
use super::index::{ChunkAt, SERIES_ALIGN};
use super::reader::{push_uvarint, push_varint};
use super::{histogram, tombstones, xor};

/// Samples of a chunk, as Prometheus cuts them.
const CHUNK_SAMPLES: usize = 120;

/// A file of chunks is not longer than this.
const CHUNKS_BYTES_MAX: u64 = 512 << 20;

/// Bytes that are collected before they go to a file.
const BUFFER: usize = 1 << 20;

const CHUNKS_HEADER: [u8; 8] = [0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0];
const INDEX_HEADER: [u8; 5] = [0xba, 0xaa, 0xd7, 0x00, 2];

/// Writes one block. One that is dropped leaves a directory that Prometheus removes.
pub struct BlockWriter {
    env: Env,
    dir: PathBuf,
    beside: PathBuf,
    ulid: String,
    /// The file of chunks that is written, counted from 1, and its length with the buffer.
    chunks: Option<(Arc<dyn File>, u64)>,
    chunk_files: u64,
    buffer: Vec<u8>,
    series: Vec<(Labels, Vec<ChunkAt>)>,
    /// The next chunk: times, and values of one of the kinds.
    times: Vec<i64>,
    floats: Vec<f64>,
    histograms: Vec<NativeHistogram>,
    samples: u64,
}

impl BlockWriter {
    /// Starts a block in `dir`, which is created where it is missing.
    pub fn create(env: &Env, dir: &Path) -> io::Result<BlockWriter> {
        create_dir_durably(&*env.disk, dir)?;
        let ulid = ulid(env);
        let beside = dir.join(format!("{ulid}.tmp-for-creation"));
        env.disk.create_dir_all(&beside.join("chunks"))?;
        Ok(BlockWriter {
            env: env.clone(),
            dir: dir.to_owned(),
            beside,
            ulid,
            chunks: None,
            chunk_files: 0,
            buffer: Vec::new(),
            series: Vec::new(),
            times: Vec::new(),
            floats: Vec::new(),
            histograms: Vec::new(),
            samples: 0,
        })
    }

    /// Adds samples of a series.
    ///
    /// # Panics
    /// If series do not ascend by labels, or the samples of one not in time.
    pub fn push(&mut self, labels: &Labels, times: &[i64], values: Values<'_>) -> io::Result<()> {
        let count = match values {
            Values::Floats(floats) => floats.len(),
            Values::Histograms(histograms) => histograms.len(),
        };
        assert_eq!(times.len(), count, "columns of one run are equally long");
        if times.is_empty() {
            return Ok(());
        }
        if self.series.last().is_none_or(|(last, _)| last != labels) {
            self.end_chunk()?;
            assert!(self.series.last().is_none_or(|(last, _)| last < labels), "series ascend by labels");
            self.series.push((labels.clone(), Vec::new()));
        }
        for (row, time) in times.iter().enumerate() {
            assert!(self.newest().is_none_or(|newest| newest < *time), "the samples of a series ascend");
            match values {
                Values::Floats(floats) => self.push_float(floats[row])?,
                Values::Histograms(histograms) => self.push_histogram(&histograms[row])?,
            }
            self.times.push(*time);
        }
        Ok(())
    }

    fn push_float(&mut self, value: f64) -> io::Result<()> {
        if self.times.len() == CHUNK_SAMPLES || !self.histograms.is_empty() {
            self.end_chunk()?;
        }
        self.floats.push(value);
        Ok(())
    }

    fn push_histogram(&mut self, next: &NativeHistogram) -> io::Result<()> {
        let goes_on = match (self.histograms.first(), self.histograms.last()) {
            (Some(first), Some(last)) => histogram::follows(first, last, next),
            _ => self.times.is_empty(),
        };
        if self.times.len() == CHUNK_SAMPLES || !goes_on {
            self.end_chunk()?;
        }
        self.histograms.push(next.clone());
        Ok(())
    }

    fn newest(&self) -> Option<i64> {
        let in_chunks = || self.series.last().and_then(|(_, chunks)| chunks.last()).map(|chunk| chunk.max_ms);
        self.times.last().copied().or_else(in_chunks)
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        let (Some(&min_ms), Some(&max_ms)) = (self.times.first(), self.times.last()) else { return Ok(()) };
        let mut body = vec![XOR];
        if self.histograms.is_empty() {
            xor::encode(&self.times, &self.floats, &mut body);
        } else {
            body[0] = histogram::encode(&self.times, &self.histograms, &mut body);
        }
        if self.chunks.as_ref().is_none_or(|(_, len)| *len + body.len() as u64 + 16 > CHUNKS_BYTES_MAX) {
            self.next_chunks()?;
        }
        let (_, len) = self.chunks.as_mut().expect("opened above");
        let before = self.buffer.len();
        let reference = (self.chunk_files - 1) << 32 | *len;
        push_uvarint(&mut self.buffer, body.len() as u64 - 1);
        self.buffer.extend_from_slice(&body);
        self.buffer.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
        *len += (self.buffer.len() - before) as u64;
        let (_, chunks) = self.series.last_mut().expect("samples belong to a series");
        chunks.push(ChunkAt { min_ms, max_ms, reference });
        self.samples += self.times.len() as u64;
        self.times.clear();
        self.floats.clear();
        self.histograms.clear();
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some((file, _)) = &self.chunks {
            file.append(&self.buffer)?;
        }
        self.buffer.clear();
        Ok(())
    }

    fn end_chunks(&mut self) -> io::Result<()> {
        self.flush()?;
        self.chunks.take().map_or(Ok(()), |(file, _)| file.sync())
    }

    fn next_chunks(&mut self) -> io::Result<()> {
        self.end_chunks()?;
        self.chunk_files += 1;
        let path = self.beside.join("chunks").join(format!("{:06}", self.chunk_files));
        let file = self.env.disk.open(&path, Open::Create)?;
        self.buffer.extend_from_slice(&CHUNKS_HEADER);
        self.chunks = Some((file, CHUNKS_HEADER.len() as u64));
        Ok(())
    }

    /// Completes the block, durable under its name when this returns; gives the name. `None` where
    /// nothing was pushed: then there is no block.
    pub fn finish(mut self) -> io::Result<Option<String>> {
        self.end_chunk()?;
        self.end_chunks()?;
        let disk = &*self.env.disk;
        if self.series.is_empty() {
            disk.remove_dir_all(&self.beside)?;
            return Ok(None);
        }
        let index = encode_index(&self.series)?;
        for (name, bytes) in
            [("index", index), ("meta.json", self.meta().into_bytes()), ("tombstones", tombstones::none())]
        {
            let file = disk.open(&self.beside.join(name), Open::Create)?;
            file.append(&bytes)?;
            file.sync()?;
        }
        disk.sync_dir(&self.beside.join("chunks"))?;
        disk.sync_dir(&self.beside)?;
        disk.rename(&self.beside, &self.dir.join(&self.ulid))?;
        disk.sync_dir(&self.dir)?;
        Ok(Some(self.ulid))
    }

    fn meta(&self) -> String {
        let chunks = || self.series.iter().flat_map(|(_, chunks)| chunks);
        let min = chunks().map(|chunk| chunk.min_ms).min().unwrap_or_default();
        let max = chunks().map(|chunk| chunk.max_ms).max().unwrap_or_default();
        let meta = serde_json::json!({
            "ulid": self.ulid,
            "minTime": min,
            "maxTime": max.saturating_add(1),
            "stats": {
                "numSamples": self.samples,
                "numSeries": self.series.len(),
                "numChunks": chunks().count(),
            },
            "compaction": {"level": 1, "sources": [self.ulid], "hints": [TELLS_RESETS]},
            "version": 1,
        });
        format!("{meta:#}\n")
    }
}

/// The bytes of an index. Label indices are left empty: nobody reads them since version 2.
fn encode_index(series: &[(Labels, Vec<ChunkAt>)]) -> io::Result<Vec<u8>> {
    let texts: BTreeSet<&str> =
        series.iter().flat_map(|(labels, _)| labels.iter().flat_map(|(name, value)| [name, value])).collect();
    let mut out = INDEX_HEADER.to_vec();
    let mut table = vec![out.len()];
    let mut body = Vec::new();
    for text in &texts {
        push_text(&mut body, text);
    }
    section(&mut out, texts.len(), &body)?;
    let numbers: BTreeMap<&str, u64> = texts.iter().copied().zip(0..).collect();
    align(&mut out, SERIES_ALIGN);
    table.push(out.len());
    let mut postings: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::new();
    for (labels, chunks) in series {
        align(&mut out, SERIES_ALIGN);
        let reference = u32::try_from(out.len() / SERIES_ALIGN).map_err(|_| too_large())?;
        postings.entry(("", "")).or_default().push(reference);
        for pair in labels.iter() {
            postings.entry(pair).or_default().push(reference);
        }
        push_series(&mut out, labels, chunks, &numbers);
    }
    table.push(out.len());
    let mut offsets = Vec::new();
    for ((name, value), list) in &postings {
        align(&mut out, 4);
        offsets.push(2);
        push_text(&mut offsets, name);
        push_text(&mut offsets, value);
        push_uvarint(&mut offsets, out.len() as u64);
        body.clear();
        list.iter().for_each(|reference| body.extend_from_slice(&reference.to_be_bytes()));
        section(&mut out, list.len(), &body)?;
    }
    // Label indices and postings begin at one place, as the former are empty.
    let postings_at = table[2];
    table.push(out.len());
    section(&mut out, 0, &[])?;
    table.push(postings_at);
    table.push(out.len());
    section(&mut out, postings.len(), &offsets)?;
    let start = out.len();
    table.iter().for_each(|offset| out.extend_from_slice(&(*offset as u64).to_be_bytes()));
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_be_bytes());
    Ok(out)
}

fn too_large() -> io::Error {
    io::Error::other("a block's index would be too large for Prometheus: export less at once")
}

fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    push_uvarint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// A length, a count, the entries, and the checksum of count and entries.
fn section(out: &mut Vec<u8>, count: usize, body: &[u8]) -> io::Result<()> {
    let len = u32::try_from(body.len() + 4).map_err(|_| too_large())?;
    out.extend_from_slice(&len.to_be_bytes());
    let start = out.len();
    out.extend_from_slice(&(count as u32).to_be_bytes());
    out.extend_from_slice(body);
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_be_bytes());
    Ok(())
}

fn push_series(out: &mut Vec<u8>, labels: &Labels, chunks: &[ChunkAt], numbers: &BTreeMap<&str, u64>) {
    let mut body = Vec::new();
    push_uvarint(&mut body, labels.len() as u64);
    for (name, value) in labels.iter() {
        push_uvarint(&mut body, numbers[name]);
        push_uvarint(&mut body, numbers[value]);
    }
    push_uvarint(&mut body, chunks.len() as u64);
    let mut before: Option<&ChunkAt> = None;
    for chunk in chunks {
        match before {
            None => push_varint(&mut body, chunk.min_ms),
            Some(before) => push_uvarint(&mut body, (chunk.min_ms - before.max_ms) as u64),
        }
        push_uvarint(&mut body, (chunk.max_ms - chunk.min_ms) as u64);
        match before {
            None => push_uvarint(&mut body, chunk.reference),
            Some(before) => push_varint(&mut body, chunk.reference.wrapping_sub(before.reference) as i64),
        }
        before = Some(chunk);
    }
    push_uvarint(out, body.len() as u64);
    out.extend_from_slice(&body);
    out.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
}

/// A name that sorts by time: 48 bits of milliseconds and 80 of chance, five a character.
fn ulid(env: &Env) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let mut chance = [0; 10];
    env.entropy.fill(&mut chance);
    let time = env.clock.wall_ms().max(0) as u128 & 0xffff_ffff_ffff;
    let number = chance.iter().fold(time, |number, byte| number << 8 | u128::from(*byte));
    (0..26).rev().map(|at| ALPHABET[(number >> (5 * at) & 31) as usize] as char).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidewatch_model::histogram::{CounterResetHint, FloatHistogram, Histogram, Span};

    use super::super::Block;
    use super::*;

    fn block(env: &Env) -> PathBuf {
        let mut writer = BlockWriter::create(env, Path::new("/out")).expect("a good disk");
        for instance in ["a", "b", "ü"] {
            let labels = Labels::from_pairs([("__name__", "x"), ("instance", instance)]);
            let times: Vec<i64> = (0..500).map(|at| at * 15_000 - 70_000).collect();
            let values: Vec<f64> = times.iter().map(|time| *time as f64 / 7.0).collect();
            writer.push(&labels, &times[..130], Values::Floats(&values[..130])).expect("a good disk");
            writer.push(&labels, &times[130..], Values::Floats(&values[130..])).expect("a good disk");
        }
        let ulid = writer.finish().expect("a good disk").expect("a block");
        assert_eq!(ulid.len(), 26);
        Path::new("/out").join(ulid)
    }

    /// How many samples each series has.
    type Counted = Vec<(String, usize)>;

    /// Series and samples that can be read, and what can not.
    fn read(env: &Env, dir: &Path) -> Result<(Counted, Vec<String>), String> {
        let block = Block::open(env, dir, Block::read_meta(env, dir)?)?;
        let (mut found, mut problems) = (Counted::new(), Vec::new());
        block
            .visit::<()>(&mut |place, reason| problems.push(format!("{place}: {reason}")), &mut |run| {
                let (labels, count) = (run.labels.to_string(), run.times.len());
                match found.last_mut() {
                    Some((last, samples)) if *last == labels => *samples += count,
                    _ => found.push((labels, count)),
                }
                Ok(())
            })
            .expect("no visit fails");
        Ok((found, problems))
    }

    #[test]
    fn what_is_written_reads_back() {
        let simulation = Env::simulated(1);
        let dir = block(&simulation.env);
        let (found, problems) = read(&simulation.env, &dir).expect("opens");
        let expected =
            ["a", "b", "ü"].map(|instance| (format!("{{__name__=\"x\", instance=\"{instance}\"}}"), 500));
        assert_eq!((found, problems), (expected.to_vec(), Vec::new()));
    }

    /// Histograms of one layout or another, gauges, resets, markers, and floats between them.
    fn mixed() -> Vec<NativeHistogram> {
        use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
        let integer = |hint, count: i64, offset| {
            NativeHistogram::Integer(Histogram {
                hint,
                schema: 3,
                count: count as u64,
                sum: count as f64 / 3.0,
                positive_spans: vec![Span { offset, length: 2 }],
                positive_deltas: vec![count, -count],
                ..Histogram::default()
            })
        };
        let custom = |hint, count| {
            NativeHistogram::Float(FloatHistogram {
                hint,
                schema: -53,
                count,
                sum: 1.5,
                positive_spans: vec![Span { offset: 0, length: 1 }],
                positive_buckets: vec![count],
                custom_values: Some(Arc::from([0.25, 10.0])),
                ..FloatHistogram::default()
            })
        };
        let mut all = vec![integer(Unknown, 1, 0)];
        all.extend((0..200).map(|count| integer(NotReset, count, 0)));
        all.extend([integer(NotReset, 201, 5), integer(Reset, 3, 5), integer(Unknown, 3, 5)]);
        all.extend([NativeHistogram::stale(), NativeHistogram::stale(), integer(Gauge, 7, 0)]);
        all.extend([integer(Gauge, 5, 0), custom(Unknown, 0.5), custom(NotReset, 2.5)]);
        all.extend([NativeHistogram::stale(), custom(Unknown, 0.25)]);
        all
    }

    #[test]
    fn histograms_read_back_and_no_chunk_hides_a_reset() {
        let simulation = Env::simulated(1);
        let mut writer = BlockWriter::create(&simulation.env, Path::new("/out")).expect("a good disk");
        let labels = Labels::from_pairs([("__name__", "h")]);
        let histograms = mixed();
        let times: Vec<i64> = (0..histograms.len() as i64).map(|at| at * 15_000).collect();
        writer.push(&labels, &times, Values::Histograms(&histograms)).expect("a good disk");
        let after = [times[times.len() - 1] + 1, times[times.len() - 1] + 2];
        writer.push(&labels, &after[..1], Values::Floats(&[0.5])).expect("a good disk");
        writer.push(&labels, &after[1..], Values::Histograms(&histograms[..1])).expect("a good disk");
        let ulid = writer.finish().expect("a good disk").expect("a block");
        let dir = Path::new("/out").join(ulid);
        let meta = Block::read_meta(&simulation.env, &dir).expect("readable");
        let block = Block::open(&simulation.env, &dir, meta).expect("opens");
        let (mut read, mut floats, mut chunks) = (Vec::new(), 0, 0);
        let mut visit = |run: super::super::Run<'_>| {
            chunks += 1;
            match run.values {
                Values::Floats(values) => floats += values.len(),
                Values::Histograms(values) => read.extend(values.iter().cloned().zip(run.times.to_vec())),
            }
            Ok::<(), ()>(())
        };
        block.visit(&mut |place, reason| panic!("{place}: {reason}"), &mut visit).expect("no visit fails");
        assert_eq!((floats, read.len()), (1, histograms.len() + 1));
        // 120 and 81; the next layout; the reset; what nothing is known of, with two markers; gauges;
        // bounds, with a marker; behind the marker; the float; the last.
        assert_eq!(chunks, 10);
        for ((read, at), (written, time)) in read.iter().zip(histograms.iter().zip(&times)) {
            assert!(read.same_data(written) && at == time, "{written:?} became {read:?}");
            let says_no_more = read.hint() == written.hint() || read.hint() == CounterResetHint::Unknown;
            assert!(says_no_more, "{:?} became {:?}", written.hint(), read.hint());
        }
    }

    /// The hints of all histograms of a block, as it is read with this `meta.json`.
    fn hints(env: &Env, dir: &Path, meta: &str) -> Vec<CounterResetHint> {
        let meta = serde_json::from_str(meta).expect("as it is written");
        let block = Block::open(env, dir, meta).expect("opens");
        let mut hints = Vec::new();
        let mut visit = |run: super::super::Run<'_>| {
            let Values::Histograms(values) = run.values else { panic!("no floats are written") };
            hints.extend(values.iter().map(NativeHistogram::hint));
            Ok::<(), ()>(())
        };
        block.visit(&mut |place, reason| panic!("{place}: {reason}"), &mut visit).expect("no visit fails");
        hints
    }

    /// A sender may know of a reset that no count shows. What Prometheus says of a chunk it has found out itself, of
    /// the samples that it had then.
    #[test]
    fn a_reset_that_a_sender_told_reads_back_from_an_export_and_not_from_prometheus() {
        use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
        let simulation = Env::simulated(1);
        let env = &simulation.env;
        let mut writer = BlockWriter::create(env, Path::new("/out")).expect("a good disk");
        let written = [Reset, NotReset, Reset, Reset, NotReset, Unknown, Gauge];
        for is_float in [false, true] {
            let labels = Labels::from_pairs([("__name__", "h"), ("is_float", &is_float.to_string())]);
            let histograms: Vec<NativeHistogram> = (1..)
                .zip(written)
                .map(|(count, hint)| {
                    let integer = NativeHistogram::Integer(Histogram {
                        hint,
                        count,
                        sum: 0.5,
                        positive_spans: vec![Span { offset: 0, length: 1 }],
                        positive_deltas: vec![count as i64],
                        ..Histogram::default()
                    });
                    if is_float { NativeHistogram::Float(integer.into_float()) } else { integer }
                })
                .collect();
            let times: Vec<i64> = (0..histograms.len() as i64).collect();
            writer.push(&labels, &times, Values::Histograms(&histograms)).expect("a good disk");
        }
        let ulid = writer.finish().expect("a good disk").expect("a block");
        let dir = Path::new("/out").join(ulid);
        let meta = env.disk.map(&dir.join("meta.json")).expect("written").to_vec();
        let meta = String::from_utf8(meta).expect("JSON");
        assert_eq!(hints(env, &dir, &meta), [written, written].concat());
        let of_prometheus = written.map(|hint| if hint == Reset { Unknown } else { hint });
        let without = meta.replace(TELLS_RESETS, "from-out-of-order");
        assert_eq!(hints(env, &dir, &without), [of_prometheus, of_prometheus].concat());
    }

    /// Every bit of index and chunks flipped: refused, or all that is left out is named.
    #[test]
    fn damage_is_named_and_costs_what_it_hit() {
        let simulation = Env::simulated(1);
        let env = &simulation.env;
        let dir = block(env);
        for name in ["index", "chunks/000001"] {
            let path = dir.join(name);
            let whole = env.disk.map(&path).expect("a good disk").to_vec();
            for bit in (0..whole.len() * 8).step_by(if name == "index" { 1 } else { 97 }) {
                let mut damaged = whole.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                env.disk.remove(&path).expect("a good disk");
                let file = env.disk.open(&path, Open::Create).expect("a good disk");
                file.append(&damaged).expect("a good disk");
                let Ok((found, problems)) = read(env, &dir) else { continue };
                let samples: usize = found.iter().map(|(_, samples)| samples).sum();
                assert!(samples == 1500 || !problems.is_empty(), "bit {bit} of {name}: {samples} samples");
                assert!(
                    samples >= 1000 || problems.len() > 1,
                    "bit {bit} of {name} costs one series at most"
                );
            }
            env.disk.remove(&path).expect("a good disk");
            env.disk.open(&path, Open::Create).expect("a good disk").append(&whole).expect("a good disk");
        }
    }
}
