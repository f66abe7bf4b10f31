//! The hedge budget: at most a tenth of all opens are hedged, so that hedges do not make a slow cluster slower.

/// What one hedge costs, in opened connections.
const COST: u32 = 10;

/// The most that is saved up: ten hedges at once for a proxy that opens few connections.
const BURST: u32 = 100;

/// What opened connections have earned and hedges have not spent.
#[derive(Clone, Debug)]
pub struct HedgeBudget {
    left: u32,
}

impl Default for HedgeBudget {
    fn default() -> Self {
        Self { left: BURST }
    }
}

impl HedgeBudget {
    /// Counts an opened connection, which earns a tenth of a hedge.
    pub fn earn(&mut self) {
        self.left = self.left.saturating_add(1).min(BURST);
    }

    /// Takes one hedge out of the budget; false if there is none.
    pub fn spend(&mut self) -> bool {
        match self.left.checked_sub(COST) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hedges_are_a_tenth_of_opens_after_the_burst() {
        let mut budget = HedgeBudget::default();
        let burst = (0..100).take_while(|_| budget.spend()).count();
        assert_eq!(burst, 10);
        let hedges = (0..1000)
            .filter(|_| {
                budget.earn();
                budget.spend()
            })
            .count();
        assert_eq!(hedges, 100);
    }

    proptest! {
        #[test]
        fn hedges_never_exceed_a_tenth_of_opens_and_the_burst(
            opens in prop::collection::vec(any::<bool>(), 0..2000),
        ) {
            let mut budget = HedgeBudget::default();
            let (mut earned, mut spent) = (0, 0);
            for open in opens {
                if open {
                    budget.earn();
                    earned += 1;
                } else {
                    spent += u32::from(budget.spend());
                }
                prop_assert!(spent * COST <= earned + BURST, "{spent} hedges, {earned} opens");
            }
        }
    }
}
