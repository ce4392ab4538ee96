//! What was sent to a server and what it acknowledged. It is kept here, in the process of the test,
//! which no fault that the test makes can touch.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use anyhow::{Result, ensure};

use crate::remote::Contents;

#[derive(Debug, Default)]
pub struct Ledger {
    /// Written by those who send, read by the one who checks.
    entries: Mutex<BTreeMap<(String, i64), Entry>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    bits: u64,
    acknowledged: bool,
}

impl Ledger {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<(String, i64), Entry>> {
        self.entries.lock().expect("no panic while it is held")
    }

    /// Before it is sent.
    pub fn send(&self, samples: &Contents) {
        let mut entries = self.entries();
        for (key, bits) in samples {
            let before = entries.insert(key.clone(), Entry { bits: *bits, acknowledged: false });
            assert!(before.is_none(), "{key:?} is sent for the first time");
        }
    }

    /// After the server has said so.
    pub fn acknowledge(&self, samples: &Contents) {
        let mut entries = self.entries();
        for key in samples.keys() {
            entries.get_mut(key).expect("sent before").acknowledged = true;
        }
    }

    pub fn acknowledged(&self) -> Contents {
        let entries = self.entries();
        let acknowledged = entries.iter().filter(|(_, entry)| entry.acknowledged);
        acknowledged.map(|(key, entry)| (key.clone(), entry.bits)).collect()
    }

    /// acknowledged ⊆ read ⊆ sent, bit by bit. `acknowledged` is of the time before reading began.
    pub fn check(&self, acknowledged: &Contents, read: &Contents) -> Result<()> {
        let lost = acknowledged.iter().find(|(key, bits)| read.get(key) != Some(bits));
        ensure!(
            lost.is_none(),
            "{lost:?} was acknowledged; read {:?}",
            lost.and_then(|(key, _)| read.get(key))
        );
        let entries = self.entries();
        let is_sent =
            |key: &(String, i64), bits: u64| entries.get(key).is_some_and(|entry| entry.bits == bits);
        let invented = read.iter().find(|(key, bits)| !is_sent(key, **bits));
        ensure!(invented.is_none(), "{invented:?} was never sent");
        Ok(())
    }
}
