//! `io.prometheus.write.v2.Request` to a batch, by hand: a pass over the symbols, then one over the
//! series, whose labels are written out ([`super::spelling`]).
//!
//! ```text
//! Request     4 symbols: string*, 5 timeseries: TimeSeries*
//! TimeSeries  1 labels_refs: uint32*, 2 samples: Sample*, 3 histograms: Histogram*,
//!             4 exemplars: Exemplar*, 5 metadata: Metadata, 6 created_timestamp: int64, in drafts
//! Sample      1 value: double, 2 timestamp: int64 (ms), 3 start_timestamp: int64 (ms)
//! Exemplar    1 labels_refs: uint32*, 2 value: double, 3 timestamp: int64 (ms)
//! Metadata    1 type: enum, 3 help_ref: uint32, 4 unit_ref: uint32
//! ```
//!
//! What is no protobuf, or too much, refuses the request. A series that contradicts the specification
//! is left out and told of, and the others are taken, as Prometheus does it.

use tidewatch_model::{Batch, Limits, Metadata, MetricType, Sample};

use super::decode::{metric_type, plain_sample};
use super::histogram::{BucketRoom, decode_histogram};
use super::spelling::{ExemplarPlace, Fault, Said, SeriesPlace, Spelling, push_ref, read_refs, refs_max};
use super::wire::{Reader, Reason, WRONG_TYPE, Wire};
use super::{WriteError, WriteSummary};

const REFS_TAG: u8 = 0x0a;

/// Memory for labels is asked for in steps that double from the one to the other.
const ROOM_STEP_MIN: usize = 64 << 10;
const ROOM_STEP_MAX: usize = 1 << 20;

/// Fills `batch` from a decompressed request of remote write 2.0. Fields may stand in any order and
/// unknown ones are skipped. The batch borrows `body` and `spelling`, which has the series' labels in
/// the spelling of 1.0.
///
/// References are short and what they name is long, so labels and metadata can take many times what
/// the body has. They are held to what a request may have as a body, and `room` is asked before memory
/// is taken for labels: where it says no, that is [`WriteError::NoRoom`].
///
/// After an error the batch is empty.
pub fn decode_write_request_v2<'a>(
    body: &'a [u8],
    limits: &Limits,
    room: &mut dyn FnMut(usize) -> bool,
    spelling: &'a mut Spelling,
    batch: &mut Batch<'a>,
) -> Result<WriteSummary, WriteError> {
    batch.clear();
    spelling.clear();
    let (buckets, summary) = (BucketRoom::of(limits), WriteSummary::default());
    let mut decoder =
        Decoder { body, limits, room, granted: 0, spelling, batch, buckets, summary, series: 0 };
    let result = decoder.request();
    let Decoder { mut summary, .. } = decoder;
    if let Err(error) = result {
        batch.clear();
        return Err(error);
    }
    let spelling: &'a Spelling = spelling;
    spelling.lend(batch);
    if !batch.starts.is_empty() {
        batch.starts.resize(batch.samples.len(), 0);
    }
    summary.series = batch.series.len();
    summary.samples = batch.samples.len();
    summary.histograms = batch.histograms.len();
    summary.metadata = batch.metadata.len();
    summary.exemplars = batch.exemplars.len();
    Ok(summary)
}

/// Why one message of the request could not be taken, and with it the request.
enum Failure {
    Malformed(Reason),
    Refused(WriteError),
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Failure {
        Failure::Malformed(reason)
    }
}

struct Decoder<'a, 'b> {
    body: &'a [u8],
    limits: &'b Limits,
    room: &'b mut dyn FnMut(usize) -> bool,
    /// Bytes that `room` has given.
    granted: usize,
    spelling: &'b mut Spelling,
    batch: &'b mut Batch<'a>,
    buckets: BucketRoom,
    summary: WriteSummary,
    /// The place of the series that is read, in the request.
    series: usize,
}

/// What the columns of the batch had when a series began.
struct Marks {
    labels: usize,
    samples: usize,
    histograms: usize,
    exemplars: usize,
}

impl<'a> Decoder<'a, '_> {
    fn request(&mut self) -> Result<(), WriteError> {
        self.each_field(|decoder, field, rest| match field {
            (4, Wire::Bytes(text)) => decoder.symbol(text, rest),
            (5, Wire::Bytes(_)) => Ok(()),
            (4 | 5, _) => Err(Failure::Malformed(WRONG_TYPE)),
            _ => Ok(()),
        })?;
        self.each_field(|decoder, field, _| match field {
            (5, Wire::Bytes(message)) => decoder.series(message),
            _ => Ok(()),
        })?;
        self.check_taken()
    }

    /// Hands every field of the request to `visit`, with what comes behind it.
    fn each_field(
        &mut self,
        mut visit: impl FnMut(&mut Self, (u32, Wire<'a>), &'a [u8]) -> Result<(), Failure>,
    ) -> Result<(), WriteError> {
        let mut reader = Reader::new(self.body);
        while !reader.is_empty() {
            let offset = self.body.len() - reader.rest().len();
            let field = reader.field().map_err(Failure::Malformed);
            field.and_then(|field| visit(self, field, reader.rest())).map_err(|failure| match failure {
                Failure::Malformed(reason) => WriteError::Malformed { offset, reason },
                Failure::Refused(error) => error,
            })?;
        }
        Ok(())
    }

    fn symbol(&mut self, text: &'a [u8], rest: &'a [u8]) -> Result<(), Failure> {
        self.ask_room(0)?;
        self.spelling.symbols.push(self.body, text, rest);
        Ok(())
    }

    /// Sees to it that there is room for so many bytes of labels more.
    #[inline]
    fn ask_room(&mut self, more: usize) -> Result<(), Failure> {
        let needed = self.spelling.taken() + more;
        if needed < self.granted { Ok(()) } else { self.ask_more_room(needed) }
    }

    fn check_taken(&self) -> Result<(), WriteError> {
        let limit = self.limits.write_body_bytes;
        if self.spelling.taken() > limit { Err(WriteError::Expands { limit }) } else { Ok(()) }
    }

    #[cold]
    fn ask_more_room(&mut self, needed: usize) -> Result<(), Failure> {
        self.check_taken().map_err(Failure::Refused)?;
        let limit = self.limits.write_body_bytes;
        let step = self.granted.clamp(ROOM_STEP_MIN, ROOM_STEP_MAX).min(limit.saturating_sub(self.granted));
        let step = step.max(needed + 1 - self.granted);
        if !(self.room)(step) {
            return Err(Failure::Refused(WriteError::NoRoom));
        }
        self.granted += step;
        // No more than that, which doubling would take.
        self.spelling.labels.reserve_exact(self.granted - self.spelling.taken());
        Ok(())
    }

    fn series(&mut self, message: &'a [u8]) -> Result<(), Failure> {
        let most = self.limits.label_set_bytes;
        self.ask_room(most)?;
        let marks = Marks {
            labels: self.spelling.labels.len(),
            samples: self.batch.samples.len(),
            histograms: self.batch.histograms.len(),
            exemplars: self.spelling.exemplars.len(),
        };
        self.spelling.series_refs.clear();
        let (mut said, mut created) = (Said::default(), 0);
        let mut reader = Reader::new(message);
        while let Some(&tag) = reader.rest().first() {
            if tag == REFS_TAG {
                reader.skip_tag();
                read_refs(reader.bytes()?, refs_max(most), &mut self.spelling.series_refs)?;
                continue;
            }
            if let Some((sample, rest)) = plain_sample(reader.rest()) {
                self.batch.samples.push(sample);
                reader = Reader::new(rest);
                self.check_counts()?;
                continue;
            }
            match reader.field()? {
                (1, Wire::Varint(number)) => {
                    push_ref(number, refs_max(most), &mut self.spelling.series_refs);
                }
                (2, Wire::Bytes(sample)) => self.sample(sample)?,
                (3, Wire::Bytes(histogram)) => {
                    self.batch.histograms.push(decode_histogram(histogram, &mut self.buckets)?);
                }
                (4, Wire::Bytes(exemplar)) => self.exemplar(exemplar)?,
                (5, Wire::Bytes(metadata)) => read_metadata(metadata, &mut said)?,
                (6, Wire::Varint(value)) => created = value as i64,
                (1..=6, _) => return Err(WRONG_TYPE.into()),
                _ => {}
            }
            self.check_counts()?;
        }
        if let Err(fault) = self.end_series(&marks, &said, created) {
            self.leave_out(&marks, fault);
        }
        self.series += 1;
        Ok(())
    }

    fn check_counts(&self) -> Result<(), Failure> {
        let limit = self.limits.write_samples;
        let too_many = |what| Err(Failure::Refused(WriteError::TooMany { what, limit }));
        if self.batch.samples.len() + self.batch.histograms.len() > limit {
            return too_many("samples");
        }
        if self.spelling.exemplars.len() > limit {
            return too_many("exemplars");
        }
        Ok(())
    }

    /// A sample, perhaps with the time at which its counter started.
    fn sample(&mut self, message: &[u8]) -> Result<(), Reason> {
        let (mut sample, mut start) = (Sample::default(), 0);
        let mut reader = Reader::new(message);
        while !reader.is_empty() {
            match reader.field()? {
                (1, Wire::Fixed64(bytes)) => sample.value = f64::from_le_bytes(bytes),
                (2, Wire::Varint(value)) => sample.timestamp = value as i64,
                (3, Wire::Varint(value)) => start = value as i64,
                (1..=3, _) => return Err(WRONG_TYPE),
                _ => {}
            }
        }
        if start != 0 {
            self.batch.starts.resize(self.batch.samples.len(), 0);
            self.batch.starts.push(start);
        }
        self.batch.samples.push(sample);
        Ok(())
    }

    /// An exemplar of the series that is read. One whose labels are too long is not an error, as in 1.0.
    fn exemplar(&mut self, message: &[u8]) -> Result<(), Failure> {
        let most = self.limits.label_set_bytes;
        self.ask_room(2 * most)?;
        let refs = &mut self.spelling.exemplar_refs;
        refs.clear();
        let (mut value, mut timestamp) = (0.0, 0);
        let mut reader = Reader::new(message);
        while !reader.is_empty() {
            match reader.field()? {
                (1, Wire::Bytes(packed)) => read_refs(packed, refs_max(most), refs)?,
                (1, Wire::Varint(number)) => push_ref(number, refs_max(most), refs),
                (2, Wire::Fixed64(bytes)) => value = f64::from_le_bytes(bytes),
                (3, Wire::Varint(number)) => timestamp = number as i64,
                (1..=3, _) => return Err(WRONG_TYPE.into()),
                _ => {}
            }
        }
        let start = self.spelling.labels.len() as u32;
        match self.spelling.spell_exemplar(self.body, most) {
            Ok(()) => {
                let labels = start..self.spelling.labels.len() as u32;
                self.spelling.exemplars.push(ExemplarPlace { series: 0..0, labels, value, timestamp });
            }
            Err(Fault::TooLong) => {}
            Err(fault) => {
                let left_out = &mut self.summary.left_out;
                left_out.exemplars += 1;
                left_out.first.get_or_insert_with(|| format!("exemplar of series {}: {fault}", self.series));
            }
        }
        Ok(())
    }

    /// Writes out the labels of the series that was read, and joins to it what was read of it.
    #[inline]
    fn end_series(&mut self, marks: &Marks, said: &Said, created: i64) -> Result<(), Fault> {
        let start = self.spelling.labels.len() as u32;
        let metric = self.spelling.spell_series(self.body, self.limits.label_set_bytes)?;
        let labels = start..self.spelling.labels.len() as u32;
        let metric = metric.ok_or(Fault::NoName)?;
        let samples = marks.samples as u32..self.batch.samples.len() as u32;
        let histograms = marks.histograms as u32..self.batch.histograms.len() as u32;
        match (samples.is_empty(), histograms.is_empty()) {
            (true, true) => return Err(Fault::NoSamples),
            (false, false) => return Err(Fault::SamplesAndHistograms),
            _ => {}
        }
        self.metadata(metric, said)?;
        if created != 0 {
            self.fill_starts(marks, created);
        }
        for exemplar in &mut self.spelling.exemplars[marks.exemplars..] {
            exemplar.series = labels.clone();
        }
        self.spelling.series.push(SeriesPlace { labels, samples, histograms });
        Ok(())
    }

    /// What drafts of the specification say of a whole series is of the samples that say nothing else.
    fn fill_starts(&mut self, marks: &Marks, created: i64) {
        let Batch { samples, starts, histograms, .. } = &mut *self.batch;
        starts.resize(samples.len(), 0);
        let unset = |start: &&mut i64| **start == 0;
        let of_histograms = histograms[marks.histograms..].iter_mut().map(|histogram| &mut histogram.start);
        let of_samples = starts[marks.samples..].iter_mut();
        of_samples.chain(of_histograms).filter(unset).for_each(|start| *start = created);
    }

    /// Takes what a series says about its metric, unless that was said in the request before. The first
    /// symbol stands for nothing, whatever it is.
    fn metadata(&mut self, metric: u32, said: &Said) -> Result<(), Fault> {
        let Spelling { symbols, said: of_batch, said_bytes, .. } = &mut *self.spelling;
        let before = symbols.get_mut(metric);
        if *said == Said::default() || of_batch.get(before.metadata as usize) == Some(said) {
            return Ok(());
        }
        let text = |reference: u32| match reference {
            0 => Ok(&[][..]),
            _ => symbols.text(self.body, reference),
        };
        let (name, help, unit) = (symbols.text(self.body, metric)?, text(said.help)?, text(said.unit)?);
        let kind = metric_type(said.kind);
        if kind == MetricType::Unknown && help.is_empty() && unit.is_empty() {
            return Ok(());
        }
        *said_bytes += name.len() + help.len() + unit.len();
        let utf8 = |bytes| std::str::from_utf8(bytes).ok();
        // Samples are not lost for a text that is none: a name that is not UTF-8 the store refuses.
        if let (Some(name), Some(help), Some(unit)) = (utf8(name), utf8(help), utf8(unit)) {
            symbols.get_mut(metric).metadata = of_batch.len() as u32;
            of_batch.push(*said);
            self.batch.metadata.push(Metadata { family: family(name, kind), kind, help, unit });
        }
        Ok(())
    }

    /// Takes the series that was read out of the batch again, and counts what it had.
    #[cold]
    fn leave_out(&mut self, marks: &Marks, fault: Fault) {
        let Batch { samples, starts, histograms, .. } = &mut *self.batch;
        let count = (samples.len() - marks.samples + histograms.len() - marks.histograms) as u64;
        samples.truncate(marks.samples);
        starts.truncate(marks.samples);
        histograms.truncate(marks.histograms);
        self.spelling.forget_series(marks.labels);
        self.spelling.exemplars.truncate(marks.exemplars);
        let left_out = &mut self.summary.left_out;
        match fault {
            // Of one that has nothing the sender hears, too, whatever is wrong with it.
            _ if count == 0 => left_out.empty_series += 1,
            Fault::TooLong => left_out.over_limit += count,
            _ => left_out.malformed += count,
        }
        left_out.first.get_or_insert_with(|| format!("series {}: {fault}", self.series));
    }
}

fn read_metadata(message: &[u8], said: &mut Said) -> Result<(), Reason> {
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        match reader.field()? {
            (1, Wire::Varint(kind)) => said.kind = kind,
            (3, Wire::Varint(reference)) => said.help = reference as u32,
            (4, Wire::Varint(reference)) => said.unit = reference as u32,
            (1 | 3 | 4, _) => return Err(WRONG_TYPE),
            _ => {}
        }
    }
    Ok(())
}

/// The family that a series' metric is of: those of histograms and summaries have several.
fn family(metric: &str, kind: MetricType) -> &str {
    let suffixes: &[&str] = match kind {
        MetricType::Histogram => &["_bucket", "_count", "_sum"],
        MetricType::GaugeHistogram => &["_bucket", "_gcount", "_gsum"],
        MetricType::Summary => &["_count", "_sum"],
        _ => &[],
    };
    let stripped = suffixes.iter().find_map(|suffix| metric.strip_suffix(suffix));
    stripped.filter(|family| !family.is_empty()).unwrap_or(metric)
}
