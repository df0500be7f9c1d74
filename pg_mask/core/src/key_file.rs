//! The keyring's file: read only if none but the server and root can, made at most once, replaced whole.

use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};
use zeroize::Zeroizing;

/// No keyring is larger, in bytes: room for thousands of generations.
const LARGEST: u64 = 1 << 20;

/// The user id of root.
const ROOT: u32 = 0;

/// Tells one state of a file from the next without reading it: any write, replacement or change of
/// mode or owner gives another stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp([i64; 9]);

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self([
            meta.dev().cast_signed(),
            meta.ino().cast_signed(),
            meta.size().cast_signed(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
            i64::from(meta.mode()),
            i64::from(meta.uid()),
        ])
    }

    /// The stamp of the file that `path` leads to; `None` if there is none or it can't be asked for.
    pub fn read(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::of)
    }
}

/// Why a keyring's file is not used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is no such file.
    #[error("it does not exist")]
    Missing,
    /// A directory, a device, a socket or a pipe.
    #[error("it is {0}, not a regular file")]
    NotAFile(&'static str),
    /// Another session changes it and does not come to an end.
    #[error("another session is changing it")]
    Locked,
    /// It belongs to root, who alone changes it.
    #[error("it belongs to root, and so only root can change it")]
    OfRoot,
    /// Another user than the server's and root owns it.
    #[error("it belongs to user id {owner}, neither to the server's user id {server} nor to root")]
    Owner {
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        server: u32,
    },
    /// Others may read or write it.
    #[error("its mode {0:04o} lets others than its owner and the server at it")]
    Mode(u32),
    /// Larger than any keyring.
    #[error("it is larger than {LARGEST} bytes")]
    Large,
    /// The system says no.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What came of it.
        source: io::Error,
    },
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> KeyFileError {
    move |source| KeyFileError::Io { action, source }
}

/// Reads the whole file, with the stamp of what was read, after checking who may read or write it: as
/// PostgreSQL asks of its TLS keys (manual, "Secure TCP/IP Connections with SSL"), it is a regular file
/// that belongs to the server's user (`geteuid`) with mode 0600 or less, or to root with mode 0640 or
/// less. Links are followed: what counts is the file that they lead to.
pub fn read(path: &Path) -> Result<(Zeroizing<Vec<u8>>, Stamp), KeyFileError> {
    let (mut file, meta) = open(path)?;
    // One byte more than there is, so that the vector never grows: growing leaves copies of keys.
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0) + 1));
    (&mut file).take(meta.len()).read_to_end(&mut text).map_err(failed("it can't be read"))?;
    Ok((text, Stamp::of(&meta)))
}

fn open(path: &Path) -> Result<(File, fs::Metadata), KeyFileError> {
    // Never wait for the other end of a pipe.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Err(KeyFileError::Missing),
        Err(rustix::io::Errno::NXIO) => return Err(KeyFileError::NotAFile("a socket or a device")),
        Err(error) => {
            // Another user's file can't be opened: say whose it is rather than that.
            if let Ok(meta) = fs::metadata(path) {
                check(&meta)?;
            }
            return Err(failed("it can't be opened")(error.into()));
        }
    };
    let meta = file.metadata().map_err(failed("its attributes can't be read"))?;
    check(&meta)?;
    Ok((file, meta))
}

fn check(meta: &fs::Metadata) -> Result<(), KeyFileError> {
    if !meta.is_file() {
        return Err(KeyFileError::NotAFile(if meta.is_dir() { "a directory" } else { "a device or a pipe" }));
    }
    let server = rustix::process::geteuid().as_raw();
    let open_to_others = match meta.uid() {
        owner if owner == server => 0o077,
        ROOT => 0o037, // a mounted secret: root's, and readable by the server's group
        owner => return Err(KeyFileError::Owner { owner, server }),
    };
    if meta.mode() & open_to_others != 0 {
        return Err(KeyFileError::Mode(meta.mode() & 0o7777));
    }
    if meta.len() > LARGEST {
        return Err(KeyFileError::Large);
    }
    Ok(())
}

/// A keyring's file that no other session changes meanwhile, for as long as this lives.
pub struct Locked {
    /// Where the file itself lies, behind any links.
    path: PathBuf,
    file: File,
    mode: Mode,
}

/// Locks the file that `path` leads to; `None` if another process has it locked right now.
pub fn lock(path: &Path) -> Result<Option<Locked>, KeyFileError> {
    loop {
        let path = match path.canonicalize() {
            Ok(path) => path,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(KeyFileError::Missing),
            Err(error) => return Err(failed("it can't be found")(error)),
        };
        let (file, meta) = open(&path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(failed("it can't be locked")(error.into())),
        }
        // Whoever had the lock before may have put another file in its place.
        if Stamp::read(&path) == Some(Stamp::of(&meta)) {
            return Ok(Some(Locked { path, file, mode: Mode::from_raw_mode(meta.mode() & 0o700) }));
        }
    }
}

impl Locked {
    /// The file's text.
    pub fn read(&self) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
        read(&self.path).map(|(text, _)| text)
    }

    /// Puts a file with another text in its place, whole and durable: a crash leaves one or the other.
    pub fn replace(self, text: &[u8]) -> Result<(), KeyFileError> {
        let owner = self.file.metadata().map_err(failed("its attributes can't be read"))?.uid();
        if owner != rustix::process::geteuid().as_raw() {
            return Err(KeyFileError::OfRoot);
        }
        // The lock is held, so what is left by a process that was killed here is found and removed.
        Temporary::write(&self.path, "new", text, self.mode)?.rename_over(&self.path)?;
        sync_folder(&self.path)
    }
}

/// Writes a new file with mode 0600, whole and durable, unless there is one: `false` then, and the
/// one that is there stays as it is, also when many try at once.
pub fn create(path: &Path, text: &[u8]) -> Result<bool, KeyFileError> {
    let temporary =
        Temporary::write(path, &format!("{}.new", std::process::id()), text, Mode::RUSR | Mode::WUSR)?;
    // A rename that never replaces: of many that come at once, one makes the keyring.
    match rustix::fs::renameat_with(
        rustix::fs::CWD,
        &temporary.0,
        rustix::fs::CWD,
        path,
        rustix::fs::RenameFlags::NOREPLACE,
    ) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => return Ok(false),
        Err(error) => return Err(failed("it can't be put in place")(error.into())),
    }
    sync_folder(path)?;
    Ok(true)
}

/// Makes what was renamed to `path` durable.
fn sync_folder(path: &Path) -> Result<(), KeyFileError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("its folder can't be synced"))
}

/// A temporary file's path; the file is removed when this goes, if it is still there.
struct Temporary(PathBuf);

impl Temporary {
    /// A file beside `path` that holds `text` and is durable; its name differs in its ending.
    fn write(path: &Path, ending: &str, text: &[u8], mode: Mode) -> Result<Self, KeyFileError> {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{ending}"));
        let temporary = Self(name.into());
        temporary.remove(); // left by a process that was killed
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = rustix::fs::open(&temporary.0, flags, mode)
            .map(File::from)
            .map_err(|error| failed("a file can't be made beside it")(error.into()))?;
        file.write_all(text).and_then(|()| file.sync_all()).map_err(failed("it can't be written"))?;
        Ok(temporary)
    }

    /// Puts it in the place of `path`. From then on its own name may be another session's.
    fn rename_over(mut self, path: &Path) -> Result<(), KeyFileError> {
        fs::rename(&self.0, path).map_err(failed("it can't be replaced"))?;
        self.0 = PathBuf::new(); // nothing is left to remove
        Ok(())
    }

    fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.0) {
            debug_assert_eq!(error.kind(), ErrorKind::NotFound);
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn reads_what_it_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyring");
        assert!(create(&path, b"first").unwrap());
        assert!(!create(&path, b"second").unwrap());
        let (text, stamp) = read(&path).unwrap();
        assert_eq!(*text, b"first");
        assert_eq!(Stamp::read(&path), Some(stamp));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn refuses_what_others_may_touch_and_what_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(matches!(read(&at("none")), Err(KeyFileError::Missing)));
        assert!(matches!(read(folder.path()), Err(KeyFileError::NotAFile("a directory"))));
        assert!(matches!(read(Path::new("/dev/zero")), Err(KeyFileError::NotAFile(_))));
        create(&at("keyring"), b"x").unwrap();
        symlink(at("keyring"), at("link")).unwrap();
        assert!(read(&at("link")).is_ok());
        symlink(at("none"), at("loose link")).unwrap();
        assert!(matches!(read(&at("loose link")), Err(KeyFileError::Missing)));
        for mode in [0o604, 0o640, 0o620, 0o601] {
            fs::set_permissions(at("keyring"), fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read(&at("keyring")), Err(KeyFileError::Mode(found)) if found == mode));
        }
        fs::set_permissions(at("keyring"), fs::Permissions::from_mode(0o400)).unwrap();
        assert!(read(&at("keyring")).is_ok());
    }

    #[test]
    fn is_replaced_behind_its_link_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("keyring"), folder.path().join("link"));
        create(&path, b"first").unwrap();
        symlink(&path, &link).unwrap();
        let locked = lock(&link).unwrap().unwrap();
        assert!(lock(&path).unwrap().is_none(), "it is locked");
        assert_eq!(*locked.read().unwrap(), b"first");
        let stamp = Stamp::read(&link);
        locked.replace(b"second").unwrap();
        assert_ne!(Stamp::read(&link), stamp);
        assert_eq!(*read(&link).unwrap().0, b"second");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(lock(&path).unwrap().is_some(), "it is free again");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
