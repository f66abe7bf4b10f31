//! Documents from a file: the mounted ConfigMap in a cluster, the user's own file elsewhere.

use std::{io::ErrorKind, path::PathBuf, sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::{trace, warn};

use super::Documents;
use crate::source::Source;

/// The pause between two reads of the file. It is small and, if it is a mounted ConfigMap, in memory.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Follows the file without end. It may be absent: kubelet mounts a ConfigMap some time after its creation.
pub async fn follow(path: PathBuf, documents: Arc<Documents>) {
    let mut seen = None;
    loop {
        let now = look(&path).await;
        if now != seen {
            if let Some(text) = &now {
                documents.offer(text, Source::File);
            }
            seen = now;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Reads the file once.
pub async fn look(path: &PathBuf) -> Option<String> {
    match tokio::fs::read_to_string(path).await {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            trace!(file = %path.display(), "no document file yet");
            None
        }
        Err(error) => {
            warn!(file = %path.display(), %error, "failed to read the document file");
            None
        }
    }
}
