//! The keyring's file: read only if nobody but the server can, made at most once.

use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};
use zeroize::Zeroizing;

/// No keyring is larger, in bytes: room for thousands of generations.
const LARGEST: u64 = 1 << 20;

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

    /// The stamp of the file at `path`; `None` if there is none or it can't be asked for.
    pub fn read(path: &Path) -> Option<Self> {
        fs::symlink_metadata(path).ok().as_ref().map(Self::of)
    }
}

/// Why a keyring's file is not used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is no such file.
    #[error("it does not exist")]
    Missing,
    /// A link, a directory, a device, a socket or a pipe.
    #[error("it is {0}, not a regular file")]
    NotAFile(&'static str),
    /// Somebody else owns it.
    #[error("it belongs to user id {owner}, not to the server's user id {server}")]
    Owner {
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        server: u32,
    },
    /// Group or others may do something with it.
    #[error("its mode {0:04o} lets others than its owner at it")]
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

/// Reads the whole file, with the stamp of what was read, after checking that it is a regular file
/// of the server's user (`geteuid`) that nobody else may read or write.
pub fn read(path: &Path) -> Result<(Zeroizing<Vec<u8>>, Stamp), KeyFileError> {
    // Never follow a link to the file itself; never wait for the other end of a pipe.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::LOOP) => return Err(KeyFileError::NotAFile("a symbolic link")),
        Err(rustix::io::Errno::NOENT) => return Err(KeyFileError::Missing),
        Err(rustix::io::Errno::NXIO) => return Err(KeyFileError::NotAFile("a socket or a device")),
        Err(error) => {
            // Somebody else's file can't be opened: say whose it is rather than that.
            if let Ok(meta) = fs::symlink_metadata(path) {
                check(&meta)?;
            }
            return Err(failed("it can't be opened")(error.into()));
        }
    };
    let meta = file.metadata().map_err(failed("its attributes can't be read"))?;
    check(&meta)?;
    // One byte more than there is, so that the vector never grows: growing leaves copies of keys.
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0) + 1));
    (&mut file).take(meta.len()).read_to_end(&mut text).map_err(failed("it can't be read"))?;
    Ok((text, Stamp::of(&meta)))
}

fn check(meta: &fs::Metadata) -> Result<(), KeyFileError> {
    if !meta.is_file() {
        return Err(KeyFileError::NotAFile(if meta.is_dir() { "a directory" } else { "a device or a pipe" }));
    }
    let server = rustix::process::geteuid().as_raw();
    if meta.uid() != server {
        return Err(KeyFileError::Owner { owner: meta.uid(), server });
    }
    if meta.mode() & 0o077 != 0 {
        return Err(KeyFileError::Mode(meta.mode() & 0o7777));
    }
    if meta.len() > LARGEST {
        return Err(KeyFileError::Large);
    }
    Ok(())
}

/// Writes a new file with mode 0600, whole and durable, unless there is one: `false` then, and the
/// one that is there stays as it is, also when many try at once.
pub fn create(path: &Path, text: &[u8]) -> Result<bool, KeyFileError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = Temporary::beside(path);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = rustix::fs::open(&temporary.0, flags, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .map_err(|error| failed("a file can't be made beside it")(error.into()))?;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(failed("it can't be written"))?;
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
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("its folder can't be synced"))?;
    Ok(true)
}

/// A temporary file's path; the file is removed when this goes, if it is still there.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let temporary = Self(name.into());
        temporary.remove(); // left by a process of that id that was killed
        temporary
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
        assert!(matches!(read(&at("link")), Err(KeyFileError::NotAFile("a symbolic link"))));
        for mode in [0o604, 0o640, 0o620, 0o601] {
            fs::set_permissions(at("keyring"), fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read(&at("keyring")), Err(KeyFileError::Mode(found)) if found == mode));
        }
        fs::set_permissions(at("keyring"), fs::Permissions::from_mode(0o400)).unwrap();
        assert!(read(&at("keyring")).is_ok());
    }
}
