//! docs/benchmarks.md.

use std::fmt::{Error, Write};

use super::{Judged, Report};
use crate::metric::Metric;
use crate::peers::Peer;
use crate::targets::{Against, Verdict};

/// The page, whole.
pub(crate) fn page(report: &Report) -> Result<String, Error> {
    let mut text = String::new();
    write_page(&mut text, report)?;
    Ok(text)
}

fn write_page(out: &mut String, report: &Report) -> Result<(), Error> {
    writeln!(out, "# Benchmarks\n")?;
    writeln!(
        out,
        "Written by `make bench`, which measures the proxy as shipped (release build, musl) beside HAProxy, nginx,\n\
         Envoy, Talos' go-loadbalancer and a bare loop in one interleaved run; {} in {} s.\n\
         Run it on your own machine: only ratios travel.\n",
        date(),
        report.taken.as_secs(),
    )?;
    write_ratios(out, report)?;
    write_missed(out, report)?;
    write_medians(out, report)?;
    write_method(out, report)?;
    write_machine(out, report)?;
    write_configurations(out, report)
}

fn date() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn write_ratios(out: &mut String, report: &Report) -> Result<(), Error> {
    writeln!(out, "## Results\n")?;
    writeln!(
        out,
        "Ours divided by the peer's, or ours alone where a unit is given. Medians of the repetitions' own ratios, with\n\
         the quartiles. Less is better but for throughput.\n"
    )?;
    writeln!(
        out,
        "| measure | against | measured | quartiles | target | goal | |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for Judged {
        target,
        measured,
        verdict,
    } in report.judged()
    {
        writeln!(
            out,
            "| {} | {} | **{:.2}** | {:.2}–{:.2} | {} | {} | {} |",
            target.metric.title(),
            target.against(),
            measured.median,
            measured.low,
            measured.high,
            target.bound(target.release),
            target.bound(target.goal),
            verdict.words(),
        )?;
    }
    writeln!(out)
}

fn write_missed(out: &mut String, report: &Report) -> Result<(), Error> {
    let judged = report.judged();
    let mut missed: Vec<_> = judged
        .iter()
        .filter(|row| row.verdict == Verdict::Missed)
        .map(|row| row.target.metric)
        .collect();
    missed.dedup();
    if missed.is_empty() {
        return writeln!(out, "All targets that were measured are met.\n");
    }
    writeln!(out, "## Missed, and why\n")?;
    writeln!(
        out,
        "The bare loop moves bytes with one epoll_wait, recv and send a message and decides nothing: no proxy that copies\n\
         can do with less. Where it misses a target too, the kernel leaves no room for it.\n"
    )?;
    for metric in missed {
        let cause = metric.known_cause().unwrap_or("no cause is known yet");
        writeln!(out, "- **{}**: {cause}{}", metric.title(), floor(report, metric))?;
    }
    writeln!(out)
}

/// Where the bare loop stands beside those that a target of this measure was missed against.
fn floor(report: &Report, metric: Metric) -> String {
    let missed = report
        .judged()
        .into_iter()
        .filter(|row| row.verdict == Verdict::Missed);
    let stands = missed
        .filter(|row| row.target.metric == metric)
        .filter_map(|row| {
            let Against::Peer(peer) = row.target.against else {
                return None;
            };
            let measured = report.samples.ratio(metric, Peer::Bare, peer)?;
            let wanted = row.target.bound(row.target.release);
            Some(format!(
                "{:.2} ÷ {} ({wanted} wanted)",
                measured.median,
                peer.name()
            ))
        });
    let stands: Vec<_> = stands.collect();
    if stands.is_empty() {
        return String::new();
    }
    format!(". The bare loop: {}", stands.join(", "))
}

fn write_medians(out: &mut String, report: &Report) -> Result<(), Error> {
    writeln!(out, "## Medians behind them\n")?;
    let shown: Vec<_> = Peer::ALL
        .into_iter()
        .filter(|peer| {
            Metric::ALL
                .iter()
                .any(|metric| !report.samples.of(*metric, *peer).is_empty())
        })
        .collect();
    let names: Vec<_> = shown.iter().map(|peer| peer.name()).collect();
    writeln!(out, "| measure | unit | {} |", names.join(" | "))?;
    writeln!(out, "|---|---|{}", "---|".repeat(names.len()))?;
    for metric in Metric::ALL {
        let cells: Vec<_> = shown
            .iter()
            .map(|peer| cell(report.samples.spread(metric, *peer).map(|spread| spread.median)))
            .collect();
        if cells.iter().any(|cell| cell != "–") {
            writeln!(
                out,
                "| {} | {} | {} |",
                metric.title(),
                metric.unit(),
                cells.join(" | ")
            )?;
        }
    }
    writeln!(out)
}

/// Three digits that count.
fn cell(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value.abs() < 10.0 => format!("{value:.2}"),
        Some(value) if value.abs() < 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

fn write_method(out: &mut String, report: &Report) -> Result<(), Error> {
    writeln!(out, "## How\n")?;
    writeln!(
        out,
        "- {} repetitions ({} of the rows on memory and files, each with a fresh proxy); in each every peer is measured\n  \
           once, one after another, in reverse on odd repetitions.",
        report.size.repetitions, report.size.idle_repetitions
    )?;
    writeln!(
        out,
        "- CPU and throughput: the proxy on CPU 0, client and server on CPU 1. Round trips: all three on CPU 1, because to\n  \
           wake another CPU costs more on a virtual machine than all that is compared."
    )?;
    writeln!(
        out,
        "- CPU is the sum of `/proc/PID/task/*/schedstat` over the proxy's processes and threads, memory the PSS of\n  \
           `smaps_rollup`, files those in `/proc/PID/fd`. Kernel memory of sockets is not counted: it is the same for all."
    )?;
    writeln!(
        out,
        "- The server answers `/readyz` over TLS on the same port, so the proxy under test probes it once a second and uses\n  \
           a member that is truly Up; HAProxy asks the same, Envoy connects, go-loadbalancer connects every 20 s, nginx\n  \
           (this edition) has no active checks."
    )?;
    writeln!(
        out,
        "- go-loadbalancer is the library in Talos' KubePrism, with KubePrism's settings. It comes with Talos only and splices\n  \
           all that it moves, so it stands here for comparison: no target is set against it, and the best proxy is the best\n  \
           of haproxy, nginx and envoy."
    )?;
    writeln!(
        out,
        "- bare is no proxy that one could run: a loop of this program that moves bytes and passes half-closes on. What it\n  \
           costs is the kernel's share of every proxy that copies."
    )?;
    writeln!(
        out,
        "- Small requests: 512 B answers over HTTP/2 and TLS on ten connections, one at a time on each. Lists by others:\n  \
           bursts of 20 MiB on four plain streams, 4 Gb/s in all. Idle connections: {}, each after a byte both ways;\n  \
           {} through go-loadbalancer, to which one costs six files.\n",
        Peer::Trivet.capacity(report.files),
        Peer::GoLoadbalancer.capacity(report.files),
    )
}

fn write_machine(out: &mut String, report: &Report) -> Result<(), Error> {
    let machine = &report.machine;
    writeln!(out, "## Where\n")?;
    writeln!(
        out,
        "- {} CPUs ({}), {} of memory, Linux {}, congestion control {}",
        machine.cpus, machine.cpu, machine.memory, machine.kernel, machine.congestion_control
    )?;
    let stolen = report
        .stolen
        .map_or_else(|| "unknown".to_owned(), |seconds| format!("{seconds:.1} s"));
    writeln!(
        out,
        "- load averages before {}, after {} (the run itself keeps up to two CPUs busy); CPU given to other machines: {stolen}",
        report.load.0, report.load.1
    )?;
    if report.quick {
        writeln!(out, "- a quick run: fewer and shorter repetitions")?;
    }
    writeln!(out, "- trivet at commit {}", machine.revision)?;
    for (peer, version) in &report.versions {
        writeln!(out, "- {}: {version}", peer.name())?;
    }
    writeln!(out)
}

fn write_configurations(out: &mut String, report: &Report) -> Result<(), Error> {
    writeln!(out, "## Configurations\n")?;
    writeln!(
        out,
        "As the expert of each would write them for this job. Trivet's is the default pool with one member;\n\
         go-loadbalancer's is the program that calls it, with the settings of KubePrism.\n"
    )?;
    for (peer, text) in &report.configurations {
        let kind = match peer {
            Peer::Envoy => "yaml",
            Peer::GoLoadbalancer => "go",
            Peer::Direct | Peer::Trivet | Peer::Haproxy | Peer::HaproxySplice | Peer::Nginx | Peer::Bare => {
                ""
            }
        };
        writeln!(
            out,
            "### {}\n\n```{kind}\n{}\n```\n",
            peer.name(),
            text.trim_end()
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::samples::Samples;
    use crate::workload::Size;

    fn report(samples: &[(Peer, Metric, f64)]) -> Report {
        let mut all = Samples::default();
        for (peer, metric, value) in samples {
            all.add(*peer, 0, (*metric, *value));
        }
        Report {
            samples: all,
            machine: Machine {
                cpu: "a CPU".to_owned(),
                cpus: 2,
                memory: "8 GiB".to_owned(),
                kernel: "6.1".to_owned(),
                congestion_control: "cubic".to_owned(),
                revision: "abc".to_owned(),
            },
            load: ("0.10".to_owned(), "1.90".to_owned()),
            stolen: None,
            versions: vec![(Peer::Haproxy, "HAProxy 2.6".to_owned())],
            configurations: vec![(Peer::Haproxy, "mode tcp\n".to_owned())],
            files: 20_000,
            size: Size::of(true),
            quick: true,
            taken: std::time::Duration::from_secs(60),
        }
    }

    #[test]
    fn the_page_tells_ratios_with_their_targets_and_the_medians_behind_them() {
        let text = page(&report(&[
            (Peer::Trivet, Metric::BulkCpu, 0.2),
            (Peer::Haproxy, Metric::BulkCpu, 0.8),
        ]))
        .unwrap();
        assert!(text.contains(
            "| bulk, one stream: CPU per GB | ÷ haproxy | **0.25** | 0.25–0.25 | ≤ 0.40 | ≤ 0.20 | met |"
        ));
        assert!(text.contains("| bulk, one stream: CPU per GB | s/GB | 0.20 | 0.80 |"));
        assert!(text.contains("All targets that were measured are met."));
        assert!(text.contains("- haproxy: HAProxy 2.6"));
        assert!(text.contains("```\nmode tcp\n```"));
    }

    #[test]
    fn a_missed_target_is_told_with_where_the_bare_loop_stands() {
        let text = page(&report(&[
            (Peer::Trivet, Metric::ChurnCpu, 3.0),
            (Peer::Haproxy, Metric::ChurnCpu, 1.0),
            (Peer::Envoy, Metric::ChurnCpu, 4.0),
            (Peer::Bare, Metric::ChurnCpu, 2.5),
        ]))
        .unwrap();
        assert!(text.contains(". The bare loop: 2.50 ÷ haproxy (≤ 1.10 wanted)\n"));
    }

    #[test]
    fn a_missed_target_is_said_once_for_its_measure() {
        let text = page(&report(&[
            (Peer::Trivet, Metric::ChurnCpu, 3.0),
            (Peer::Haproxy, Metric::ChurnCpu, 1.0),
            (Peer::Envoy, Metric::ChurnCpu, 1.0),
        ]))
        .unwrap();
        assert_eq!(text.matches("MISSED").count(), 2);
        assert_eq!(text.matches("- **connect, byte, close: CPU**").count(), 1);
        assert!(!text.contains("The bare loop:"), "it was not measured");
        assert!(!text.contains("are met."));
    }
}
