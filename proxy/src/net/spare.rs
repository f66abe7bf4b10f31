//! Files that this process holds in reserve. A process that has used up its files could not finish what it has begun: dial
//! for a client that it has accepted, give its listeners away, or say in its report what is wrong.
//!
//! The limit is the process's, and so is the reserve. It is full before a client is accepted, and used one file at a time.

use std::{
    fs::File,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::errno::Errno;

/// Enough for the clients that are accepted before the reserve is found used, with their hedges, and for a report.
const RESERVE: usize = 16;

static FILES: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Fills the reserve. Returns whether it is full: if not, there is no other file left.
pub fn fill() -> bool {
    let mut files = files();
    while files.len() < RESERVE {
        match File::open("/dev/null") {
            Ok(file) => files.push(file),
            // Where there is no such file there is no reserve.
            Err(error) => return !is_exhausted(&error),
        }
    }
    true
}

/// Does what opens a file. Where none is left, it gets one of the reserve.
pub fn with<T>(mut opening: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match opening() {
            Err(error) if is_exhausted(&error) => {
                if files().pop().is_none() {
                    return Err(error);
                }
            }
            outcome => return outcome,
        }
    }
}

/// Whether this process, or the whole node, has no file left.
pub fn is_exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EMFILE | Errno::ENFILE)
    )
}

fn files() -> MutexGuard<'static, Vec<File>> {
    // A panic while the lock is held leaves the files valid.
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}
