//! Label sets: immutable, sorted, cheap to clone and to compare.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::{METRIC_NAME, quote};

/// A label set in its canonical form: sorted by name, no name twice, no empty value.
///
/// One allocation holds all of it, and equal sets have equal bytes, so equality and hashing
/// are of bytes. The layout of the text is, for each label in order:
///
/// ```text
/// len  name   len  value
/// ```
///
/// where `len` is one byte below 0x7f, or 0x7f followed by four bytes of seven bits each,
/// most significant first. All length bytes are ASCII, so the whole stays valid UTF-8.
#[derive(Clone)]
pub struct Labels {
    text: Arc<str>,
}

const LONG: u8 = 0x7f;

impl Labels {
    pub fn empty() -> Labels {
        Labels { text: Arc::from("") }
    }

    /// Builds a set from pairs in any order. Labels with an empty value are dropped, as in
    /// Prometheus an empty value means that the label is absent; of two labels with one name
    /// the later wins.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Labels {
        let mut builder = LabelsBuilder::new();
        for (name, value) in pairs {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.build()
    }

    /// Builds a set from pairs that are sorted by name already, without duplicates or empty
    /// values. Asserts so in debug builds.
    pub fn from_sorted<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Labels {
        let size = pairs.clone().map(|(n, v)| n.len() + v.len() + 2).sum();
        let mut text = String::with_capacity(size);
        let mut previous: Option<&str> = None;
        for (name, value) in pairs {
            debug_assert!(previous.is_none_or(|p| p < name), "label names ascend");
            debug_assert!(!value.is_empty(), "no empty label value");
            previous = Some(name);
            push_part(&mut text, name);
            push_part(&mut text, value);
        }
        Labels { text: Arc::from(text) }
    }

    /// The canonical bytes, as described at [`Labels`].
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Labels in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        Iter { rest: &self.text }
    }

    /// The value of `name`, if the set has it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    pub fn metric_name(&self) -> Option<&str> {
        self.get(METRIC_NAME)
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The same set without the labels for which `drop` holds. Clones when none does.
    pub fn without(&self, mut drop: impl FnMut(&str) -> bool) -> Labels {
        let keep: Vec<(&str, &str)> = self.iter().filter(|(n, _)| !drop(n)).collect();
        if keep.len() == self.len() {
            return self.clone();
        }
        Labels::from_sorted(keep.iter().copied())
    }

    pub fn without_metric_name(&self) -> Labels {
        self.without(|name| name == METRIC_NAME)
    }

    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }
}

fn push_part(text: &mut String, part: &str) {
    let len = part.len();
    if len < usize::from(LONG) {
        text.push(len as u8 as char);
    } else {
        assert!(len < 1 << 28, "a label's name or value is below 256 MiB");
        text.push(LONG as char);
        for shift in [21, 14, 7, 0] {
            text.push((len >> shift & 0x7f) as u8 as char);
        }
    }
    text.push_str(part);
}

#[derive(Clone)]
struct Iter<'a> {
    rest: &'a str,
}

impl<'a> Iter<'a> {
    fn part(&mut self) -> &'a str {
        let bytes = self.rest.as_bytes();
        let (len, start) = if bytes[0] < LONG {
            (usize::from(bytes[0]), 1)
        } else {
            (bytes[1..5].iter().fold(0, |len, b| len << 7 | usize::from(*b)), 5)
        };
        let part = &self.rest[start..start + len];
        self.rest = &self.rest[start + len..];
        part
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let name = self.part();
        Some((name, self.part()))
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Labels {}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.text.as_bytes());
    }
}

/// Order of Prometheus' `labels.Compare`: pair by pair, a prefix first.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// `{a="b", c="d"}` with Go's quoting, as Prometheus prints a label set; names that are not
/// legacy identifiers are quoted.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if is_valid_legacy_name(name) {
                write!(f, "{name}={}", quote(value))?;
            } else {
                write!(f, "{}={}", quote(name), quote(value))?;
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Default for Labels {
    fn default() -> Self {
        Labels::empty()
    }
}

/// A label set that is being changed: sorted pairs without empty values.
#[derive(Debug, Clone, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    pub fn new() -> LabelsBuilder {
        LabelsBuilder::default()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.position(name).ok().map(|i| self.pairs[i].1.as_str())
    }

    /// Sets `name` to `value`; an empty value removes the label.
    pub fn set(&mut self, name: &str, value: &str) {
        match (self.position(name), value.is_empty()) {
            (Ok(i), true) => drop(self.pairs.remove(i)),
            (Ok(i), false) => value.clone_into(&mut self.pairs[i].1),
            (Err(_), true) => {}
            (Err(i), false) => self.pairs.insert(i, (name.to_owned(), value.to_owned())),
        }
    }

    pub fn remove(&mut self, name: &str) {
        self.set(name, "");
    }

    /// Keeps the labels whose name satisfies `keep`.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.pairs.retain(|(name, _)| keep(name));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    pub fn build(&self) -> Labels {
        Labels::from_sorted(self.iter())
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name))
    }
}

/// Whether `name` is a valid label name in Prometheus 3: any UTF-8 but the empty text.
pub fn is_valid_label_name(name: &str) -> bool {
    !name.is_empty()
}

/// Whether `name` matches `[a-zA-Z_][a-zA-Z0-9_]*`, so that it needs no quotes as a label.
pub fn is_valid_legacy_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty()
        && !bytes[0].is_ascii_digit()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_have_equal_bytes_whatever_the_order_they_came_in() {
        let long = "v".repeat(70_000);
        let a = Labels::from_pairs([("b", "2"), ("a", "1"), ("empty", ""), ("z", &long)]);
        let b = Labels::from_pairs([("z", long.as_str()), ("a", "0"), ("b", "2"), ("a", "1")]);
        assert_eq!(a, b);
        assert_eq!(a.as_bytes(), b.as_bytes());
        assert_eq!(
            a.iter().map(|(n, v)| (n, v.len())).collect::<Vec<_>>(),
            [("a", 1), ("b", 1), ("z", 70_000)]
        );
        assert_eq!(a.get("z"), Some(long.as_str()));
        assert!(!a.has("empty"));
    }

    #[test]
    fn order_is_by_pair_and_a_prefix_comes_first() {
        let set = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied());
        assert!(set(&[("a", "1")]) < set(&[("a", "1"), ("b", "1")]));
        assert!(set(&[("a", "10")]) < set(&[("a", "9")]));
        assert!(set(&[("aa", "1")]) < set(&[("b", "1")]));
    }

    #[test]
    fn a_set_prints_as_prometheus_prints_it() {
        let labels = Labels::from_pairs([("le", "+Inf"), ("http.status", "a\"b\n")]);
        assert_eq!(labels.to_string(), r#"{"http.status"="a\"b\n", le="+Inf"}"#);
    }
}
