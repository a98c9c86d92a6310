//! The queue's bounds and order, on any sequence of what may happen.

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { count: 4, bytes: 100, wait: Duration::from_secs(1) };

fn waiter(bytes: u64) -> Waiter<()> {
    Waiter { bytes, affinity: None, tried: Vec::new(), tell: () }
}

#[test]
fn each_gateway_takes_its_share_and_none_loses_the_last_place() {
    let share = BOUNDS.share(3);
    assert_eq!((share.count, share.bytes, share.wait), (2, 34, BOUNDS.wait));
    assert_eq!(BOUNDS.share(0), BOUNDS);
    assert_eq!(Bounds { count: 0, ..BOUNDS }.share(2).count, 0);
}

#[test]
fn one_that_comes_back_stands_where_it_stood() {
    let mut queue = Queue::default();
    let at = |number| (Duration::from_secs(number), number);
    for number in 2..5 {
        queue.put(at(number), waiter(number));
    }
    queue.put(at(1), waiter(1));
    assert_eq!((queue.ahead_of(at(1)), queue.ahead_of(at(4)), queue.ahead_of(at(9))), (Some(0), Some(3), None));
    assert_eq!(queue.take_first().unwrap().bytes, 1);
}

#[derive(Clone, Debug)]
enum Event {
    Arrive(u64),
    Leave(usize),
    Release,
    Clear,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0_u64..60).prop_map(Event::Arrive),
        2 => (0_usize..8).prop_map(Event::Leave),
        3 => Just(Event::Release),
        1 => Just(Event::Clear),
    ];
    proptest::collection::vec(event, 0..80)
}

proptest! {
    #[test]
    fn the_bounds_hold_and_the_oldest_goes_first(events in events()) {
        let mut queue = Queue::default();
        let mut expected: Vec<(Place, u64)> = Vec::new();
        for (number, event) in events.into_iter().enumerate() {
            let place = (Duration::from_millis(number as u64 / 3), number as u64);
            match event {
                Event::Arrive(bytes) => {
                    let held: u64 = expected.iter().map(|(_, bytes)| bytes).sum();
                    let room = queue.has_room(bytes, &BOUNDS);
                    prop_assert_eq!(room, expected.len() < BOUNDS.count && held + bytes <= BOUNDS.bytes);
                    if room {
                        queue.put(place, waiter(bytes));
                        expected.push((place, bytes));
                    }
                }
                Event::Leave(at) if at < expected.len() => {
                    let (place, bytes) = expected.remove(at);
                    prop_assert_eq!(queue.remove(place).map(|waiter| waiter.bytes), Some(bytes));
                    prop_assert!(queue.remove(place).is_none());
                }
                Event::Leave(_) => {}
                Event::Release => {
                    let first = (!expected.is_empty()).then(|| expected.remove(0).1);
                    prop_assert_eq!(queue.take_first().map(|waiter| waiter.bytes), first);
                }
                Event::Clear => {
                    prop_assert_eq!(queue.take_all().len(), expected.len());
                    expected.clear();
                }
            }
            prop_assert_eq!(queue.bytes(), expected.iter().map(|(_, bytes)| bytes).sum::<u64>());
            prop_assert_eq!(queue.len(), expected.len());
        }
    }
}
