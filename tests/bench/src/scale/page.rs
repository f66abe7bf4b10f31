//! docs/scale.md, and the same for a terminal.

use std::fmt::{Error, Write};

use super::{EDITS, Report, WATCHES};

/// The page, whole.
pub(crate) fn page(report: &Report) -> Result<String, Error> {
    let mut out = String::new();
    writeln!(out, "# Scale\n")?;
    writeln!(
        out,
        "Written by `make bench` (`cargo xtask bench scale` for this page alone): {},\n\
         at one etcd and one apiserver with {} nodes, their proxies' pods and their reports; {} in {} s.\n\
         Run it on your own machine: times depend on it, memory and counts hardly.\n",
        if report.is_given {
            "a build of the operator that was given by `--operator`, not the one that ships"
        } else {
            "the operator as shipped, release build and musl"
        },
        report.nodes,
        jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
        report.taken.as_secs(),
    )?;
    writeln!(out, "## Results\n")?;
    writeln!(out, "| | measured | target | |")?;
    writeln!(out, "|---|---|---|---|")?;
    for row in &report.rows {
        writeln!(
            out,
            "| {} | **{}** | {} | {} |",
            row.what,
            row.figure(),
            row.target(),
            row.verdict()
        )?;
    }
    writeln!(out)?;
    write_method(&mut out, report)?;
    write_machine(&mut out, report)?;
    Ok(out)
}

/// The same for a terminal.
pub(crate) fn terminal(report: &Report) -> Result<String, Error> {
    let mut out = String::new();
    for row in &report.rows {
        writeln!(
            out,
            "{:<88} {:>12}  target {:<12} {}",
            row.what,
            row.figure(),
            row.target(),
            row.verdict()
        )?;
    }
    let targets = report.rows.iter().filter(|row| row.limit.is_some()).count();
    let missed = report.rows.iter().filter(|row| row.is_missed()).count();
    writeln!(out, "\n{missed} of {targets} targets missed")?;
    Ok(out)
}

fn write_method(out: &mut String, report: &Report) -> Result<(), Error> {
    let (sizes, times) = (report.sizes, report.times);
    writeln!(out, "## How\n")?;
    writeln!(
        out,
        "- A node has {} bytes as JSON, with its fifty images; a proxy's pod {}, a report of three members {}. There are no\n  \
           controllers and no kubelets: the bench writes what they would.",
        sizes.node, sizes.pod, sizes.report
    )?;
    writeln!(
        out,
        "- A pass is timed by the operator itself, with all its requests. It makes one each half minute at rest, and each three\n  \
           seconds while reports tell something new. At rest and with reports that tell nothing new it was looked at for {} s\n  \
           each, with news for {} s.",
        times.rest.as_secs(),
        times.news.as_secs()
    )?;
    writeln!(
        out,
        "- Writes are those in the apiserver's audit log. The Lease is left out: by it the operator is the one that writes."
    )?;
    writeln!(
        out,
        "- {WATCHES} watches of the document, each on a TLS connection of its own, by the request that a proxy makes, follow {EDITS}\n  \
           edits of the pool. The time of a write is that at which the apiserver got it."
    )?;
    writeln!(
        out,
        "- When proxies write their reports is simulated: the code by which a proxy decides, on a clock of its own, in 20 fleets of\n  \
           {} for each row, of which the worst is told. Writes that fail count too.\n",
        report.nodes
    )
}

fn write_machine(out: &mut String, report: &Report) -> Result<(), Error> {
    let machine = &report.machine;
    writeln!(out, "## Where\n")?;
    writeln!(
        out,
        "- {} CPUs ({}), {} of memory, Linux {}; etcd and apiserver share them with the operator and the bench",
        machine.cpus, machine.cpu, machine.memory, machine.kernel
    )?;
    writeln!(
        out,
        "- load averages before {}, after {}",
        report.load.0, report.load.1
    )?;
    writeln!(out, "- trivet at commit {}", machine.revision)
}
