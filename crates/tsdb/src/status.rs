//! What a database says about itself: plain values for pages and metrics.

/// See [`crate::Db::status`].
#[derive(Debug, Clone, Default)]
pub struct DbStatus {
    /// Whether recovery is over, so that queries are answered.
    pub complete: bool,
    /// Why writes are refused, if they are.
    pub read_only: Option<String>,
    pub head: HeadStatus,
    pub blocks: Vec<BlockStatus>,
    pub wal_bytes: u64,
    /// Images of the head, when they were written last.
    pub image_bytes: u64,
    /// The disk that holds the data, where it can be asked; `None` in memory.
    pub disk: Option<DiskStatus>,
    pub counters: Counters,
    /// What was found damaged since the start, oldest first: the first hundred pieces.
    pub damage: Vec<Damage>,
    /// How many pieces that were in all.
    pub damage_found: u64,
}

/// Room on the disk. Samples are refused while less is free than the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskStatus {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub reserve_bytes: u64,
}

/// The head: everything that is not in blocks.
#[derive(Debug, Clone, Default)]
pub struct HeadStatus {
    pub series: u64,
    /// Those that have native histograms.
    pub histogram_series: u64,
    /// Those that have ended, a marker of staleness being their newest sample: at the last look, which
    /// is taken once a minute.
    pub stale_series: u64,
    /// Sealed runs.
    pub chunks: u64,
    pub samples: u64,
    /// Samples taken out of order since the start.
    pub out_of_order: u64,
    /// Times of the oldest and newest sample; `None` in an empty head.
    pub min_time: Option<i64>,
    pub max_time: Option<i64>,
    pub label_pairs: u64,
    /// Exemplars that are kept.
    pub exemplars: u64,
    pub clocks: u64,
    pub memory: Memory,
}

/// Bytes of memory that the head holds, by part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Texts of labels.
    pub symbols: u64,
    /// Lists of labels of the series.
    pub labels: u64,
    /// From label bytes to series.
    pub table: u64,
    /// Postings and sorted label values.
    pub index: u64,
    /// A record for each series.
    pub series: u64,
    /// Values of open runs.
    pub open_runs: u64,
    pub clocks: u64,
    /// Sealed runs on the heap.
    pub sealed: u64,
    /// Samples out of order.
    pub late: u64,
    /// Native histograms and start timestamps.
    pub histograms: u64,
}

impl Memory {
    /// By what it is for: names and bytes, the largest parts of a usual series first.
    pub fn by_use(&self) -> [(&'static str, u64); 7] {
        let Memory { symbols, labels, table, index, series, open_runs, clocks, sealed, late, histograms } =
            *self;
        [
            ("labels", symbols + labels),
            ("index", table + index),
            ("openRuns", open_runs + clocks),
            ("bookkeeping", series),
            ("sealedRuns", sealed),
            ("outOfOrder", late),
            ("histograms", histograms),
        ]
    }

    pub fn total(&self) -> u64 {
        let Memory { symbols, labels, table, index, series, open_runs, clocks, sealed, late, histograms } =
            *self;
        symbols + labels + table + index + series + open_runs + clocks + sealed + late + histograms
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockStatus {
    pub name: String,
    pub min_time: i64,
    pub max_time: i64,
    pub series: u64,
    pub samples: u64,
    pub bytes: u64,
    /// Series of which something is deleted.
    pub tombstones: u64,
    pub chunks: u64,
    /// 0 from the head, one more for each merge.
    pub level: u8,
    /// Names of the blocks that it was merged from.
    pub parents: Vec<String>,
}

/// What grew most in the head since `since_ms`, each list largest first; `None` where nobody looked before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Growth {
    pub since_ms: Option<i64>,
    pub series_by_metric: Vec<TopEntry>,
    pub values_by_label: Vec<TopEntry>,
}

/// Counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub samples_appended: u64,
    pub duplicates: u64,
    pub refused_too_old: u64,
    pub refused_conflict: u64,
    pub refused_future: u64,
    pub refused_labels: u64,
    pub refused_histograms: u64,
    pub series_created: u64,
    pub series_removed: u64,
    /// Series that left the head because they had ended, before a cut would have taken them.
    pub stale_series_cut: u64,
    pub commits: u64,
    pub cuts: u64,
    pub compactions: u64,
    /// Damaged parts of blocks that are hidden, so that what is whole can be read.
    pub chunks_set_aside: u64,
    pub blocks_retired: u64,
    /// Blocks rewritten without what was deleted.
    pub blocks_cleaned: u64,
    pub deletions: u64,
    pub samples_replayed: u64,
    /// Samples in the log whose series was never found; their bytes are kept aside.
    pub samples_set_aside: u64,
}

/// How far a start has come with the log: numbers of segments. 0 where it had none to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replay {
    /// The first and the last that are read.
    pub first: u64,
    pub last: u64,
    /// The one that is being read; the last one at the end.
    pub current: u64,
}

/// A piece of stored data that can not be read, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub path: String,
    pub offset: u64,
    pub reason: String,
}

/// A name with a count, for the lists of what there is most of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopEntry {
    pub name: String,
    pub count: u64,
}

/// The largest cardinalities of the head, each list sorted by count, largest first.
#[derive(Debug, Clone, Default)]
pub struct Cardinality {
    pub series_by_metric: Vec<TopEntry>,
    pub values_by_label: Vec<TopEntry>,
    pub bytes_by_label: Vec<TopEntry>,
    /// `name=value`.
    pub series_by_pair: Vec<TopEntry>,
}
