//! The set of labels in a job's `runs-on`.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// A set of labels. Two sets are equal if they differ only in order, duplicates and case (contract github.md
/// §6). The spelling is kept for rendering.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// Lower-cased label to its spelling, the smallest in byte order if there are several. Shared, because thousands of
    /// jobs and runners have the same labels.
    spelling: Arc<BTreeMap<String, String>>,
}

impl Labels {
    pub fn new<I>(labels: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let mut set = Labels::default();
        for label in labels {
            set.insert(label.into());
        }
        set
    }

    /// Parses what [`Labels::joined`] wrote. nomadtools' `labelsstr` has the same format.
    pub fn from_joined(text: &str) -> Self {
        Labels::new(text.split(',').filter(|label| !label.is_empty()))
    }

    fn insert(&mut self, label: String) {
        use std::collections::btree_map::Entry;
        match Arc::make_mut(&mut self.spelling).entry(label.to_lowercase()) {
            Entry::Vacant(vacant) => {
                vacant.insert(label);
            }
            Entry::Occupied(mut occupied) => {
                if label < *occupied.get() {
                    occupied.insert(label);
                }
            }
        }
    }

    /// Adopts the spellings of an equal set where they are smaller, so that the order of jobs does not affect
    /// the result.
    pub fn merge_spelling(&mut self, other: &Labels) {
        if Arc::ptr_eq(&self.spelling, &other.spelling) {
            return;
        }
        for label in other.shown() {
            if self.spelling.contains_key(&label.to_lowercase()) {
                self.insert(label.to_owned());
            }
        }
    }

    /// The labels, lower-cased, sorted and without duplicates.
    pub fn key(&self) -> impl Iterator<Item = &str> {
        self.spelling.keys().map(String::as_str)
    }

    /// The labels as written, in the order of [`Labels::key`].
    pub fn shown(&self) -> impl Iterator<Item = &str> {
        self.spelling.values().map(String::as_str)
    }

    /// The labels as written, sorted and comma-separated.
    pub fn joined(&self) -> String {
        let mut labels: Vec<&str> = self.shown().collect();
        labels.sort_unstable();
        labels.join(",")
    }

    /// Whether all of them are among the others, whatever their case.
    pub fn is_subset(&self, of: &Labels) -> bool {
        self.spelling.keys().all(|label| of.spelling.contains_key(label))
    }

    pub fn is_empty(&self) -> bool {
        self.spelling.is_empty()
    }

    pub fn len(&self) -> usize {
        self.spelling.len()
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.spelling, &other.spelling) || self.key().eq(other.key())
    }
}

impl Eq for Labels {}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.spelling, &other.spelling) {
            return Ordering::Equal;
        }
        self.key().cmp(other.key())
    }
}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for label in self.key() {
            label.hash(state);
        }
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.joined())
    }
}
