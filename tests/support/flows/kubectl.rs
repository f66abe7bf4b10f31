//! kubectl's streams through one way to an apiserver.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use trivet_testbed::Host;

use super::flow::{Kind, Seen};
use crate::streams::{self, Life, Stream, Streams, Way};

/// One stream of each kind to a pod.
pub(super) struct Kubectl {
    wanted: Vec<Stream>,
    streams: Streams,
}

impl Kubectl {
    /// Opens them from a host.
    pub(super) fn open(host: &Host, way: &Way, pod: &str) -> Self {
        let wanted = streams::Kind::ALL.map(|kind| Stream {
            pod: pod.to_owned(),
            kind,
        });
        Self {
            wanted: wanted.to_vec(),
            streams: Streams::open(host, way, wanted.to_vec()),
        }
    }

    /// Fails unless all are open.
    pub(super) fn is_whole(&self) -> Result<()> {
        let (open, wanted) = (self.streams.open_now().len(), self.wanted.len());
        ensure!(open == wanted, "{open} of {wanted} of kubectl's streams are open");
        Ok(())
    }

    /// Ends them.
    pub(super) async fn finish(self) -> Vec<(Kind, Seen)> {
        let now = Timestamp::now();
        let lives = self.streams.finish().await;
        let seen = |stream: Stream| {
            let seen = match &lives {
                Ok(lives) => seen(lives.iter().filter(|life| life.stream == stream), now),
                Err(error) => Seen::lost(error),
            };
            (Kind::Kubectl(stream.kind), seen)
        };
        self.wanted.into_iter().map(seen).collect()
    }
}

/// What became of a stream in its lives until now. It has another one only if it was cut.
fn seen<'a>(all: impl Iterator<Item = &'a Life>, now: Timestamp) -> Seen {
    let (mut lines, mut longest_pause, mut ends) = (0, Duration::ZERO, Vec::new());
    for life in all {
        let Some(last) = life.last else { continue };
        // A stream that stalls and does not end is silent to the last.
        let until = life.ended.as_ref().map_or(now, |(ended, _)| *ended);
        let silence = until.duration_since(last).unsigned_abs();
        lines += life.lines;
        longest_pause = longest_pause.max(life.longest_silence).max(silence);
        // kubectl's last line is the error; those before it are its parts'.
        ends.extend(life.ended.as_ref().and_then(|(_, why)| why.lines().last()));
    }
    Seen {
        carried: format!("{lines} lines"),
        longest_pause,
        broken: ends
            .first()
            .map(|first| format!("ended {} times, first so: {first}", ends.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    /// A life whose last line came so many milliseconds ago, after so many without one.
    fn life(ago: u64, silence: u64, ended: Option<&str>) -> Life {
        let stream = Stream {
            pod: "flow".to_owned(),
            kind: streams::Kind::Exec,
        };
        let last = NOW - Duration::from_millis(ago);
        Life {
            stream,
            begun: last,
            first: Some(last),
            last: Some(last),
            lines: 7,
            longest_silence: Duration::from_millis(silence),
            ended: ended.map(|why| (NOW, why.to_owned())),
        }
    }

    #[test]
    fn a_stream_that_ended_is_broken_and_one_that_could_not_be_opened_at_first_is_not() {
        let never = Life {
            last: None,
            ..life(0, 0, Some("no pod"))
        };
        let whole = seen([&never, &life(0, 120, None)].into_iter(), NOW);
        assert_eq!((whole.carried.as_str(), whole.broken), ("7 lines", None));
        let cut = seen([&life(0, 120, Some("reset")), &life(0, 0, None)].into_iter(), NOW);
        assert_eq!(cut.broken.as_deref(), Some("ended 1 times, first so: reset"));
    }

    #[test]
    fn a_stream_that_stalls_for_ever_pauses_until_now() {
        let pause = |ago, silence| seen([&life(ago, silence, None)].into_iter(), NOW).longest_pause;
        assert_eq!(pause(90, 400), Duration::from_millis(400));
        assert_eq!(pause(5000, 400), Duration::from_secs(5));
    }
}
