use proptest::prelude::*;

use super::*;

const WINDOW: Duration = Duration::from_secs(5);

/// Some day in 2026.
const DAY: u64 = 1_796_000_000;

fn at(seconds: u64) -> Stamp {
    Stamp::at(Duration::from_secs(DAY + seconds))
}

fn order(taken: Result<Taken, Repeated>) -> Option<Order> {
    taken.ok().map(|taken| taken.order)
}

#[test]
fn a_stamp_has_seconds_a_binary_fraction_and_a_counter() {
    let stamp = Stamp::at(Duration::new(0x6800_0000, 500_000_000));
    assert_eq!(stamp.to_bytes(), [0x68, 0, 0, 0, 0x80, 0, 0, 0]);
    assert_eq!(Stamp::from_bytes(stamp.to_bytes()), stamp);
    let last = Stamp::at(Duration::new(0, 999_999_999));
    assert_eq!(last.to_bytes(), [0, 0, 0, 0, 0xff, 0xff, 0, 0]);
}

#[test]
fn a_sender_that_says_more_than_its_clock_can_tell_counts() {
    let mut sequence = Sequence::default();
    assert_eq!(sequence.next(at(0)), at(0));
    let second = sequence.next(at(0)).to_bytes();
    assert_eq!(second[6..], [0, 1]);
    assert_eq!(sequence.next(at(1)), at(1));
}

#[test]
fn a_sender_whose_clock_is_set_back_goes_on_above() {
    let mut sequence = Sequence::default();
    let before = sequence.next(at(3600));
    for _ in 0..100_000 {
        sequence.next(at(0));
    }
    let after = sequence.next(at(0));
    assert!(after.is_after(before));
    // 100,001 more, which is more than the counter holds: the fraction has grown by one.
    assert_eq!(after.milliseconds_ahead_of(before), 0);
    assert_eq!(sequence.next(at(3601)), at(3601));
}

#[test]
fn a_sender_that_starts_anew_goes_on_above_what_it_kept() {
    let mut sequence = Sequence::after(at(60));
    assert!(sequence.next(at(0)).is_after(at(60)));
    assert_eq!(sequence.next(at(61)), at(61));
}

#[test]
fn seconds_that_wrap_are_later() {
    let last = Stamp::from_bytes([0xff; 8]);
    let next = Stamp::at(Duration::from_secs(1 << 32));
    assert_eq!(next.to_bytes(), [0; 8]);
    assert!(next.is_after(last));
    assert!(!last.is_after(next));
    let mut sequence = Sequence::after(last);
    assert_eq!(sequence.next(last), next);
    let mut mark = Mark::default();
    mark.take(last, last, WINDOW).unwrap();
    assert_eq!(order(mark.take(next, last, WINDOW)), Some(Order::Later));
}

#[test]
fn an_advertisement_is_taken_once() {
    let mut mark = Mark::default();
    assert_eq!(order(mark.take(at(0), at(0), WINDOW)), Some(Order::First));
    assert_eq!(mark.take(at(0), at(0), WINDOW), Err(Repeated));
    assert_eq!(order(mark.take(at(1), at(1), WINDOW)), Some(Order::Later));
    assert_eq!(mark.take(at(0), at(1), WINDOW), Err(Repeated));
    assert_eq!(mark.take(at(1), at(1), WINDOW), Err(Repeated));
    assert_eq!(Repeated.reason(), "Repeated");
}

#[test]
fn a_sender_whose_clock_is_wrong_is_heard_and_its_skew_is_told() {
    for wrong in [DAY + 3600, DAY - 3600, 0, DAY + 20 * 365 * 86_400] {
        let mut mark = Mark::default();
        for second in 1..10 {
            let stamp = Stamp::at(Duration::from_secs(wrong + second));
            let taken = mark.take(stamp, at(second), WINDOW).unwrap();
            assert!(!taken.is_within_window);
            let seconds = i64::try_from(wrong).unwrap() - i64::try_from(DAY).unwrap();
            assert_eq!(taken.skew, 1000 * seconds);
        }
    }
}

#[test]
fn a_receiver_whose_clock_is_set_back_or_forth_goes_on_hearing() {
    let mut mark = Mark::default();
    for (second, receiver) in [(0, 0), (1, 7200), (2, 7201), (3, 0), (4, 1)] {
        mark.take(at(second), at(receiver), WINDOW).unwrap();
    }
}

#[test]
fn a_skew_is_within_the_window_up_to_its_end() {
    for (sent, received, is_within_window) in [(5, 0, true), (0, 5, true), (6, 0, false), (0, 6, false)] {
        let taken = Mark::default().take(at(sent), at(received), WINDOW).unwrap();
        assert_eq!(taken.is_within_window, is_within_window);
    }
}

#[test]
fn a_sender_that_starts_anew_with_a_corrected_clock_is_heard_at_once() {
    let mut mark = Mark::default();
    mark.take(at(7200), at(0), WINDOW).unwrap();
    assert_eq!(order(mark.take(at(2), at(1), WINDOW)), Some(Order::Corrected));
    // From there on its stamps grow as others do.
    assert_eq!(mark.take(at(2), at(1), WINDOW), Err(Repeated));
    assert_eq!(order(mark.take(at(3), at(2), WINDOW)), Some(Order::Later));
}

#[test]
fn no_old_advertisement_passes_for_one_of_a_corrected_clock() {
    let mut mark = Mark::default();
    mark.take(at(7200), at(100), WINDOW).unwrap();
    // It is older than the window.
    assert_eq!(mark.take(at(94), at(100), WINDOW), Err(Repeated));
    // The last one was right.
    let mut mark = Mark::default();
    mark.take(at(100), at(100), WINDOW).unwrap();
    assert_eq!(mark.take(at(99), at(100), WINDOW), Err(Repeated));
    // The last one is behind: this clock was set forth, or nothing came for a while.
    assert_eq!(mark.take(at(99), at(200), WINDOW), Err(Repeated));
    // It was ahead, but within the window.
    let mut mark = Mark::default();
    mark.take(at(105), at(100), WINDOW).unwrap();
    assert_eq!(mark.take(at(100), at(100), WINDOW), Err(Repeated));
}

#[test]
fn the_window_is_three_intervals_and_at_least_five_seconds() {
    for (centiseconds, seconds) in [(20, 5), (100, 5), (200, 6), (4095, 122)] {
        let interval = Interval::from_centiseconds(centiseconds).unwrap();
        assert_eq!(window(interval).as_secs(), seconds);
    }
}

proptest! {
    #[test]
    fn the_stamps_of_a_sender_grow_whatever_its_clock_does(
        clock in prop::collection::vec((0..1_u64 << 31, 0..1_000_000_000_u32), 2..50),
    ) {
        let mut sequence = Sequence::default();
        let stamps: Vec<_> = clock
            .iter()
            .map(|(seconds, nanoseconds)| sequence.next(Stamp::at(Duration::new(*seconds, *nanoseconds))))
            .collect();
        for pair in stamps.windows(2) {
            prop_assert!(pair[1].is_after(pair[0]));
        }
    }

    #[test]
    fn what_a_receiver_with_a_right_clock_took_of_a_right_sender_it_never_takes_again(
        sent in prop::collection::vec(0..100_u64, 1..50),
    ) {
        // Delivered in any order and several times; the clock is past what was sent.
        let mut mark = Mark::default();
        let mut taken = Vec::new();
        for second in sent {
            if mark.take(at(second), at(100), WINDOW).is_ok() {
                prop_assert!(taken.iter().all(|earlier| *earlier < second));
                taken.push(second);
            }
        }
    }
}
