//! The files that settings name. Only plain files of a sensible size are read: reading a pipe would
//! wait for its writer, and a device may never end.

use std::io::Read;
use std::path::Path;

/// Certificates of every authority that a machine trusts are less than half of that.
const LARGEST: u64 = 1 << 20;

/// Why a file can't be used; to be put after its name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("is not there")]
    Missing,
    #[error("is no plain file")]
    NotPlain,
    #[error("is larger than 1 MiB")]
    TooLarge,
    #[error("can't be read: {0}")]
    Unreadable(std::io::Error),
}

impl From<std::io::Error> for Unusable {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Unreadable(error),
        }
    }
}

/// The content of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Unusable> {
    // A link counts as what it leads to: secrets are often mounted as links.
    if !std::fs::metadata(path)?.is_file() {
        return Err(Unusable::NotPlain);
    }
    let mut content = Vec::new();
    std::fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST {
        return Err(Unusable::TooLarge);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_of_a_sensible_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("small"), "text").unwrap();
        std::os::unix::fs::symlink(path("small"), path("link")).unwrap();
        assert_eq!(read(&path("link")).unwrap(), b"text");
        std::fs::write(path("large"), vec![b'x'; 1 << 21]).unwrap();
        assert!(matches!(read(&path("large")), Err(Unusable::TooLarge)));
        assert!(matches!(read(&path("missing")), Err(Unusable::Missing)));
        assert!(matches!(read(folder.path()), Err(Unusable::NotPlain)));
        assert!(matches!(read(Path::new("/dev/zero")), Err(Unusable::NotPlain)));
        // Opening a pipe that has no writer would never return.
        let status = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(status.success());
        assert!(matches!(read(&path("pipe")), Err(Unusable::NotPlain)));
    }
}
