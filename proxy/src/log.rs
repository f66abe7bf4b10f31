//! The log's way to standard error. Who reads it may be stuck or gone, and neither may stop what is forwarded: lines wait
//! in a bounded buffer for a thread of their own, and what finds it full is lost and counted.

use std::{
    convert::Infallible,
    io, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

use crate::metrics::Metrics;

/// Bytes that wait, some four thousand lines: a storm of clients at level debug outlasts the pause of a container runtime
/// that restarts. As much again is on its way out at most.
const CAPACITY: usize = 1024 * 1024;

/// How long an exit waits for the last lines. A reader that has not taken them by then is stuck.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Where the subscriber writes to. It never waits and never fails.
#[derive(Clone, Debug)]
pub struct Writer(Arc<Queue>);

/// Keeps the log going; dropped, it lets the last lines out.
#[derive(Debug)]
pub struct Guard {
    queue: Arc<Queue>,
    /// Nothing is ever said: it ends with the thread.
    finished: mpsc::Receiver<Infallible>,
}

#[derive(Debug)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Batch,
    ending: bool,
}

/// Whole lines, one after the other.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    count: u64,
}

/// Starts the thread that writes to `out`.
pub fn start(out: impl io::Write + Send + 'static, metrics: Arc<Metrics>) -> io::Result<(Writer, Guard)> {
    let queue = Arc::new(Queue {
        waiting: Mutex::default(),
        changed: Condvar::new(),
        metrics,
    });
    let (finish, finished) = mpsc::channel();
    let emptied = Arc::clone(&queue);
    thread::Builder::new().name("log".to_owned()).spawn(move || {
        emptied.write_out(out);
        drop(finish);
    })?;
    let guard = Guard {
        queue: Arc::clone(&queue),
        finished,
    };
    Ok((Writer(queue), guard))
}

impl MakeWriter<'_> for Writer {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl io::Write for Writer {
    /// The subscriber writes a line at a time, and it is taken whole or not at all.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.queue.waiting().ending = true;
        self.queue.changed.notify_one();
        // The thread has ended, or it is stuck and ends with the process: either way nothing more can be done.
        let _ended = self.finished.recv_timeout(FLUSH_LIMIT);
    }
}

impl Queue {
    fn push(&self, line: &[u8]) {
        let mut waiting = self.waiting();
        let lines = &mut waiting.lines;
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
                // Nobody is there to be told; the next lines are tried all the same, for a reader may come back.
                self.metrics.lines_lost(lines.count);
            }
        }
    }

    /// Waits for lines; none once the guard is dropped and nothing is left.
    fn next(&self) -> Option<Batch> {
        let idle = |waiting: &mut Waiting| waiting.lines.count == 0 && !waiting.ending;
        let mut waiting = self
            .changed
            .wait_while(self.waiting(), idle)
            .unwrap_or_else(PoisonError::into_inner);
        let lines = mem::take(&mut waiting.lines);
        (lines.count > 0).then_some(lines)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn what_was_said_before_the_end_is_written_in_order() {
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
    fn a_log_that_nobody_reads_loses_lines_and_holds_nobody_up() {
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
        // The end of the test is that this returns.
        drop(guard);
    }

    #[test]
    fn a_log_whose_reader_has_gone_is_lost_and_counted() {
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
