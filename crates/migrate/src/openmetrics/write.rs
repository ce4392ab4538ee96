//! Samples, exemplars and what is known of metrics, as lines of the text.

use tidewatch_model::{
    Exemplar, Labels, METRIC_NAME, MetricType, is_stale, is_valid_legacy_name, push_float,
};

use super::{Reader, Said};

/// The end of a document.
pub const EOF: &str = "# EOF\n";

/// A series as a line begins with it; `None` without a metric name, which the format must have.
pub fn series_text(labels: &Labels) -> Option<String> {
    let name = labels.metric_name()?;
    let mut parts = Vec::new();
    let quoted = !is_valid_metric_name(name);
    if quoted {
        parts.push(format!("\"{}\"", escape(name)));
    }
    parts.extend(labels.iter().filter(|(name, _)| *name != METRIC_NAME).map(pair_text));
    let bare = if quoted { "" } else { name };
    Some(if parts.is_empty() { bare.to_owned() } else { format!("{bare}{{{}}}", parts.join(",")) })
}

fn pair_text((name, value): (&str, &str)) -> String {
    let value = escape(value);
    match is_valid_legacy_name(name) {
        true => format!("{name}=\"{value}\""),
        false => format!("\"{}\"=\"{value}\"", escape(name)),
    }
}

fn is_valid_metric_name(name: &str) -> bool {
    is_valid_legacy_name(&name.replace(':', "_"))
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Undoes [`escape`].
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(next) = chars.next() {
        match (next, chars.clone().next()) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some(escaped @ ('\\' | '"'))) => out.push(escaped),
            _ => {
                out.push(next);
                continue;
            }
        }
        chars.next();
    }
    out
}

/// Whether exemplars may stand on samples of a metric: Prometheus' reader refuses the whole text otherwise.
pub fn takes_exemplars(metric: &str) -> bool {
    metric.ends_with("_total") || metric.ends_with("_bucket")
}

/// Appends a sample's line; `false` for a staleness marker, for which the format has no word: there
/// is none then.
pub fn write_line(
    out: &mut String,
    series: &str,
    time_ms: i64,
    value: f64,
    exemplar: Option<&Exemplar>,
) -> bool {
    if is_stale(value) {
        return false;
    }
    out.push_str(series);
    out.push(' ');
    push_float(out, value);
    out.push(' ');
    push_seconds(out, time_ms);
    if let Some(Exemplar { labels, value, timestamp }) = exemplar {
        let pairs: Vec<String> = labels.iter().map(pair_text).collect();
        out.push_str(&format!(" # {{{}}} ", pairs.join(",")));
        push_float(out, *value);
        out.push(' ');
        push_seconds(out, *timestamp);
    }
    out.push('\n');
    true
}

/// Milliseconds as seconds. Prometheus' reader multiplies by a thousand in floating point and cuts
/// what is left of a millisecond: where that would give the millisecond before, a fourth digit
/// lifts it.
fn push_seconds(out: &mut String, time_ms: i64) {
    let sign = if time_ms < 0 { "-" } else { "" };
    let (seconds, ms) = (time_ms.unsigned_abs() / 1000, time_ms.unsigned_abs() % 1000);
    let text = if ms == 0 { format!("{sign}{seconds}") } else { format!("{sign}{seconds}.{ms:03}") };
    out.push_str(&text);
    let reads_as = text.parse::<f64>().map(|seconds| (seconds * 1000.0) as i64);
    if reads_as != Ok(time_ms) {
        out.push_str(if ms == 0 { ".0005" } else { "5" });
    }
}

/// Appends the lines that say what a family is. A unit that the family's name does not end in is
/// left out, as readers refuse it.
pub fn write_family(out: &mut String, family: &str, kind: MetricType, help: &str, unit: &str) {
    let name = match is_valid_metric_name(family) {
        true => family.to_owned(),
        false => format!("\"{}\"", escape(family)),
    };
    if !help.is_empty() {
        out.push_str(&format!("# HELP {name} {}\n", escape(help)));
    }
    out.push_str(&format!("# TYPE {name} {}\n", kind.as_str()));
    if !unit.is_empty() && family.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')) {
        out.push_str(&format!("# UNIT {name} {unit}\n"));
    }
}

/// Where the samples of a metric stand in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The family's name as the text has it: of a counter without its `_total`.
    pub family: String,
    /// The name under which something is known of it.
    pub known: Option<String>,
    pub kind: MetricType,
}

/// Endings that samples of a family may have.
const ENDINGS: [&str; 8] = ["", "_bucket", "_count", "_sum", "_created", "_gcount", "_gsum", "_total"];

/// Finds the family of a metric among those of which something is known. Where what is known does not
/// fit the name (a counter that does not end in `_total`, as other formats have them) its kind is
/// unknown, since readers would refuse it.
pub fn place_of(metric: &str, kind_of: &dyn Fn(&str) -> Option<MetricType>) -> Place {
    let place = |family: &str, known: &str, kind| Place {
        family: family.to_owned(),
        known: Some(known.to_owned()),
        kind,
    };
    let endings = ENDINGS.into_iter().chain(["_info"]);
    for ending in endings {
        let Some(known) = metric.strip_suffix(ending) else { continue };
        let Some(kind) = kind_of(known) else { continue };
        if takes(kind, ending) {
            return place(known, known, kind);
        }
        if ending.is_empty() {
            let own = match kind {
                MetricType::Counter => metric.strip_suffix("_total"),
                MetricType::Info => metric.strip_suffix("_info"),
                _ => None,
            };
            return match own {
                Some(family) => place(family, metric, kind),
                None => place(metric, metric, MetricType::Unknown),
            };
        }
    }
    Place { family: metric.to_owned(), known: None, kind: MetricType::Unknown }
}

fn takes(kind: MetricType, ending: &str) -> bool {
    match kind {
        MetricType::Counter => matches!(ending, "_total" | "_created"),
        MetricType::Histogram => matches!(ending, "_bucket" | "_count" | "_sum" | "_created"),
        MetricType::GaugeHistogram => matches!(ending, "_bucket" | "_gcount" | "_gsum"),
        MetricType::Summary => matches!(ending, "" | "_count" | "_sum" | "_created"),
        MetricType::Info => ending == "_info",
        MetricType::Gauge | MetricType::Stateset | MetricType::Unknown => ending.is_empty(),
    }
}

/// Whether a series is the same to a reader that knows the family's kind: of histograms and summaries
/// readers write `le` and `quantile` anew.
pub fn keeps_labels(family: &str, kind: MetricType, labels: &Labels) -> bool {
    let Some(series) = series_text(labels) else { return false };
    let (mut lines, mut reader) = (String::new(), Reader::default());
    write_family(&mut lines, family, kind, "", "");
    write_line(&mut lines, &series, 0, 0.0, None);
    let said = lines.lines().map(|line| reader.read(line.as_bytes())).last();
    matches!(said, Some(Ok(Said::Sample(line))) if line.labels == *labels)
}

#[cfg(test)]
mod tests {
    use super::super::Word;
    use super::*;

    #[track_caller]
    fn check(metric: &str, known: &[(&str, MetricType)], expected: &str) {
        let kind_of = |name: &str| known.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
        let Place { family, known, kind } = place_of(metric, &kind_of);
        assert_eq!(format!("{family} {} {}", known.unwrap_or_default(), kind.as_str()), expected);
    }

    #[test]
    fn metrics_stand_under_the_family_that_their_name_fits() {
        use MetricType::{Counter, Gauge, Histogram, Info, Summary};
        check("up", &[], "up  unknown");
        check("up", &[("up", Gauge)], "up up gauge");
        check("requests_total", &[("requests", Counter)], "requests requests counter");
        check("requests_total", &[("requests_total", Counter)], "requests requests_total counter");
        check("requests", &[("requests", Counter)], "requests requests unknown");
        check("wait_bucket", &[("wait", Histogram)], "wait wait histogram");
        check("wait_bucket", &[("wait", Summary)], "wait_bucket  unknown");
        check("wait_sum", &[("wait", Summary)], "wait wait summary");
        check("wait", &[("wait", Summary)], "wait wait summary");
        check("wait", &[("wait", Histogram)], "wait wait unknown");
        check("wait_count", &[("wait", Summary), ("wait_count", Gauge)], "wait_count wait_count gauge");
        check("build_info", &[("build", Info)], "build build info");
        check("build_info", &[("build_info", Gauge)], "build_info build_info gauge");
    }

    #[test]
    fn families_are_written_as_readers_take_them() {
        let mut text = String::new();
        write_family(&mut text, "wait_seconds", MetricType::Histogram, "Waits\nin \"s\".", "seconds");
        write_family(&mut text, "a.b", MetricType::Gauge, "", "seconds");
        let expected = "# HELP wait_seconds Waits\\nin \\\"s\\\".\n# TYPE wait_seconds histogram\n\
                        # UNIT wait_seconds seconds\n# TYPE \"a.b\" gauge\n";
        assert_eq!(text, expected);
        let mut reader = Reader::default();
        let said: Vec<_> = text.lines().map(|line| reader.read(line.as_bytes())).collect();
        let help = Word::Help("Waits\nin \"s\".".to_owned());
        assert_eq!(said[0], Ok(Said::Word { family: "wait_seconds".to_owned(), word: help }));
        let kind = Word::Kind(MetricType::Gauge);
        assert_eq!(said[3], Ok(Said::Word { family: "a.b".to_owned(), word: kind }));
        assert!(said.iter().all(|said| matches!(said, Ok(Said::Word { .. }))), "{said:?}");
    }

    #[test]
    fn a_kind_that_would_change_labels_is_found_out() {
        let bucket = |le| Labels::from_pairs([("__name__", "wait_bucket"), ("le", le)]);
        assert!(keeps_labels("wait", MetricType::Histogram, &bucket("1.0")));
        assert!(keeps_labels("wait", MetricType::Histogram, &bucket("+Inf")));
        assert!(!keeps_labels("wait", MetricType::Histogram, &bucket("1")));
        assert!(keeps_labels("wait_bucket", MetricType::Gauge, &bucket("1")));
    }
}
