//! The answers to the exec probes in a file, for nodes that deny unix sockets (AppArmor's default profile on some kernels).
//! Without an answer kubelet would restart a proxy that serves well.
//!
//! The file lies beside the socket's path. The proxy replaces it every two seconds, so that an old one says that its event
//! loop does not turn.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::sleep;
use tracing::{info, warn};

use super::Question;
use crate::{clock, readiness::Readiness};

/// How often the file is replaced.
const INTERVAL: Duration = Duration::from_secs(2);

/// The oldest state that counts.
const FRESH: Duration = Duration::from_secs(5);

/// The file.
#[derive(Clone, Debug)]
pub struct StateFile(PathBuf);

/// What the probes are told at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// The time since the node's boot.
    written: Duration,
    answers: [(Question, bool, String); 3],
}

/// Why the file has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("failed to read {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// It has another form.
    #[error("{} has no answer", .0.display())]
    Malformed(PathBuf),
    /// The proxy has not written it for too long, or it comes from before the node's boot.
    #[error("the proxy's event loop has not turned lately: {} is older than {FRESH:?}", .0.display())]
    Old(PathBuf),
}

impl StateFile {
    /// The file beside a socket.
    pub(super) fn beside(socket: &Path) -> Self {
        let mut path = socket.as_os_str().to_owned();
        path.push(".state");
        Self(path.into())
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// What it answers at this time since boot; none if there is no such file.
    pub(super) fn read(&self, question: Question, now: Duration) -> Result<Option<(bool, String)>, Error> {
        let text = match fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::Io(self.0.clone(), error)),
        };
        let state = State::parse(&text).ok_or_else(|| Error::Malformed(self.0.clone()))?;
        let age = now.checked_sub(state.written);
        if age.is_none_or(|age| age > FRESH) {
            return Err(Error::Old(self.0.clone()));
        }
        let mut answers = state.answers.into_iter();
        let answer = answers.find(|(asked, _, _)| *asked == question);
        Ok(answer.map(|(_, agrees, words)| (agrees, words)))
    }

    /// Replaces it.
    pub(super) fn write(&self, readiness: &Readiness) -> io::Result<()> {
        fs::write(self.temporary(), State::of(readiness, clock::since_boot()).text())?;
        fs::rename(self.temporary(), &self.0)
    }

    /// Replaces it for ever. The disk may hang, and forwarding must not hang with it.
    pub(super) async fn keep(self, readiness: &Readiness) {
        let mut fails = false;
        loop {
            sleep(INTERVAL).await;
            let text = State::of(readiness, clock::since_boot()).text();
            match self.replace(text).await {
                Err(error) if !fails => {
                    fails = true;
                    self.warn(&error);
                }
                Ok(()) if fails => {
                    fails = false;
                    info!(file = %self.0.display(), "wrote the answers to exec probes again");
                }
                Err(_) | Ok(()) => {}
            }
        }
    }

    /// Says that it could not be written.
    pub(super) fn warn(&self, error: &io::Error) {
        warn!(file = %self.0.display(), %error, "failed to write the answers to exec probes, trying again");
    }

    async fn replace(&self, text: String) -> io::Result<()> {
        tokio::fs::write(self.temporary(), text).await?;
        tokio::fs::rename(self.temporary(), &self.0).await
    }

    fn temporary(&self) -> PathBuf {
        let mut path = self.0.as_os_str().to_owned();
        path.push(".tmp");
        path.into()
    }
}

impl State {
    fn of(readiness: &Readiness, now: Duration) -> Self {
        let answer = |question: Question| {
            let objection = question.objection(readiness);
            let agrees = objection.is_none();
            let words = objection.unwrap_or_else(|| question.agreed().to_owned());
            (question, agrees, words.replace('\n', " "))
        };
        Self {
            written: now,
            answers: Question::ALL.map(answer),
        }
    }

    fn text(&self) -> String {
        let answers = self.answers.iter().map(|(question, agrees, words)| {
            let agrees = if *agrees { "yes" } else { "no" };
            format!("{} {agrees} {words}\n", question.as_str())
        });
        let written = format!("written {}\n", self.written.as_millis());
        std::iter::once(written).chain(answers).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let written = lines.next()?.strip_prefix("written ")?.parse().ok()?;
        let mut answer = |question: Question| {
            let line = lines.next()?.strip_prefix(question.as_str())?;
            let (agrees, words) = line.strip_prefix(' ')?.split_once(' ')?;
            let agrees = match agrees {
                "yes" => true,
                "no" => false,
                _ => return None,
            };
            Some((question, agrees, words.to_owned()))
        };
        let [first, second, third] = Question::ALL;
        Some(Self {
            written: Duration::from_millis(written),
            answers: [answer(first)?, answer(second)?, answer(third)?],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            written: Duration::from_secs(100),
            answers: [
                (Question::Startup, true, "started".to_owned()),
                (Question::Ready, false, "no listener is bound".to_owned()),
                (Question::Live, true, "alive".to_owned()),
            ],
        }
    }

    fn file(text: &str) -> (tempfile::TempDir, StateFile) {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::beside(&directory.path().join("proxy.sock"));
        fs::write(directory.path().join("proxy.sock.state"), text).unwrap();
        (directory, file)
    }

    #[test]
    fn each_probe_reads_its_own_answer() {
        let (_directory, file) = file(&state().text());
        let read = |question| file.read(question, Duration::from_secs(105)).unwrap().unwrap();
        assert_eq!(read(Question::Startup), (true, "started".to_owned()));
        assert_eq!(read(Question::Ready), (false, "no listener is bound".to_owned()));
        assert_eq!(read(Question::Live), (true, "alive".to_owned()));
    }

    #[test]
    fn an_old_state_or_one_from_before_the_boot_is_no_answer() {
        let (_directory, file) = file(&state().text());
        for now in [Duration::from_millis(105_001), Duration::from_secs(99)] {
            let refused = file.read(Question::Live, now).unwrap_err();
            assert!(matches!(refused, Error::Old(_)), "{refused:?}");
        }
    }

    #[test]
    fn a_torn_state_is_no_answer() {
        let whole = state().text();
        for text in [
            "",
            "written x\n",
            "written 100000\nready yes ready\n",
            &whole[..whole.len() / 2],
        ] {
            let (_directory, file) = file(text);
            let refused = file.read(Question::Live, Duration::from_secs(100)).unwrap_err();
            assert!(matches!(refused, Error::Malformed(_)), "{text:?}: {refused:?}");
        }
    }

    #[test]
    fn without_a_file_there_is_no_answer_and_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::beside(&directory.path().join("proxy.sock"));
        assert_eq!(file.read(Question::Live, Duration::ZERO).unwrap(), None);
    }
}
