//! Warnings and infos that a query gathers on its way.

use std::collections::BTreeSet;

/// Messages for the person who asked, without duplicates. Texts and prefixes
/// (`PromQL warning: …`, `PromQL info: …`) are Prometheus'.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    pub warnings: BTreeSet<String>,
    pub infos: BTreeSet<String>,
}

impl Annotations {
    pub fn is_empty(&self) -> bool {
        self.warnings.is_empty() && self.infos.is_empty()
    }

    pub fn warn(&mut self, message: impl Into<String>) {
        self.warnings.insert(message.into());
    }

    pub fn info(&mut self, message: impl Into<String>) {
        self.infos.insert(message.into());
    }

    pub fn merge(&mut self, other: Annotations) {
        self.warnings.extend(other.warnings);
        self.infos.extend(other.infos);
    }
}
