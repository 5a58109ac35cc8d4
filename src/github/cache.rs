//! ETags and their values, in memory and in a file.
//!
//! A 304 to a conditional request does not count against the rate limit (contract §4), and needs no parsing: the value
//! read earlier is kept, reduced to what we use. The file only speeds up the first pass after a restart, so losing it
//! is harmless. It contains no secret: a hash identifies the credentials of an ETag.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    io::{BufWriter, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{
    bodies::{Bodies, Mark},
    wire::Page,
};

/// The format version of the file. Other versions are ignored.
const VERSION: u32 = 2;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// The maximum number of entries. The least recently used are dropped first. At about a kilobyte each, that
/// is 20 MB.
const MAX_ENTRIES: usize = 20_000;

/// Larger pages are not cached, in bytes. A page of 100 jobs has 30 kB, unless a stranger chose their labels.
const MAX_ENTRY: usize = 128 * 1024;

/// An entry is dropped after it has not been used for this long and for [`UNUSED_PASSES`] passes. In cold repositories,
/// waiting runs are requested every 6 hours.
const UNUSED: Duration = Duration::from_secs(7 * 3600);

/// See [`UNUSED`].
const UNUSED_PASSES: u64 = 3;

/// An older temporary file belongs to a process that has ended.
const LEFT_OVER: Duration = Duration::from_secs(3600);

/// The cache entry of one URL.
#[derive(Clone)]
struct Entry {
    etag: String,
    proof: Option<Proof>,
    next: Option<String>,
    held: Held,
    used_at: Instant,
    used_in: u64,
}

/// The content of a page.
#[derive(Clone)]
enum Held {
    /// JSON: it came from the file and has not been used yet.
    Text(Arc<RawValue>),
    /// The value, and how to convert it to JSON. Storing both would take twice the memory.
    Value(Arc<dyn Any + Send + Sync>, AsText),
}

type AsText = fn(&(dyn Any + Send + Sync)) -> Option<Box<RawValue>>;

fn as_text<T: Page>(value: &(dyn Any + Send + Sync)) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(value.downcast_ref::<T>()?).ok()
}

impl Held {
    fn text(&self) -> Option<Box<RawValue>> {
        match self {
            Held::Text(text) => Some(RawValue::to_owned(text)),
            Held::Value(value, as_text) => as_text(value.as_ref()),
        }
    }
}

/// A line of the file that has not been written yet.
struct Line {
    key: String,
    etag: String,
    proof: Option<Proof>,
    next: Option<String>,
    held: Held,
}

impl Line {
    fn entry(self) -> Option<CacheEntry> {
        let (url, who) = self.key.rsplit_once(' ')?;
        Some(CacheEntry {
            url: url.to_owned(),
            who: who.to_owned(),
            etag: self.etag,
            made_of: self.proof.map(|proof| (format!("{:016x}", proof.token), proof.body.name())),
            next: self.next,
            value: self.held.text()?,
        })
    }
}

/// Counts the bytes that are written, and discards them.
#[derive(Default)]
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Proof that an ETag was computed in GitHub's way, from a token and a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// The token: the beginning of its SHA-256.
    pub token: u64,
    /// The body.
    pub body: Mark,
}

/// A cached page.
#[derive(Debug)]
pub struct Known<T> {
    /// Sent as `if-none-match`.
    pub etag: String,
    /// What it was computed from, if that is known.
    pub proof: Option<Proof>,
    /// The target of its `next` link.
    pub next: Option<String>,
    /// The content.
    pub value: Arc<T>,
}

/// Where the cache is kept across restarts.
#[derive(Clone, Debug, Default)]
pub enum CacheStore {
    /// Nowhere.
    #[default]
    None,
    /// In a file.
    File(PathBuf),
    /// In a file that is only read, for commands that change nothing.
    ReadFile(PathBuf),
    /// In memory that outlives the adapter, in the file's format. For simulations, where nothing may block.
    Memory(Arc<Mutex<Vec<u8>>>),
}

impl CacheStore {
    pub fn memory() -> Self {
        Self::Memory(Arc::default())
    }

    /// The number of bytes in memory; 0 for other stores.
    pub fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.lock().unwrap_or_else(PoisonError::into_inner).len(),
            Self::None | Self::File(_) | Self::ReadFile(_) => 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read(&self) -> Result<Vec<CacheEntry>, String> {
        match self {
            Self::None => Ok(Vec::new()),
            Self::File(path) | Self::ReadFile(path) => read_cache(path),
            Self::Memory(bytes) => match bytes.lock().unwrap_or_else(PoisonError::into_inner).as_slice() {
                [] => Ok(Vec::new()),
                text => parse_cache(text),
            },
        }
    }

    async fn write(&self, lines: Vec<Line>) -> Result<(), String> {
        match self {
            Self::None | Self::ReadFile(_) => Ok(()),
            Self::File(path) => {
                let path = path.clone();
                let written = tokio::task::spawn_blocking(move || write_cache(&path, lines)).await;
                written.unwrap_or_else(|error| Err(error.to_string()))
            }
            Self::Memory(bytes) => {
                let mut text = Vec::new();
                write_lines(&mut text, lines).map_err(|error| error.to_string())?;
                *bytes.lock().unwrap_or_else(PoisonError::into_inner) = text;
                Ok(())
            }
        }
    }
}

/// The cache.
pub struct Cache {
    store: CacheStore,
    state: Mutex<State>,
    /// The bodies from which ETags can be recomputed.
    pub bodies: Bodies,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    pass: u64,
    changed: bool,
    /// The last failure to write, so that it is logged once.
    failure: Option<String>,
}

/// A cache entry, for display.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CacheEntry {
    /// The full URL.
    pub url: String,
    /// A hash of the credentials of the ETag.
    pub who: String,
    /// The ETag.
    pub etag: String,
    /// The hashes of the token and the body that it was computed from, if they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_of: Option<(String, String)>,
    /// The next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The response, reduced to what is used.
    pub value: Box<RawValue>,
}

#[derive(Deserialize)]
struct File {
    version: u32,
    entries: Vec<CacheEntry>,
}

impl Cache {
    /// A cache with the contents of its store. A missing file is empty; an unusable one is ignored with a
    /// warning.
    pub fn open(store: CacheStore) -> Self {
        let mut state = State::default();
        match store.read() {
            Ok(entries) => {
                let now = Instant::now();
                for entry in entries.into_iter().take(MAX_ENTRIES) {
                    let key = key(&entry.who, &entry.url);
                    let held = Held::Text(Arc::from(entry.value));
                    let (etag, next, proof) = (entry.etag, entry.next, entry.made_of.and_then(proof_of));
                    state.entries.insert(key, Entry { etag, proof, next, held, used_at: now, used_in: 0 });
                }
            }
            Err(error) => tracing::warn!("ignoring the cache file: {error}"),
        }
        let bodies = match &store {
            CacheStore::None => Bodies::nowhere(),
            CacheStore::Memory(_) => Bodies::in_memory(),
            CacheStore::File(path) => Bodies::beside(path),
            CacheStore::ReadFile(path) => Bodies::read_only_beside(path),
        };
        Self { store, state: Mutex::new(state), bodies }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many pages are cached.
    pub fn len(&self) -> usize {
        self.state().entries.len()
    }

    /// The cached page of a URL for these credentials.
    pub fn get<T: Page>(&self, who: &str, url: &str) -> Option<Known<T>> {
        let key = key(who, url);
        let mut state = self.state();
        let pass = state.pass;
        let entry = state.entries.get_mut(&key)?;
        if let Held::Text(text) = &entry.held {
            match serde_json::from_str::<T>(text.get()) {
                Ok(value) => entry.held = Held::Value(Arc::new(value), as_text::<T>),
                Err(_) => {
                    state.entries.remove(&key);
                    return None;
                }
            }
        }
        entry.used_at = Instant::now();
        entry.used_in = pass;
        let Held::Value(value, _) = &entry.held else { return None };
        let value = Arc::clone(value).downcast::<T>().ok()?;
        Some(Known { etag: entry.etag.clone(), proof: entry.proof, next: entry.next.clone(), value })
    }

    /// The server has accepted this ETag for the cached page of a URL.
    pub fn renew(&self, who: &str, url: &str, etag: &str, proof: Proof) {
        let mut state = self.state();
        if let Some(entry) = state.entries.get_mut(&key(who, url)) {
            entry.etag = etag.to_owned();
            entry.proof = Some(proof);
            state.changed = true;
        }
    }

    /// Caches a response.
    pub fn put<T: Page>(
        &self,
        who: &str,
        url: &str,
        etag: (&str, Option<Proof>),
        next: Option<&str>,
        value: &Arc<T>,
    ) {
        if matches!(self.store, CacheStore::File(_) | CacheStore::Memory(_)) {
            let mut length = Length::default();
            // Keeping it would cost more than a 304 saves.
            if serde_json::to_writer(&mut length, value.as_ref()).is_err() || length.0 > MAX_ENTRY {
                return;
            }
        }
        let mut state = self.state();
        let entry = Entry {
            etag: etag.0.to_owned(),
            proof: etag.1,
            next: next.map(str::to_owned),
            held: Held::Value(value.clone(), as_text::<T>),
            used_at: Instant::now(),
            used_in: state.pass,
        };
        state.entries.insert(key(who, url), entry);
        state.changed = true;
    }

    /// Drops the URLs with this prefix.
    pub fn forget(&self, beginning: &str) {
        let mut state = self.state();
        let keys: Vec<String> = state
            .entries
            .range(beginning.to_owned()..)
            .map(|(key, _)| key.clone())
            .take_while(|key| key.starts_with(beginning))
            .collect();
        state.changed |= !keys.is_empty();
        for key in keys {
            state.entries.remove(&key);
        }
    }

    /// Ends a pass: drops unused entries, and writes the file if anything changed. If the file cannot be written, a
    /// warning is logged once.
    pub async fn end_pass(&self) {
        let lines = {
            let mut state = self.state();
            state.evict();
            state.pass += 1;
            if matches!(self.store, CacheStore::None | CacheStore::ReadFile(_)) || !state.changed {
                return;
            }
            state.lines()
        };
        let failure = self.store.write(lines).await.err();
        let used = self.state().bodies();
        self.bodies.retain(&used).await;
        let mut state = self.state();
        if let Some(error) = &failure
            && state.failure.as_ref() != Some(error)
        {
            tracing::warn!("cannot write the cache file, so the next start is slower: {error}");
        }
        state.changed = failure.is_some();
        state.failure = failure;
    }
}

impl State {
    fn evict(&mut self) {
        let pass = self.pass;
        let before = self.entries.len();
        self.entries.retain(|_, entry| {
            entry.used_at.elapsed() < UNUSED || pass.saturating_sub(entry.used_in) <= UNUSED_PASSES
        });
        if self.entries.len() > MAX_ENTRIES {
            let mut used: Vec<Instant> = self.entries.values().map(|entry| entry.used_at).collect();
            used.sort_unstable();
            let oldest_kept = used[used.len() - MAX_ENTRIES];
            self.entries.retain(|_, entry| entry.used_at >= oldest_kept);
        }
        self.changed |= self.entries.len() != before;
    }

    fn bodies(&self) -> BTreeSet<Mark> {
        self.entries.values().filter_map(|entry| Some(entry.proof?.body)).collect()
    }

    fn lines(&self) -> Vec<Line> {
        let line = |(key, entry): (&String, &Entry)| Line {
            key: key.clone(),
            etag: entry.etag.clone(),
            proof: entry.proof,
            next: entry.next.clone(),
            held: entry.held.clone(),
        };
        self.entries.iter().map(line).collect()
    }
}

fn proof_of((token, body): (String, String)) -> Option<Proof> {
    Some(Proof { token: u64::from_str_radix(&token, 16).ok()?, body: Mark::parse(&body)? })
}

fn key(who: &str, url: &str) -> String {
    format!("{url} {who}")
}

/// The entries of a cache file; none if there is no file. Only a regular file owned by our user is read: a pipe would
/// block, and the content of another user's file would influence what runs.
///
/// # Errors
/// A text for display if it cannot be read or is not a cache file of this version.
pub fn read_cache(path: &Path) -> Result<Vec<CacheEntry>, String> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let options = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, options, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(error) if error == Errno::NOENT => return Ok(Vec::new()),
        // A socket, or a pipe without a reader.
        Err(error) if error == Errno::NXIO => return Err(fail(&"not a regular file")),
        Err(error) => return Err(fail(&std::io::Error::from(error))),
    };
    let metadata = file.metadata().map_err(|error| fail(&error))?;
    if !metadata.is_file() {
        return Err(fail(&"not a regular file"));
    }
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us {
        return Err(fail(&format_args!(
            "belongs to user {}, and this process runs as user {us}",
            metadata.uid()
        )));
    }
    let mut text = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(|error| fail(&error))?;
    if text.len() as u64 > MAX_FILE {
        return Err(fail(&"larger than any file that this program writes"));
    }
    parse_cache(&text).map_err(|error| fail(&error))
}

fn parse_cache(text: &[u8]) -> Result<Vec<CacheEntry>, String> {
    let file: File = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if file.version != VERSION {
        return Err(format!("version {} instead of {VERSION}", file.version));
    }
    Ok(file.entries)
}

/// Line by line: all lines together would take as much memory as the cache.
fn write_lines(out: &mut impl Write, lines: Vec<Line>) -> std::io::Result<()> {
    write!(out, "{{\"version\":{VERSION},\"entries\":[")?;
    for (at, entry) in lines.into_iter().filter_map(Line::entry).enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        serde_json::to_writer(&mut *out, &entry)?;
    }
    out.write_all(b"]}")
}

/// Writes the file atomically: a temporary file next to it, synced, then renamed.
fn write_cache(path: &Path, lines: Vec<Line>) -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(|error| fail(&error))?;
    let name = path.file_name().ok_or_else(|| fail(&"has no file name"))?.to_string_lossy();
    let (prefix, suffix) = (format!(".{name}."), ".new");
    remove_left_over(directory, &prefix, suffix);
    // The name is unpredictable, and the file must be new: an existing one could be a link to someone's file.
    let write = move || -> std::io::Result<()> {
        // tempfile's errors include the file's random name. It is removed, so that the same problem is logged
        // only once.
        let made = tempfile::Builder::new().prefix(&prefix).suffix(suffix).tempfile_in(directory);
        let mut file = made.map_err(|error| std::io::Error::from(error.kind()))?;
        let mut out = BufWriter::new(file.as_file_mut());
        write_lines(&mut out, lines)?;
        out.flush()?;
        drop(out);
        file.as_file().sync_all()?;
        // Renaming onto a directory fails.
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error| fail(&error))
}

/// Removes what a process left that was killed while it wrote. Another process may be writing now, so only old files
/// are removed.
fn remove_left_over(directory: &Path, prefix: &str, suffix: &str) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_one = name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(suffix));
        let Some(metadata) = entry.metadata().ok().filter(|metadata| is_one && metadata.is_file()) else {
            continue;
        };
        let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > LEFT_OVER) {
            // A file that cannot be removed does no harm.
            std::fs::remove_file(entry.path()).ok();
        }
    }
}
