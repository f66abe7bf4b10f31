//! The samples of a run, by measure, peer and repetition.

use std::collections::BTreeMap;

use crate::metric::Metric;
use crate::peers::Peer;
use crate::statistics::{Spread, spread};

/// All samples. Ratios are taken within a repetition: what disturbed the machine then disturbed both.
#[derive(Debug, Default)]
pub(crate) struct Samples(BTreeMap<(Metric, Peer), BTreeMap<usize, f64>>);

impl Samples {
    pub(crate) fn add(&mut self, peer: Peer, repetition: usize, (metric, value): (Metric, f64)) {
        self.0
            .entry((metric, peer))
            .or_default()
            .insert(repetition, value);
        if metric == Metric::EchoMedian {
            self.derive_added(repetition);
        }
    }

    /// All samples of one measure and peer, in the order of their repetitions.
    pub(crate) fn of(&self, metric: Metric, peer: Peer) -> Vec<f64> {
        let values = self.0.get(&(metric, peer));
        values
            .map(|values| values.values().copied().collect())
            .unwrap_or_default()
    }

    pub(crate) fn spread(&self, metric: Metric, peer: Peer) -> Option<Spread> {
        spread(&self.of(metric, peer))
    }

    /// One peer's number divided by another's in each repetition that has both.
    pub(crate) fn ratio(&self, metric: Metric, of: Peer, to: Peer) -> Option<Spread> {
        self.ratio_to(metric, of, |repetition| self.one(metric, to, repetition))
    }

    /// Ours divided by the best of the peers' in each repetition.
    pub(crate) fn ratio_to_best(&self, metric: Metric, peers: &[Peer]) -> Option<Spread> {
        self.ratio_to(metric, Peer::Trivet, |repetition| {
            let all = peers
                .iter()
                .filter_map(|peer| self.one(metric, *peer, repetition));
            if metric.rises() {
                all.reduce(f64::max)
            } else {
                all.reduce(f64::min)
            }
        })
    }

    fn ratio_to(&self, metric: Metric, of: Peer, theirs: impl Fn(usize) -> Option<f64>) -> Option<Spread> {
        let ours = self.0.get(&(metric, of))?;
        let ratios: Vec<_> = ours
            .iter()
            .filter_map(|(repetition, ours)| theirs(*repetition).map(|theirs| ours / theirs))
            .filter(|ratio| ratio.is_finite())
            .collect();
        spread(&ratios)
    }

    fn one(&self, metric: Metric, peer: Peer, repetition: usize) -> Option<f64> {
        self.0.get(&(metric, peer))?.get(&repetition).copied()
    }

    fn derive_added(&mut self, repetition: usize) {
        let Some(direct) = self.one(Metric::EchoMedian, Peer::Direct, repetition) else {
            return;
        };
        for peer in Peer::ALL.into_iter().filter(|peer| *peer != Peer::Direct) {
            if let Some(through) = self.one(Metric::EchoMedian, peer, repetition) {
                let added = self.0.entry((Metric::EchoAdded, peer)).or_default();
                added.insert(repetition, through - direct);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(of: &[(Peer, usize, Metric, f64)]) -> Samples {
        let mut samples = Samples::default();
        for (peer, repetition, metric, value) in of {
            samples.add(*peer, *repetition, (*metric, *value));
        }
        samples
    }

    #[test]
    fn a_ratio_is_taken_within_each_repetition() {
        let drifting = samples(&[
            (Peer::Trivet, 0, Metric::BulkCpu, 1.0),
            (Peer::Haproxy, 0, Metric::BulkCpu, 2.0),
            (Peer::Trivet, 1, Metric::BulkCpu, 100.0),
            (Peer::Haproxy, 1, Metric::BulkCpu, 200.0),
            (Peer::Trivet, 2, Metric::BulkCpu, 7.0),
        ]);
        let ratio = drifting
            .ratio(Metric::BulkCpu, Peer::Trivet, Peer::Haproxy)
            .unwrap();
        assert_eq!((ratio.low, ratio.median, ratio.high), (0.5, 0.5, 0.5));
    }

    #[test]
    fn the_best_peer_is_the_highest_where_more_is_better() {
        let rates = samples(&[
            (Peer::Trivet, 0, Metric::BulkRate, 3.0),
            (Peer::Haproxy, 0, Metric::BulkRate, 1.0),
            (Peer::Envoy, 0, Metric::BulkRate, 2.0),
        ]);
        let best = rates.ratio_to_best(Metric::BulkRate, &[Peer::Haproxy, Peer::Envoy, Peer::Nginx]);
        assert_eq!(best.unwrap(), spread(&[1.5]).unwrap());
    }

    #[test]
    fn what_a_proxy_adds_is_its_round_trip_less_the_direct_one_whoever_came_first() {
        for order in [[Peer::Direct, Peer::Envoy], [Peer::Envoy, Peer::Direct]] {
            let mut all = Samples::default();
            for peer in order {
                let time = if peer == Peer::Direct { 10.0 } else { 25.0 };
                all.add(peer, 0, (Metric::EchoMedian, time));
            }
            assert_eq!(all.of(Metric::EchoAdded, Peer::Envoy), [15.0]);
            assert!(all.of(Metric::EchoAdded, Peer::Direct).is_empty());
        }
    }

    #[test]
    fn without_a_peer_there_is_no_ratio() {
        let alone = samples(&[(Peer::Trivet, 0, Metric::BulkCpu, 1.0)]);
        assert_eq!(alone.ratio(Metric::BulkCpu, Peer::Trivet, Peer::Nginx), None);
    }
}
