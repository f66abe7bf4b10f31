//! Releases of the proxy that are broken.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::Image;
use super::{PROXY, REGISTRY, archive_with, program, read};
use crate::output;
use crate::progress::Progress;

/// The variable that tells the faulty proxy of the tests its fault.
const FAULT: &str = "TRIVET_FAULT";

/// Where an ELF header has the architecture, and one that no kernel runs.
const ELF_MACHINE: std::ops::Range<usize> = 18..20;
const NO_MACHINE: [u8; 2] = [0xff, 0xfe];

/// What is wrong with a release of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Its program ends at once with an error: it does not know its arguments.
    Ends,
    /// Its program runs and does nothing, not even for the probes.
    Idles,
    /// It listens, accepts, dials and probes, and moves no byte between a client and a member.
    DoesNotForward,
    /// It opens a thousand files a second once it is ready, until none is left.
    LeaksFiles,
    /// It takes forty mebibytes a second once it is ready.
    LeaksMemory,
    /// Its program is for another architecture.
    IsForeign,
}

impl Broken {
    /// The tag of its image. That of a proxy with a fault is the name of the fault.
    pub fn tag(self) -> &'static str {
        match self {
            Self::Ends => "ends",
            Self::Idles => "idles",
            Self::DoesNotForward => "does-not-forward",
            Self::LeaksFiles => "leaks-files",
            Self::LeaksMemory => "leaks-memory",
            Self::IsForeign => "foreign",
        }
    }

    /// The name of its image.
    pub fn image(self) -> String {
        format!("{REGISTRY}/{PROXY}:{}", self.tag())
    }

    /// What is in its image.
    fn content(self, progress: &Progress, faulty: &Path) -> Result<Content> {
        match self {
            Self::Ends => Content::of(&program(progress, "trivet-operator")?),
            Self::Idles => Content::of(&program(progress, "trivet-pause")?),
            Self::DoesNotForward | Self::LeaksFiles | Self::LeaksMemory => {
                Content::with_libraries(faulty, format!("{FAULT}={}", self.tag()))
            }
            Self::IsForeign => {
                let mut content = Content::of(&program(progress, PROXY)?)?;
                let machine = content.program.get_mut(ELF_MACHINE);
                machine
                    .context("a program has an ELF header")?
                    .copy_from_slice(&NO_MACHINE);
                Ok(content)
            }
        }
    }
}

/// A program, and what it needs.
struct Content {
    program: Vec<u8>,
    beside: Vec<(String, Vec<u8>)>,
    environment: Vec<String>,
}

impl Content {
    /// A static program.
    fn of(program: &Path) -> Result<Self> {
        Ok(Self {
            program: read(program)?,
            beside: Vec::new(),
            environment: Vec::new(),
        })
    }

    /// A program as the tests have it, which takes no other build than theirs: with the libraries of this machine, and
    /// without the symbols that are most of it.
    fn with_libraries(program: &Path, variable: String) -> Result<Self> {
        let stripped = tempfile::NamedTempFile::new().context("failed to make a file for a program")?;
        let mut strip = Command::new("strip");
        output::of(strip.arg("-o").arg(stripped.path()).arg(program))?;
        let needed = output::of(Command::new("ldd").arg(program))?;
        let library = |path: &str| Ok((path.to_owned(), read(Path::new(path))?));
        Ok(Self {
            program: read(stripped.path())?,
            beside: libraries(&needed).map(library).collect::<Result<_>>()?,
            environment: vec![variable],
        })
    }
}

/// The paths in what ldd(1) says.
fn libraries(needed: &str) -> impl Iterator<Item = &str> {
    let lines = needed.lines();
    lines.filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

/// The image of a broken release of the proxy. `faulty` is the proxy of the tests that has a fault.
pub fn broken(progress: &Progress, broken: Broken, faulty: &Path) -> Result<PathBuf> {
    let directory = faulty
        .parent()
        .context("a binary lies in a directory")?
        .join("images");
    let content = broken.content(progress, faulty)?;
    archive_with(
        &directory,
        &Image {
            registry: REGISTRY,
            name: PROXY,
            tag: broken.tag(),
            program: &content.program,
            beside: &content.beside,
            environment: &content.environment,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_ldd_finds_and_not_what_the_kernel_brings() {
        let needed = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f57)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f58)\n";
        let found: Vec<_> = libraries(needed).collect();
        assert_eq!(
            found,
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
    }
}
