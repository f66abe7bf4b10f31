//! Files in memory in which a process hands over what does not fit into a record. They are sealed: nobody can change or cut
//! one while it is being read, not even its writer.

use std::{
    fs::File,
    io::{self, Write},
    os::{fd::OwnedFd, unix::fs::FileExt},
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create},
    io::Errno,
};

use crate::net::spare;

/// Nobody can change what was written.
const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK);

/// Why a file cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is larger than the reader takes.
    #[error("the file has {bytes} bytes, more than {limit}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The most that is read.
        limit: usize,
    },
    /// The received file is shorter or longer than its record says.
    #[error("the file has {bytes} bytes, and {announced} were announced")]
    OtherLength {
        /// What the record says.
        announced: u64,
        /// The length of the file.
        bytes: u64,
    },
    /// The received file could change while it is read.
    #[error("the file is not sealed")]
    NotSealed,
    /// The kernel refuses the call.
    #[error("failed to use a file in memory")]
    File(#[from] io::Error),
}

/// A sealed file with this content. `/proc/PID/fd` shows the name.
pub fn write<'a>(name: &str, content: impl IntoIterator<Item = &'a [u8]>) -> io::Result<OwnedFd> {
    let mut file = File::from(spare::with(|| new_file(name))?);
    for part in content {
        file.write_all(part)?;
    }
    fcntl_add_seals(&file, SEALS | SealFlags::SEAL)?;
    Ok(file.into())
}

/// The content of a sealed file of this length, at most `limit`. The file's offset is not used, because all duplicates share
/// it.
pub fn read(descriptor: OwnedFd, announced: u64, limit: usize) -> Result<Vec<u8>, Error> {
    let is_sealed = fcntl_get_seals(&descriptor).is_ok_and(|seals| seals.contains(SEALS));
    if !is_sealed {
        return Err(Error::NotSealed);
    }
    let file = File::from(descriptor);
    let bytes = file.metadata()?.len();
    if bytes != announced {
        return Err(Error::OtherLength { announced, bytes });
    }
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    if length > limit {
        return Err(Error::TooLarge { bytes, limit });
    }
    let mut content = vec![0; length];
    file.read_exact_at(&mut content, 0)?;
    Ok(content)
}

/// A new file in memory. From Linux 6.3 on a node may forbid those that could be executed (`vm.memfd_noexec`); kernels
/// before it do not know the flag that says so.
fn new_file(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => Ok(memfd_create(name, flags)?),
        file => Ok(file?),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;

    const NAME: &str = "trivet-test";
    const CONTENT: &[u8] = b"content";
    const LIMIT: usize = 1 << 20;

    fn file(seals: SealFlags) -> OwnedFd {
        let mut file = File::from(new_file(NAME).unwrap());
        file.write_all(CONTENT).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        file.into()
    }

    fn refusal(file: OwnedFd) -> Error {
        let file = File::from(file);
        let bytes = file.metadata().unwrap().len();
        read(file.into(), bytes, LIMIT).unwrap_err()
    }

    #[test]
    fn every_receiver_reads_what_was_written() {
        let file = write(NAME, [b"con".as_slice(), b"tent"]).unwrap();
        for _receiver in 0..2 {
            assert_eq!(read(file.try_clone().unwrap(), 7, 7).unwrap(), CONTENT);
        }
        let refused = read(file, 6, LIMIT).unwrap_err();
        assert!(matches!(refused, Error::OtherLength { .. }), "{refused:?}");
    }

    #[test]
    fn what_was_written_cannot_be_changed() {
        let mut file = File::from(write(NAME, [CONTENT]).unwrap());
        assert!(file.set_len(1).is_err());
        assert!(file.set_len(1 << 20).is_err());
        file.rewind().unwrap();
        assert!(file.write_all(b"x").is_err());
        let mut whole = Vec::new();
        file.read_to_end(&mut whole).unwrap();
        assert_eq!(whole, CONTENT);
    }

    #[test]
    fn a_file_that_could_change_is_refused() {
        for missing in [SealFlags::WRITE, SealFlags::GROW, SealFlags::SHRINK] {
            let refused = refusal(file(SEALS.difference(missing)));
            assert!(matches!(refused, Error::NotSealed), "{refused:?}");
        }
        let mut usual = tempfile::tempfile().unwrap();
        usual.write_all(CONTENT).unwrap();
        for other in [usual.into(), io::pipe().unwrap().0.into()] {
            let refused = refusal(other);
            assert!(matches!(refused, Error::NotSealed), "{refused:?}");
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_unread() {
        let huge = File::from(new_file(NAME).unwrap());
        huge.set_len(1 << 40).unwrap();
        fcntl_add_seals(&huge, SEALS).unwrap();
        let refused = refusal(huge.into());
        assert!(
            matches!(refused, Error::TooLarge { bytes, .. } if bytes == 1 << 40),
            "{refused:?}"
        );
    }
}
