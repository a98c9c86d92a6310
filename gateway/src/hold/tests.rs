//! The queue's bounds and order, on any sequence of what may happen.

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { count: 4, bytes: 100, wait: Duration::from_secs(1) };

fn waiter(bytes: u64) -> Waiter<()> {
    Waiter { bytes, affinity: None, tried: Vec::new(), since: Duration::ZERO, tell: () }
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
    assert_eq!(first(&queue), Some(at(1)));
}

fn first(queue: &Queue<()>) -> Option<Place> {
    queue.turn(Duration::MAX, |_| true).map(|(place, _)| place)
}

#[test]
fn one_that_the_free_replica_suits_goes_first_until_the_oldest_loses_its_patience() {
    let mut queue = Queue::default();
    let at = |number: u64| (Duration::from_millis(10 * number), number);
    for number in 1..=100 {
        queue.put(at(number), waiter(number));
    }
    let turn = |milliseconds, suited: u64| {
        queue.turn(Duration::from_millis(milliseconds), |waiter| waiter.bytes >= suited).unwrap().0
    };
    assert_eq!(turn(1000, 1), at(1));
    assert_eq!(turn(1000, 64), at(64));
    assert_eq!(turn(1000, 65), at(1), "no further than some of the oldest");
    assert_eq!(turn(1009, 3), at(3));
    assert_eq!(turn(1010, 3), at(1), "nobody is overtaken for longer than a second");
}

#[test]
fn where_all_wait_long_others_may_go_first_for_twice_as_long() {
    let mut queue = Queue::default();
    for number in 1..=2 {
        queue.put((Duration::ZERO, number), waiter(number));
    }
    let second = |queue: &Queue<()>, seconds| {
        queue.turn(Duration::from_secs(seconds), |waiter| waiter.bytes == 2).unwrap().0.1 == 2
    };
    assert!(!second(&queue, 1));
    (0..500).for_each(|_| queue.seated(Duration::from_secs(10)));
    assert!(second(&queue, 19) && !second(&queue, 20), "ten seconds are usual");
    (0..500).for_each(|_| queue.seated(Duration::ZERO));
    assert!(!second(&queue, 1), "nobody waits any more");
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
                    let oldest = (!expected.is_empty()).then(|| expected.remove(0).1);
                    let place = first(&queue);
                    prop_assert_eq!(place.and_then(|place| queue.remove(place)).map(|waiter| waiter.bytes), oldest);
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
