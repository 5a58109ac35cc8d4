//! The bodies of responses, from which their ETags are computed for another token. They are compressed, in a directory
//! beside the cache file.
//!
//! In memory, they would take many times what is used of them: 20 runs have 250 kB, or 10 kB compressed. Each is
//! identified by a hash of its content, so equal bodies are stored once. A broken or missing one only costs a request.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use miniz_oxide::{deflate::compress_to_vec, inflate::decompress_to_vec_with_limit};
use ring::digest::{SHA256, digest};
use rustix::fs::{Mode, OFlags};

/// Larger bodies are not stored, in bytes.
const MAX_BODY: usize = 2 * 1024 * 1024;

/// The maximum size of all bodies, compressed, in bytes. Further ones are not stored.
const MAX_ALL: usize = 128 * 1024 * 1024;

/// The fastest level. It still finds what the runs of one repository have in common.
const LEVEL: u8 = 1;

/// Identifies a body: the first half of its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark([u8; 16]);

impl Mark {
    pub fn of(body: &[u8]) -> Self {
        let mut mark = [0; 16];
        mark.copy_from_slice(&digest(&SHA256, body).as_ref()[..16]);
        Mark(mark)
    }

    /// From [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Self> {
        let number = u128::from_str_radix(name, 16).ok().filter(|_| name.len() == 32)?;
        Some(Mark(number.to_be_bytes()))
    }

    /// 32 hexadecimal digits.
    pub fn name(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Where bodies are stored.
#[derive(Debug, Clone)]
enum Place {
    Memory,
    Directory { path: PathBuf, writes: bool },
}

/// All stored bodies.
pub struct Bodies {
    place: Option<Place>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Compressed sizes, in bytes.
    sizes: BTreeMap<Mark, usize>,
    all: usize,
    /// The bodies, if they are in memory.
    compressed: BTreeMap<Mark, Vec<u8>>,
}

impl Kept {
    fn add(&mut self, mark: Mark, size: usize) {
        self.all += size;
        self.all -= self.sizes.insert(mark, size).unwrap_or_default();
    }

    fn remove(&mut self, mark: Mark) {
        self.all -= self.sizes.remove(&mark).unwrap_or_default();
        self.compressed.remove(&mark);
    }
}

impl Bodies {
    /// Stores nothing.
    pub fn nowhere() -> Self {
        Self { place: None, kept: Mutex::default() }
    }

    /// In memory.
    pub fn in_memory() -> Self {
        Self { place: Some(Place::Memory), kept: Mutex::default() }
    }

    /// In a directory beside the cache file.
    pub fn beside(cache: &Path) -> Self {
        Self::in_directory(cache, true)
    }

    /// The same, without changing it.
    pub fn read_only_beside(cache: &Path) -> Self {
        Self::in_directory(cache, false)
    }

    fn in_directory(cache: &Path, writes: bool) -> Self {
        let mut name = cache.file_name().unwrap_or_default().to_owned();
        name.push(".bodies");
        let path = cache.with_file_name(name);
        let mut kept = Kept::default();
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            let mark = entry.file_name().to_str().and_then(Mark::parse);
            if let (Some(mark), Ok(metadata)) = (mark, entry.metadata()) {
                kept.add(mark, usize::try_from(metadata.len()).unwrap_or(MAX_ALL));
            }
        }
        Self { place: Some(Place::Directory { path, writes }), kept: Mutex::new(kept) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether some may be kept at all.
    pub fn are_kept(&self) -> bool {
        matches!(&self.place, Some(Place::Memory | Place::Directory { writes: true, .. }))
    }

    /// The number of stored bodies.
    pub fn len(&self) -> usize {
        self.kept().sizes.len()
    }

    /// Stores a body. A failure costs requests later, but is not an error now.
    pub async fn keep(&self, mark: Mark, body: &[u8]) {
        if !self.are_kept() || body.len() > MAX_BODY || self.kept().sizes.contains_key(&mark) {
            return;
        }
        let room = MAX_ALL.saturating_sub(self.kept().all);
        let size = match self.place.clone() {
            Some(Place::Directory { path, .. }) => {
                let body = body.to_vec();
                let written = tokio::task::spawn_blocking(move || {
                    let compressed = compress_to_vec(&body, LEVEL);
                    let fits = compressed.len() <= room;
                    (fits && write(&path, mark, &compressed).is_ok()).then_some(compressed.len())
                });
                written.await.ok().flatten()
            }
            _ => {
                let compressed = compress_to_vec(body, LEVEL);
                let size = compressed.len();
                (size <= room).then(|| self.kept().compressed.insert(mark, compressed)).map(|_| size)
            }
        };
        if let Some(size) = size {
            self.kept().add(mark, size);
        }
    }

    /// A body, if it exists and is intact.
    pub async fn get(&self, mark: Mark) -> Option<Vec<u8>> {
        let compressed = match self.place.clone()? {
            Place::Memory => self.kept().compressed.get(&mark).cloned(),
            Place::Directory { path, .. } => {
                self.kept().sizes.get(&mark)?;
                tokio::task::spawn_blocking(move || read(&path, mark)).await.ok().flatten()
            }
        };
        let body = decompress_to_vec_with_limit(&compressed?, MAX_BODY).ok();
        body.filter(|body| Mark::of(body) == mark)
    }

    /// Drops all bodies except these.
    pub async fn retain(&self, used: &BTreeSet<Mark>) {
        let unused: Vec<Mark> = {
            let kept = self.kept();
            kept.sizes.keys().filter(|mark| !used.contains(mark)).copied().collect()
        };
        if !self.are_kept() || unused.is_empty() {
            return;
        }
        unused.iter().for_each(|mark| self.kept().remove(*mark));
        if let Some(Place::Directory { path, .. }) = self.place.clone() {
            // What cannot be removed is removed after the next start.
            let remove = move || unused.iter().for_each(|mark| drop(fs::remove_file(path.join(mark.name()))));
            tokio::task::spawn_blocking(remove).await.ok();
        }
    }
}

/// Writes a file atomically, first under an unpredictable name.
fn write(directory: &Path, mark: Mark, compressed: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(compressed)?;
    file.persist(directory.join(mark.name())).map_err(|error| error.error)?;
    Ok(())
}

/// The content of a regular file. A pipe would block.
fn read(directory: &Path, mark: Mark) -> Option<Vec<u8>> {
    let options = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = fs::File::from(rustix::fs::open(directory.join(mark.name()), options, Mode::empty()).ok()?);
    file.metadata().ok().filter(fs::Metadata::is_file)?;
    let mut compressed = Vec::new();
    file.take(MAX_BODY as u64 + 1024).read_to_end(&mut compressed).ok()?;
    Some(compressed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_survives_a_restart_and_is_dropped_when_unused() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("deep/cache.json");
        let body = vec![7; 100_000];
        let mark = Mark::of(&body);
        assert_eq!(Mark::parse(&mark.name()), Some(mark));
        let bodies = Bodies::beside(&cache);
        bodies.keep(mark, &body).await;
        assert_eq!(bodies.get(mark).await.as_ref(), Some(&body));
        let again = Bodies::read_only_beside(&cache);
        assert_eq!((again.len(), again.get(mark).await.as_ref()), (1, Some(&body)));
        again.retain(&BTreeSet::new()).await;
        assert_eq!(Bodies::beside(&cache).len(), 1, "a reader removes nothing");
        bodies.retain(&BTreeSet::from([mark])).await;
        assert_eq!(bodies.len(), 1);
        bodies.retain(&BTreeSet::new()).await;
        assert_eq!((bodies.len(), Bodies::beside(&cache).len()), (0, 0));
        assert_eq!(bodies.get(mark).await, None);
    }

    #[tokio::test]
    async fn broken_and_too_large_bodies_are_missing() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("cache.json");
        let bodies = Bodies::beside(&cache);
        let (one, other, huge) = (b"one".to_vec(), b"other".to_vec(), vec![0; MAX_BODY + 1]);
        bodies.keep(Mark::of(&one), &one).await;
        bodies.keep(Mark::of(&huge), &huge).await;
        assert_eq!(bodies.len(), 1);
        let file = directory.path().join("cache.json.bodies").join(Mark::of(&one).name());
        fs::write(&file, compress_to_vec(&other, LEVEL)).unwrap();
        assert_eq!(bodies.get(Mark::of(&one)).await, None);
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
        assert_eq!(bodies.get(Mark::of(&one)).await, None);
        let nowhere = Bodies::nowhere();
        nowhere.keep(Mark::of(&one), &one).await;
        assert_eq!((nowhere.len(), nowhere.get(Mark::of(&one)).await), (0, None));
    }
}
