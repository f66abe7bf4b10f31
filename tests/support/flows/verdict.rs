//! What the clients of the flows noticed of what happened to their proxy.

use std::time::Duration;

use super::flow::{Flow, Route};

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

/// What the machine alone costs a flow at worst, if flows of its kind ran without the proxy: twice their longest pause. The
/// longest of a minute on two busy CPUs differs by chance from one flow to the next (seen without an upgrade: 0.9 s through the
/// proxy and 0.7 s beside it; with three: 0.97 s and 0.76 s, and in the same run 0.9 s and 1.6 s).
fn machine(flows: &[Flow], like: &Flow) -> Option<Duration> {
    let direct = flows
        .iter()
        .filter(|flow| flow.route == Route::Direct && flow.kind == like.kind);
    let longest = direct.map(|flow| flow.seen.longest_pause).max()?;
    Some(longest * 2)
}

#[cfg(test)]
mod tests {
    use super::super::flow::{Kind, Seen};
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
        assert_eq!(with(280), [""; 0]);
        assert_eq!(
            with(281),
            ["w1: requests paused for 281ms (the machine's share 180ms)"]
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
