//! Labels of remote write 2.0, written out as a sender of 1.0 writes them.
//!
//! ```text
//! symbols  "" __name__ job up api        labels_refs  1 3 2 4
//!          0  1        2   3  4             └─► {__name__="up"} {job="api"}, as fields of a TimeSeries
//! ```
//!
//! Invariants: labels of a series are strictly ascending by name and none is empty, whatever the order
//! of the references, so that a series has one spelling, which is also the one that the store keeps. A
//! set takes at most as much as the store takes of one, names of empty labels included; no text is compared
//! that is longer.
//!
//! Not here: whether texts are UTF-8: the store checks that, once for each new series.

use std::fmt;
use std::ops::Range;

use tidewatch_model::{Batch, BatchExemplar, BatchSeries, METRIC_NAME, RawLabels, spell_pair};

use super::wire::{Reader, Reason};

/// Pairs whose spelling is remembered: those of a request of the usual size, at 24 bytes each.
const KNOWN_PAIRS: usize = 1 << 10;

/// Memory to decode a request of remote write 2.0, lent from request to request.
#[derive(Debug, Default)]
pub struct Spelling {
    pub(super) symbols: Symbols,
    /// Label sets of series and of exemplars, behind each other.
    pub(super) labels: Vec<u8>,
    /// Where pairs stand in `labels` already, by their hash. What it says of places is true of what
    /// is in `labels` now.
    known: Vec<KnownPair>,
    /// What the batch's metadata was made of.
    pub(super) said: Vec<Said>,
    /// Bytes of the texts that this names: others copy them.
    pub(super) said_bytes: usize,
    pub(super) series: Vec<SeriesPlace>,
    pub(super) exemplars: Vec<ExemplarPlace>,
    /// References of the series and of the exemplar that are being read.
    pub(super) series_refs: Vec<u32>,
    pub(super) exemplar_refs: Vec<u32>,
}

/// A series of the batch; its labels are a range of [`Spelling::labels`].
#[derive(Debug)]
pub(super) struct SeriesPlace {
    pub(super) labels: Range<u32>,
    pub(super) samples: Range<u32>,
    pub(super) histograms: Range<u32>,
}

/// An exemplar of the batch; its labels and its series' are ranges of [`Spelling::labels`].
#[derive(Debug)]
pub(super) struct ExemplarPlace {
    pub(super) series: Range<u32>,
    pub(super) labels: Range<u32>,
    pub(super) value: f64,
    pub(super) timestamp: i64,
}

/// `Metadata` of a series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) kind: u64,
    pub(super) help: u32,
    pub(super) unit: u32,
}

impl Spelling {
    pub fn clear(&mut self) {
        self.symbols.0.clear();
        self.labels.clear();
        self.known.clear();
        self.said.clear();
        self.said_bytes = 0;
        self.series.clear();
        self.exemplars.clear();
    }

    /// Bytes that are kept from request to request.
    pub fn capacity(&self) -> usize {
        self.symbols.0.capacity() * size_of::<Symbol>()
            + self.labels.capacity()
            + self.series.capacity() * size_of::<SeriesPlace>()
            + self.exemplars.capacity() * size_of::<ExemplarPlace>()
            + self.said.capacity() * size_of::<Said>()
            + self.known.capacity() * size_of::<KnownPair>()
    }

    /// Bytes that a request makes us take beyond its own, or the store, samples and the like aside.
    pub(super) fn taken(&self) -> usize {
        self.symbols.0.len() * size_of::<Symbol>() + self.labels.len() + self.said_bytes
    }

    /// Puts series and exemplars into the batch that has their samples.
    pub(super) fn lend<'a>(&'a self, batch: &mut Batch<'a>) {
        let labels =
            |range: &Range<u32>| RawLabels::Proto(&self.labels[range.start as usize..range.end as usize]);
        batch.series.extend(self.series.iter().map(|series| BatchSeries {
            labels: labels(&series.labels),
            samples: series.samples.clone(),
            histograms: series.histograms.clone(),
        }));
        batch.exemplars.extend(self.exemplars.iter().map(|exemplar| BatchExemplar {
            series: labels(&exemplar.series),
            labels: labels(&exemplar.labels),
            value: exemplar.value,
            timestamp: exemplar.timestamp,
        }));
    }
}

/// The strings of a request, as places in its body.
#[derive(Debug, Default)]
pub(super) struct Symbols(Vec<Symbol>);

#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    start: u32,
    len: u32,
    /// Which of [`Spelling::said`] was said last about the metric of this name; [`NOTHING`] before.
    pub(super) metadata: u32,
}

impl Symbols {
    /// Adds the text that is `rest`'s last read field: `rest` is what comes behind it in the body.
    pub(super) fn push(&mut self, body: &[u8], text: &[u8], rest: &[u8]) {
        let start = (body.len() - rest.len() - text.len()) as u32;
        self.0.push(Symbol { start, len: text.len() as u32, metadata: NOTHING });
    }

    #[inline]
    pub(super) fn text<'a>(&self, body: &'a [u8], reference: u32) -> Result<&'a [u8], Fault> {
        let Some(symbol) = self.0.get(reference as usize) else {
            return Err(Fault::NoSymbol { reference, symbols: self.0.len() });
        };
        Ok(&body[symbol.start as usize..symbol.start as usize + symbol.len as usize])
    }

    /// Whether the name `before` is smaller than `name`.
    fn check_ascending(&self, body: &[u8], before: u32, name: u32) -> Result<(), Stop> {
        let name = self.text(body, name)?;
        if before != NOTHING && self.text(body, before)? >= name { Err(Stop::NotAscending) } else { Ok(()) }
    }

    /// A symbol that [`Symbols::text`] has found.
    pub(super) fn get_mut(&mut self, reference: u32) -> &mut Symbol {
        &mut self.0[reference as usize]
    }
}

/// Why a series or an exemplar is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    OddReferences,
    NoSymbol {
        reference: u32,
        symbols: usize,
    },
    TooLong,
    /// Two labels have the name that a reference stands for, be one of them empty.
    NameTwice {
        name: u32,
    },
    NoName,
    NoSamples,
    SamplesAndHistograms,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::OddReferences => f.write_str("labels_refs are odd in number: a name has no value"),
            Fault::NoSymbol { reference, symbols } => {
                write!(f, "reference {reference} is not among the {symbols} symbols of the request")
            }
            Fault::TooLong => f.write_str("the label set is longer than is allowed"),
            Fault::NameTwice { name } => write!(f, "two labels have the same name, that of reference {name}"),
            Fault::NoName => f.write_str("the label __name__ is missing or empty"),
            Fault::NoSamples => f.write_str("it has neither samples nor histograms"),
            Fault::SamplesAndHistograms => {
                f.write_str("it has both samples and histograms: send them as two series")
            }
        }
    }
}

/// A name and a value that were spelled before.
#[derive(Debug, Clone, Copy)]
struct KnownPair {
    name: u32,
    value: u32,
    /// The name that was before, and is smaller; [`NOTHING`] where it was the first.
    after: u32,
    is_metric: bool,
    start: u32,
    /// 0 for a place that has no pair.
    len: u32,
}

/// A symbol that no request has.
const NOTHING: u32 = u32::MAX;

const NO_PAIR: KnownPair =
    KnownPair { name: NOTHING, value: NOTHING, after: NOTHING, is_metric: false, start: 0, len: 0 };

fn slot([name, value]: [u32; 2]) -> usize {
    let hash = name.wrapping_mul(0x9e37_79b1) ^ value.wrapping_mul(0x85eb_ca6b);
    (hash >> 16) as usize % KNOWN_PAIRS
}

/// Appends packed references to `refs`; beyond `most` they are read and not kept.
#[inline]
pub(super) fn read_refs(mut packed: &[u8], most: usize, refs: &mut Vec<u32>) -> Result<(), Reason> {
    refs.reserve(packed.len().min(most));
    loop {
        // Symbols are fewer than 16,384 nearly always.
        packed = match *packed {
            [] => return Ok(()),
            [low, ref rest @ ..] if low < 0x80 => {
                push_ref(u64::from(low), most, refs);
                rest
            }
            [low, high, ref rest @ ..] if high < 0x80 => {
                push_ref(u64::from(low & 0x7f) | u64::from(high) << 7, most, refs);
                rest
            }
            _ => {
                let mut reader = Reader::new(packed);
                push_ref(reader.varint()?, most, refs);
                reader.rest()
            }
        };
    }
}

#[inline]
pub(super) fn push_ref(number: u64, most: usize, refs: &mut Vec<u32>) {
    if refs.len() < most {
        refs.push(number as u32);
    }
}

/// More references than a label set of so many bytes can have: the shortest label takes seven.
pub(super) fn refs_max(label_set_bytes: usize) -> usize {
    (label_set_bytes / 7 + 1) * 2
}

/// Why the labels of a series are not spelled in the order in which they came.
enum Stop {
    Fault(Fault),
    /// A name does not follow the one before.
    NotAscending,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Fault(fault)
    }
}

impl Spelling {
    /// Appends the labels of the series that is being read, at most `most` bytes; says which symbol is
    /// the metric's name, where there is one. After a fault nothing is appended.
    pub(super) fn spell_series(&mut self, body: &[u8], most: usize) -> Result<Option<u32>, Fault> {
        let mut refs = std::mem::take(&mut self.series_refs);
        let result = pairs_of(&mut refs, most).and_then(|pairs| self.spell(body, pairs, most));
        self.series_refs = refs;
        result
    }

    #[inline]
    fn spell(&mut self, body: &[u8], pairs: &mut [[u32; 2]], most: usize) -> Result<Option<u32>, Fault> {
        let start = self.labels.len();
        let stop = match self.spell_known(body, pairs, most) {
            Ok(metric) => return Ok(metric),
            Err(stop) => stop,
        };
        self.forget(start, pairs);
        match stop {
            Stop::NotAscending => self.spell_unordered(body, pairs, most),
            Stop::Fault(fault) => Err(fault),
        }
    }

    fn spell_unordered(
        &mut self,
        body: &[u8],
        pairs: &mut [[u32; 2]],
        most: usize,
    ) -> Result<Option<u32>, Fault> {
        let Spelling { symbols, labels, .. } = self;
        sort_pairs(body, symbols, pairs, most)?;
        for [[before, _], [name, _]] in pairs.array_windows() {
            if symbols.text(body, *before)? == symbols.text(body, *name)? {
                return Err(Fault::NameTwice { name: *before });
            }
        }
        spell_pairs(body, symbols, pairs, most, labels)
    }

    /// Takes the labels off again that [`Spelling::spell_series`] has appended last, and what is before
    /// them, down to `start`.
    pub(super) fn forget_series(&mut self, start: usize) {
        let refs = std::mem::take(&mut self.series_refs);
        self.forget(start, refs.as_chunks::<2>().0);
        self.series_refs = refs;
    }

    #[cold]
    fn forget(&mut self, start: usize, pairs: &[[u32; 2]]) {
        self.labels.truncate(start);
        for pair in pairs {
            if let Some(known) = self.known.get_mut(slot(*pair))
                && known.start as usize >= start
            {
                *known = NO_PAIR;
            }
        }
    }

    /// Appends ascending pairs. Each is copied from where it was spelled first; those that stand behind
    /// each other there are copied as one.
    #[inline]
    fn spell_known(&mut self, body: &[u8], pairs: &[[u32; 2]], most: usize) -> Result<Option<u32>, Stop> {
        if self.known.is_empty() {
            self.known.resize(KNOWN_PAIRS, NO_PAIR);
        }
        let mut end = self.labels.len() + most;
        let (mut metric, mut before) = (None, NOTHING);
        let mut run = 0..0;
        for pair in pairs {
            let at = slot(*pair);
            let known = self.known[at];
            if [known.name, known.value] != *pair || known.len == 0 {
                self.labels.extend_from_within(std::mem::take(&mut run));
                if self.spell_new(body, *pair, before, &mut end)? {
                    metric = Some(pair[1]);
                }
                before = pair[0];
                continue;
            }
            if known.after != before {
                self.symbols.check_ascending(body, before, pair[0])?;
                self.known[at].after = before;
            }
            before = pair[0];
            if known.is_metric {
                metric = Some(pair[1]);
            }
            let place = known.start as usize..(known.start + known.len) as usize;
            if self.labels.len() + run.len() + place.len() > end {
                return Err(Fault::TooLong.into());
            }
            if run.end == place.start {
                run.end = place.end;
            } else {
                self.labels.extend_from_within(std::mem::replace(&mut run, place));
            }
        }
        self.labels.extend_from_within(run);
        Ok(metric)
    }

    /// Appends a pair that follows the name `before`, and remembers where; says whether it is the
    /// metric's name. The labels may grow to `end` bytes.
    fn spell_new(&mut self, body: &[u8], pair: [u32; 2], before: u32, end: &mut usize) -> Result<bool, Stop> {
        let [name, value] = pair;
        let start = self.labels.len();
        self.symbols.check_ascending(body, before, name)?;
        let is_metric = spell_symbols(body, &self.symbols, pair, end, &mut self.labels)?;
        let (start, len) = (start as u32, (self.labels.len() - start) as u32);
        self.known[slot(pair)] = KnownPair { name, value, after: before, is_metric, start, len };
        Ok(is_metric)
    }

    /// Appends the labels of the exemplar that is being read. After a fault nothing is appended.
    pub(super) fn spell_exemplar(&mut self, body: &[u8], most: usize) -> Result<(), Fault> {
        let Spelling { symbols, labels, exemplar_refs, .. } = self;
        let pairs = pairs_of(exemplar_refs, most)?;
        sort_pairs(body, symbols, pairs, most)?;
        spell_pairs(body, symbols, pairs, most, labels).map(|_| ())
    }
}

fn pairs_of(refs: &mut [u32], most: usize) -> Result<&mut [[u32; 2]], Fault> {
    if refs.len() >= refs_max(most) {
        return Err(Fault::TooLong);
    }
    let (pairs, rest) = refs.as_chunks_mut::<2>();
    if rest.is_empty() { Ok(pairs) } else { Err(Fault::OddReferences) }
}

/// Puts pairs in the order of their names, and of their values where a name is there twice.
fn sort_pairs(body: &[u8], symbols: &Symbols, pairs: &mut [[u32; 2]], most: usize) -> Result<(), Fault> {
    let mut bytes = 0;
    for reference in pairs.as_flattened() {
        bytes += symbols.text(body, *reference)?.len();
    }
    // Two bytes of references may stand for texts as long as the request: they are not compared.
    if bytes > most {
        return Err(Fault::TooLong);
    }
    let text = |reference: u32| symbols.text(body, reference).expect("looked up above");
    pairs.sort_unstable_by(|[a, x], [b, y]| text(*a).cmp(text(*b)).then_with(|| text(*x).cmp(text(*y))));
    Ok(())
}

/// Appends pairs as they stand; says which symbol is the metric's name. After a fault nothing is appended.
fn spell_pairs(
    body: &[u8],
    symbols: &Symbols,
    pairs: &[[u32; 2]],
    most: usize,
    labels: &mut Vec<u8>,
) -> Result<Option<u32>, Fault> {
    let start = labels.len();
    let (mut metric, mut end) = (None, start + most);
    for pair in pairs {
        match spell_symbols(body, symbols, *pair, &mut end, labels) {
            Ok(true) => metric = Some(pair[1]),
            Ok(false) => {}
            Err(fault) => {
                labels.truncate(start);
                return Err(fault);
            }
        }
    }
    Ok(metric)
}

/// Appends one label, unless it is empty, which means absent: then its name is taken off what the others may
/// have. Says whether it is the metric's name.
fn spell_symbols(
    body: &[u8],
    symbols: &Symbols,
    [name, value]: [u32; 2],
    end: &mut usize,
    labels: &mut Vec<u8>,
) -> Result<bool, Fault> {
    let (name, value) = (symbols.text(body, name)?, symbols.text(body, value)?);
    if labels.len() + name.len() + value.len() > *end {
        return Err(Fault::TooLong);
    }
    // One without a name is the store's to refuse.
    if value.is_empty() && !name.is_empty() {
        *end -= name.len();
        return Ok(false);
    }
    spell_pair(name, value, labels);
    Ok(name == METRIC_NAME.as_bytes())
}
