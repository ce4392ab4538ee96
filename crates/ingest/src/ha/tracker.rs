//! Who is elected, and what that means for a batch.

use std::collections::BTreeMap;
use std::ops::Range;

use tidewatch_model::{Batch, BatchSeries, RawLabels};

/// How replicas are told apart, and when another takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HaOptions {
    /// The label that names the cluster.
    pub cluster_label: String,
    /// The label that names the replica within its cluster; it is taken off.
    pub replica_label: String,
    /// How long the elected replica may be silent.
    pub failover_timeout_ms: i64,
    /// Clusters that are known at most: a sender that makes them up must not fill the memory.
    pub clusters_max: usize,
}

impl Default for HaOptions {
    /// As Mimir has it.
    fn default() -> HaOptions {
        HaOptions {
            cluster_label: "cluster".to_owned(),
            replica_label: "__replica__".to_owned(),
            failover_timeout_ms: 30_000,
            clusters_max: 100,
        }
    }
}

/// One cluster, for people and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    pub cluster: String,
    pub elected: String,
    /// When it was elected, and when it was heard last.
    pub elected_ms: i64,
    pub seen_ms: i64,
    /// How often another took over since the start.
    pub failovers: u64,
    /// Samples of others that were left out since the start.
    pub deduplicated: u64,
}

/// Who is elected in each cluster.
#[derive(Debug)]
pub struct HaTracker {
    options: HaOptions,
    clusters: BTreeMap<Vec<u8>, Cluster>,
    /// When clusters were last forgotten, or looked for.
    forgot_ms: Option<i64>,
}

/// Clusters that were not heard of for so long give their places to others, where these are taken.
const FORGOTTEN_MS: i64 = 30 * 60 * 1000;

/// Bytes that the name of a cluster or of a replica may have, as what the store takes of a label's value by default.
/// They are kept, and stored at each election, before anybody has looked at the labels.
const NAME_BYTES_MAX: usize = 4096;

/// How often they are looked for.
const FORGET_EVERY_MS: i64 = 10_000;

#[derive(Debug, Clone)]
struct Cluster {
    elected: Vec<u8>,
    elected_ms: i64,
    seen_ms: i64,
    /// Time of the newest sample that was taken of the elected one.
    newest_ms: i64,
    failovers: u64,
    deduplicated: u64,
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    /// Samples left out because another replica is elected, histograms among them.
    pub deduplicated: u64,
    pub deduplicated_histograms: u64,
    /// Exemplars left out for that reason; they are no samples.
    pub deduplicated_exemplars: u64,
    /// Samples refused because there are too many clusters.
    pub refused: u64,
    /// Whether somebody was elected: this has to be stored.
    pub elected: bool,
    /// One of those whose samples were left out, for the sender: replica and elected.
    pub example: Option<(String, String)>,
}

/// What is to be done with the series of a batch; lent from request to request.
#[derive(Debug, Default)]
pub struct Replaced {
    /// Label bytes without the replica label, behind each other.
    bytes: Vec<u8>,
    fates: Vec<Fate>,
    of_exemplars: Vec<Fate>,
}

#[derive(Debug, Clone)]
enum Fate {
    Stays,
    Goes,
    /// Its labels are these bytes now.
    Relabelled(Range<u32>),
}

/// The two labels of a series, and where the replica's stands among its bytes.
struct Identity<'a> {
    cluster: &'a [u8],
    replica: &'a [u8],
    at: Range<usize>,
}

/// What the series of a request share: nearly always all are of one replica.
struct Ruling<'a> {
    cluster: &'a [u8],
    replica: &'a [u8],
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Taken,
    LeftOut,
    TooMany,
}

impl HaTracker {
    pub fn new(options: HaOptions) -> HaTracker {
        HaTracker { options, clusters: BTreeMap::new(), forgot_ms: None }
    }

    pub fn options(&self) -> &HaOptions {
        &self.options
    }

    /// Decides about each series of a batch that arrives at `now_ms`; `replaced` gets what
    /// [`Replaced::apply`] needs.
    pub fn examine(&mut self, batch: &Batch<'_>, now_ms: i64, replaced: &mut Replaced) -> Examined {
        replaced.bytes.clear();
        replaced.fates.clear();
        replaced.of_exemplars.clear();
        let mut examined = Examined::default();
        let mut ruling: Option<Ruling<'_>> = None;
        for series in &batch.series {
            let Some(identity) = self.identity(&series.labels) else {
                replaced.fates.push(Fate::Stays);
                continue;
            };
            let known = ruling
                .as_ref()
                .filter(|known| known.cluster == identity.cluster && known.replica == identity.replica);
            let verdict = match known {
                Some(known) => known.verdict,
                None => {
                    // Of this series alone: whoever goes through the batch for each replica in it can be
                    // kept busy by a sender.
                    let newest_ms = newest(batch, series);
                    let verdict = self.rule(&identity, newest_ms, now_ms, &mut examined);
                    ruling = Some(Ruling { cluster: identity.cluster, replica: identity.replica, verdict });
                    verdict
                }
            };
            let samples = series.samples.len() as u64 + series.histograms.len() as u64;
            match verdict {
                Verdict::Taken => {
                    let fate = replaced.relabel(&series.labels, &identity);
                    replaced.fates.push(fate);
                }
                Verdict::LeftOut => {
                    examined.deduplicated += samples;
                    examined.deduplicated_histograms += series.histograms.len() as u64;
                    let cluster = self.clusters.get_mut(identity.cluster).expect("ruled about above");
                    cluster.deduplicated += samples;
                    examined.example.get_or_insert_with(|| (text(identity.replica), text(&cluster.elected)));
                    replaced.fates.push(Fate::Goes);
                }
                Verdict::TooMany => {
                    examined.refused += samples;
                    replaced.fates.push(Fate::Goes);
                }
            }
        }
        examined.deduplicated_exemplars = self.examine_exemplars(batch, replaced);
        examined
    }

    /// Exemplars go the way of samples, but elect nobody: they may come in series of their own. Says how
    /// many are left out because another replica is elected.
    fn examine_exemplars(&self, batch: &Batch<'_>, replaced: &mut Replaced) -> u64 {
        let mut deduplicated = 0;
        let mut before: (&[u8], (Fate, bool)) = (&[], (Fate::Stays, false));
        for exemplar in &batch.exemplars {
            // Those of a series follow each other and share its labels, which are copied once.
            let series = exemplar.series.bytes();
            if !std::ptr::eq(series, before.0) {
                before = (series, self.fate_of_exemplar(&exemplar.series, replaced));
            }
            let (fate, is_of_another) = &before.1;
            deduplicated += u64::from(*is_of_another);
            replaced.of_exemplars.push(fate.clone());
        }
        deduplicated
    }

    /// What becomes of an exemplar of a series, and whether another replica is elected.
    fn fate_of_exemplar(&self, series: &RawLabels<'_>, replaced: &mut Replaced) -> (Fate, bool) {
        let Some(identity) = self.identity(series) else { return (Fate::Stays, false) };
        match self.clusters.get(identity.cluster) {
            Some(cluster) if cluster.elected == identity.replica => {
                (replaced.relabel(series, &identity), false)
            }
            cluster => (Fate::Goes, cluster.is_some()),
        }
    }

    /// The labels of a series that bears both.
    fn identity<'a>(&self, labels: &RawLabels<'a>) -> Option<Identity<'a>> {
        identity(&self.options, labels)
    }

    /// Whether a replica is heard at `now_ms`; elects it where nobody else is.
    fn rule(
        &mut self,
        identity: &Identity<'_>,
        newest_ms: i64,
        now_ms: i64,
        examined: &mut Examined,
    ) -> Verdict {
        let is_known = self.clusters.contains_key(identity.cluster);
        let room = is_known || self.has_room(now_ms);
        let Some(cluster) = self.clusters.get_mut(identity.cluster) else {
            if !room {
                return Verdict::TooMany;
            }
            let elected = identity.replica.to_vec();
            let cluster = Cluster {
                elected,
                elected_ms: now_ms,
                seen_ms: now_ms,
                newest_ms,
                failovers: 0,
                deduplicated: 0,
            };
            self.clusters.insert(identity.cluster.to_vec(), cluster);
            examined.elected = true;
            return Verdict::Taken;
        };
        if cluster.elected == identity.replica {
            cluster.seen_ms = now_ms;
            cluster.newest_ms = cluster.newest_ms.max(newest_ms);
            return Verdict::Taken;
        }
        // A clock that was set back makes nobody silent, and one that was set back far makes the
        // elected one heard in the future: then it is heard now.
        cluster.seen_ms = cluster.seen_ms.min(now_ms);
        let silent = now_ms - cluster.seen_ms >= self.options.failover_timeout_ms;
        // Its samples may have been from the future; that must not keep it elected.
        let goes_on = newest_ms > cluster.newest_ms.min(cluster.seen_ms);
        if !(silent && goes_on) {
            return Verdict::LeftOut;
        }
        cluster.elected = identity.replica.to_vec();
        (cluster.elected_ms, cluster.seen_ms, cluster.newest_ms) = (now_ms, now_ms, newest_ms);
        cluster.failovers += 1;
        examined.elected = true;
        Verdict::Taken
    }

    /// Whether there is room for a cluster, perhaps in place of one that is gone.
    fn has_room(&mut self, now_ms: i64) -> bool {
        let is_full = self.clusters.len() >= self.options.clusters_max;
        let looked = |at: i64| (at..at.saturating_add(FORGET_EVERY_MS)).contains(&now_ms);
        if is_full && !self.forgot_ms.is_some_and(looked) {
            self.forgot_ms = Some(now_ms);
            self.clusters.retain(|_, cluster| now_ms.saturating_sub(cluster.seen_ms) < FORGOTTEN_MS);
        }
        self.clusters.len() < self.options.clusters_max
    }

    pub fn status(&self) -> Vec<ClusterStatus> {
        let status = |(name, cluster): (&Vec<u8>, &Cluster)| ClusterStatus {
            cluster: text(name),
            elected: text(&cluster.elected),
            elected_ms: cluster.elected_ms,
            seen_ms: cluster.seen_ms,
            failovers: cluster.failovers,
            deduplicated: cluster.deduplicated,
        };
        self.clusters.iter().map(status).collect()
    }

    /// Clusters with their elected replicas and when these were elected: what a restart needs.
    pub(super) fn elected(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8], i64)> {
        self.clusters
            .iter()
            .map(|(name, cluster)| (name.as_slice(), cluster.elected.as_slice(), cluster.elected_ms))
    }

    /// Takes over who was elected before a restart, as if all had been heard at `now_ms`.
    pub(super) fn restore(&mut self, cluster: &[u8], elected: &[u8], elected_ms: i64, now_ms: i64) {
        let restored = Cluster {
            elected: elected.to_vec(),
            elected_ms,
            seen_ms: now_ms,
            newest_ms: i64::MIN,
            failovers: 0,
            deduplicated: 0,
        };
        self.clusters.insert(cluster.to_vec(), restored);
    }
}

fn identity<'a>(options: &HaOptions, labels: &RawLabels<'a>) -> Option<Identity<'a>> {
    let (mut cluster, mut replica) = (None, None);
    let mut pairs = labels.pairs();
    let whole = pairs.rest().len();
    loop {
        let start = whole - pairs.rest().len();
        // Malformed labels are the store's to refuse.
        let Some(pair) = pairs.next() else { break };
        let (name, value) = pair?;
        if name == options.cluster_label.as_bytes() {
            cluster = Some(value);
        } else if name == options.replica_label.as_bytes() {
            replica = Some((value, start..whole - pairs.rest().len()));
        }
    }
    let ((replica, at), cluster) = (replica?, cluster?);
    // An empty label is an absent one. A series with a long one stays as it is, for the store to refuse.
    let is_name = |name: &[u8]| (1..=NAME_BYTES_MAX).contains(&name.len());
    (is_name(cluster) && is_name(replica)).then_some(Identity { cluster, replica, at })
}

/// Time of the newest sample of a series.
fn newest(batch: &Batch<'_>, series: &BatchSeries<'_>) -> i64 {
    let samples = &batch.samples[series.samples.start as usize..series.samples.end as usize];
    let histograms = &batch.histograms[series.histograms.start as usize..series.histograms.end as usize];
    let times = samples.iter().map(|sample| sample.timestamp);
    times.chain(histograms.iter().map(|histogram| histogram.timestamp)).max().unwrap_or(i64::MIN)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Replaced {
    /// Keeps the labels of a series without the replica's.
    fn relabel(&mut self, labels: &RawLabels<'_>, identity: &Identity<'_>) -> Fate {
        let start = self.bytes.len() as u32;
        let bytes = labels.bytes();
        self.bytes.extend_from_slice(&bytes[..identity.at.start]);
        self.bytes.extend_from_slice(&bytes[identity.at.end..]);
        Fate::Relabelled(start..self.bytes.len() as u32)
    }

    /// Leaves out of the batch that was examined what is to go, and takes the replica label off
    /// the rest.
    pub fn apply<'a>(&'a self, batch: &mut Batch<'a>) {
        let mut fates = self.fates.iter();
        batch.series.retain_mut(|series| {
            self.decide(fates.next().expect("a fate for each series"), &mut series.labels)
        });
        let mut fates = self.of_exemplars.iter();
        batch.exemplars.retain_mut(|exemplar| {
            self.decide(fates.next().expect("a fate for each exemplar"), &mut exemplar.series)
        });
    }

    /// Whether something stays, with which labels.
    fn decide<'a>(&'a self, fate: &Fate, labels: &mut RawLabels<'a>) -> bool {
        if let Fate::Relabelled(range) = fate {
            let bytes = &self.bytes[range.start as usize..range.end as usize];
            *labels = match labels {
                RawLabels::Canonical(_) => RawLabels::Canonical(bytes),
                RawLabels::Proto(_) => RawLabels::Proto(bytes),
            };
        }
        !matches!(fate, Fate::Goes)
    }

    /// Bytes that are kept from request to request.
    pub fn capacity(&self) -> usize {
        let fates = self.fates.capacity() + self.of_exemplars.capacity();
        self.bytes.capacity() + fates * size_of::<Fate>()
    }
}
