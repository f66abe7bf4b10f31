//! What the clients of the flows noticed of what happened to their proxy.

use std::time::Duration;

use super::flow::{Flow, Kind, Route};

/// docs/testbed.md, O6: beyond the longest pause of the same flow without the proxy.
const PAUSE: Duration = Duration::from_millis(100);

/// What must not have been noticed: a flow that did not go on as it began, and a pause that is not the machine's.
pub fn noticed(flows: &[Flow]) -> Vec<String> {
    let broken = flows.iter().filter_map(|flow| {
        let broken = flow.seen.broken.as_ref()?;
        Some(format!("{}: {}: {broken}", flow.worker, flow.kind))
    });
    let paused = flows.iter().filter(|flow| flow.route == Route::Proxy);
    let paused = paused.filter_map(|flow| {
        let (pause, machine) = (flow.seen.longest_pause, machine(flows, flow)?);
        (pause > machine + PAUSE).then(|| {
            format!(
                "{}: {} paused for {pause:.0?} (the machine's share {machine:.0?})",
                flow.worker, flow.kind
            )
        })
    });
    broken.chain(paused).collect()
}

/// What the machine alone costs a flow at worst, if flows of its kind ran without the proxy: their longest pause. Of kubectl's
/// it is twice that: each has several processes to wait for, whose pauses differ by chance (seen on a busy machine, without
/// an upgrade: 0.9 s through the proxy and 0.7 s beside it, where requests differed by 0.01 s).
fn machine(flows: &[Flow], like: &Flow) -> Option<Duration> {
    let direct = flows
        .iter()
        .filter(|flow| flow.route == Route::Direct && flow.kind == like.kind);
    let longest = direct.map(|flow| flow.seen.longest_pause).max()?;
    Some(match like.kind {
        Kind::Kubectl(_) => longest * 2,
        Kind::Informers | Kind::Requests | Kind::Download | Kind::Upload | Kind::SlowReader => longest,
    })
}

#[cfg(test)]
mod tests {
    use super::super::flow::Seen;
    use super::*;

    fn flow(kind: Kind, route: Route, pause: u64, broken: Option<&str>) -> Flow {
        Flow {
            worker: "w1".to_owned(),
            kind,
            route,
            seen: Seen {
                carried: String::new(),
                longest_pause: Duration::from_millis(pause),
                broken: broken.map(str::to_owned),
            },
        }
    }

    #[test]
    fn a_pause_is_judged_beside_the_longest_of_its_kind_without_the_proxy() {
        let beside = [
            flow(Kind::Requests, Route::Direct, 20, None),
            flow(Kind::Requests, Route::Direct, 90, None),
        ];
        let with = |pause| {
            let paused = flow(Kind::Requests, Route::Proxy, pause, None);
            noticed(&[&[paused], &beside[..]].concat())
        };
        assert_eq!(with(190), [""; 0]);
        assert_eq!(
            with(191),
            ["w1: requests paused for 191ms (the machine's share 90ms)"]
        );
    }

    #[test]
    fn a_flow_that_is_broken_is_noticed_and_a_kind_without_a_control_may_pause() {
        let flows = [
            flow(Kind::Download, Route::Proxy, 5000, None),
            flow(Kind::Upload, Route::Proxy, 0, Some("reset")),
        ];
        assert_eq!(noticed(&flows), ["w1: upload: reset"]);
    }
}
