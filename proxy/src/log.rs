//! The log's way to standard error. Its reader may be stuck or gone, which must not block forwarding: lines wait in a
//! bounded buffer for a thread that writes them. Lines that do not fit are dropped and counted.

use std::{
    convert::Infallible,
    io, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

use clap::ValueEnum;
use tracing_subscriber::fmt::MakeWriter;

use crate::metrics::Metrics;

/// The size of the buffer, about four thousand lines: enough for debug logs of many clients while a container runtime
/// restarts. At most the same amount again is being written.
const CAPACITY: usize = 1024 * 1024;

/// How long the exit waits for the last lines. A reader that has not taken them by then is stuck.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl LogFormat {
    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// The subscriber's writer. It never blocks and never fails.
#[derive(Clone, Debug)]
pub struct LogWriter(Arc<Queue>);

/// Keeps the writing thread; when dropped, it waits for the last lines.
#[derive(Debug)]
pub struct LogGuard {
    queue: Arc<Queue>,
    /// Carries no message: it closes when the thread ends.
    finished: mpsc::Receiver<Infallible>,
}

#[derive(Debug)]
struct Queue {
    pending: Mutex<PendingLines>,
    changed: Condvar,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct PendingLines {
    lines: Batch,
    ending: bool,
}

/// Complete lines.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    count: u64,
}

/// Starts the thread that writes to `out`.
pub fn start(
    out: impl io::Write + Send + 'static,
    metrics: Arc<Metrics>,
) -> io::Result<(LogWriter, LogGuard)> {
    let queue = Arc::new(Queue {
        pending: Mutex::default(),
        changed: Condvar::new(),
        metrics,
    });
    let (finish, finished) = mpsc::channel();
    let emptied = Arc::clone(&queue);
    thread::Builder::new().name("log".to_owned()).spawn(move || {
        emptied.write_out(out);
        drop(finish);
    })?;
    let guard = LogGuard {
        queue: Arc::clone(&queue),
        finished,
    };
    Ok((LogWriter(queue), guard))
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl io::Write for LogWriter {
    /// Takes a line as a whole or not at all; the subscriber writes one line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.queue.pending().ending = true;
        self.queue.changed.notify_one();
        // The thread has ended, or it is stuck and ends with the process.
        let _ended = self.finished.recv_timeout(FLUSH_LIMIT);
    }
}

impl Queue {
    fn push(&self, line: &[u8]) {
        let mut pending = self.pending();
        let lines = &mut pending.lines;
        if lines.bytes.len() + line.len() > CAPACITY {
            self.metrics.lines_lost(1);
            return;
        }
        lines.bytes.extend_from_slice(line);
        lines.count += 1;
        if lines.count == 1 {
            self.changed.notify_one();
        }
    }

    fn write_out(&self, mut out: impl io::Write) {
        while let Some(lines) = self.next() {
            if out.write_all(&lines.bytes).is_err() {
                // There is nowhere to report this. The next lines are written all the same: a reader may come back.
                self.metrics.lines_lost(lines.count);
            }
        }
    }

    /// Waits for lines; none once the guard is dropped and no line is left.
    fn next(&self) -> Option<Batch> {
        let idle = |pending: &mut PendingLines| pending.lines.count == 0 && !pending.ending;
        let mut pending = self
            .changed
            .wait_while(self.pending(), idle)
            .unwrap_or_else(PoisonError::into_inner);
        let lines = mem::take(&mut pending.lines);
        (lines.count > 0).then_some(lines)
    }

    fn pending(&self) -> MutexGuard<'_, PendingLines> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::metrics;

    const LINE: &[u8] = &[b'x'; 1024];

    fn lost(metrics: &Metrics) -> u64 {
        let text = metrics::encode(&metrics.registry());
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("trivet_proxy_log_lines_lost_total "));
        line.unwrap().parse().unwrap()
    }

    #[test]
    fn lines_before_the_end_are_written_in_order() {
        let metrics = Arc::new(Metrics::default());
        let (mut reader, out) = io::pipe().unwrap();
        let (mut writer, guard) = start(out, Arc::clone(&metrics)).unwrap();
        let lines: Vec<_> = (0..1000).map(|number| format!("line {number}\n")).collect();
        for line in &lines {
            writer.write_all(line.as_bytes()).unwrap();
        }
        drop(guard);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, lines.concat());
        assert_eq!(lost(&metrics), 0);
    }

    #[test]
    fn a_log_that_is_not_read_drops_lines_and_blocks_nothing() {
        let metrics = Arc::new(Metrics::default());
        let (_reader, out) = io::pipe().unwrap();
        let (mut writer, guard) = start(out, Arc::clone(&metrics)).unwrap();
        let said = 10 * CAPACITY / LINE.len();
        for _ in 0..said {
            writer.write_all(LINE).unwrap();
        }
        let kept = said as u64 - lost(&metrics);
        let most = 2 * CAPACITY / LINE.len() + 64;
        assert!(kept <= most as u64, "{kept} lines are in memory");
        // This must return.
        drop(guard);
    }

    #[test]
    fn lines_for_a_reader_that_is_gone_are_dropped_and_counted() {
        let metrics = Arc::new(Metrics::default());
        let (reader, out) = io::pipe().unwrap();
        drop(reader);
        let (mut writer, guard) = start(out, Arc::clone(&metrics)).unwrap();
        for _ in 0..100 {
            writer.write_all(LINE).unwrap();
        }
        drop(guard);
        assert_eq!(lost(&metrics), 100);
    }
}
